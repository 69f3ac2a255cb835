"""Does a map say what the classifier does? Deletion and insertion, infidelity, sensitivity.

Everything is asked of a classifier on its device in batches, and of maps on the CPU that speak for
the class it decided on.

Curves take away, or bring back, pixels of the cell alone, and leave the background as it is. Black
taken from black changes nothing: over the whole image a curve would tell who knows where the cell
is, which a mask knows best, and not who knows what in it counts. What a map wastes on the
background is :mod:`leuk.explain.regions`' to say, and infidelity's, which believes a map there too.
"""

from dataclasses import dataclass

import numpy as np
import torch
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max
from scipy.integrate import trapezoid
from torch import Tensor

from leuk.classifiers.classifier import Classifier
from leuk.evaluate.vectors import Floats
from leuk.explain.explainer import Explainer, Target, as_judged, log_odds, signs
from leuk.explain.perturb import ask, cell_mask

_SMALLEST, _LARGEST = 1 / 8, 1 / 3
"""Sides of the squares that are removed, as shares of the image's."""


@dataclass(frozen=True, eq=False)
class Curves:
    """Probability of a class while pixels go and come, the most important first.

    Attributes:
        shares: ``(S + 1,)`` from 0 to 1, of the cell's pixels.
        deletion: ``(B, S + 1)``, with that share hidden.
        insertion: ``(B, S + 1)``, with that share shown and the rest of the cell hidden.
    """

    shares: Floats
    deletion: Floats
    insertion: Floats

    @property
    def deletion_auc(self) -> Floats:
        """Mean height of the deletion curves, ``(B,)``: low is good."""
        return np.asarray(trapezoid(self.deletion, self.shares, axis=1))

    @property
    def insertion_auc(self) -> Floats:
        """Mean height of the insertion curves, ``(B,)``: high is good."""
        return np.asarray(trapezoid(self.insertion, self.shares, axis=1))


@torch.no_grad()
def curves(
    classifier: Classifier,
    images: Tensor,
    other: Tensor,
    maps: Tensor,
    target: Target,
    steps: int = 16,
    batch_size: int = 64,
    seed: int = 0,
) -> Curves:
    """Deletion and insertion curves (Petsiuk et al. 2018, RISE, section 4.2).

    Costs ``2 * B * steps`` model calls.

    Args:
        classifier: fitted.
        images: ``(B, 3, R, R)`` in [0, 1], on the classifier's device.
        other: likewise, what shows where a pixel is hidden (:func:`leuk.explain.perturb.hidden`).
        maps: finite, ``(B, R, R)`` on the CPU; high where there is evidence for ``target``.
        target: whose probability.
        steps: levels between nothing and all.
        batch_size: images a pass.
        seed: of the order of pixels with equal values, such as those of one superpixel.
    """
    device, count = images.device, len(images)
    turns = _turns(maps, cell_mask(images).cpu(), steps, seed).to(device)
    levels = torch.arange(steps, device=device).repeat(2 * count)
    deleting = torch.tensor([True, False], device=device).repeat_interleave(steps).repeat(count)
    cells = torch.arange(count, device=device).repeat_interleave(2 * steps)
    answers = []
    with as_judged(classifier), torch.no_grad():
        for at in torch.arange(len(cells), device=device).split(batch_size):
            cell, turn = cells[at], turns[cells[at]]
            gone = (turn < levels[at, None, None]) == deleting[at, None, None]
            hides = (gone & (turn >= 0))[:, None]
            answers.append(log_odds(classifier(torch.where(hides, other[cell], images[cell]))))
    toward = torch.cat(answers).cpu() * signs(target, count).repeat_interleave(2 * steps)
    down, up = toward.double().sigmoid().view(count, 2, steps).unbind(dim=1)
    # All gone is nothing brought back yet, and the other way round.
    deletion, insertion = (torch.cat([down, up[:, :1]], 1), torch.cat([up, down[:, :1]], 1))
    return Curves(np.linspace(0, 1, steps + 1), deletion.numpy(), insertion.numpy())


def _turns(maps: Tensor, cells: Tensor, steps: int, seed: int) -> Tensor:
    """In which of the steps a pixel's turn comes, ``int16 (B, R, R)``; -1 outside the cell."""
    values, inside = maps.flatten(1), cells.flatten(1)
    pixels = values.shape[1]
    # A stable sort of shuffled pixels leaves equal ones in random order, the same for every cell.
    shuffle = torch.randperm(pixels, generator=torch.Generator().manual_seed(seed))
    shuffled = values.masked_fill(~inside, -torch.inf)[:, shuffle]
    order = shuffle[shuffled.argsort(dim=1, descending=True, stable=True)]
    place = torch.empty_like(order).scatter_(1, order, torch.arange(pixels).expand_as(order))
    turns = place * steps // inside.sum(dim=1, keepdim=True).clamp(min=1)
    return turns.masked_fill(~inside, -1).to(torch.int16).view(maps.shape)


@dataclass(frozen=True, eq=False)
class Removals:
    """Squares taken from cells, and what that did to the classifier; the same for every map.

    Attributes:
        boxes: ``int64 (B, N, 4)``: first and past-the-last row, then column.
        changes: ``float32 (B, N)``, by how much the log-odds of the target fell.
    """

    boxes: Tensor
    changes: Tensor


def removals(
    classifier: Classifier,
    images: Tensor,
    other: Tensor,
    target: Target,
    samples: int = 32,
    batch_size: int = 64,
    seed: int = 0,
) -> Removals:
    """Remove squares about random pixels of each cell, an eighth to a third of the image a side.

    The perturbation of Yeh et al. 2019 (section 3.2, square removal). Costs ``B * (samples + 1)``
    model calls, for any number of maps. See :func:`curves` for the arguments.
    """
    device, count, side = images.device, len(images), images.shape[-1]
    boxes = _boxes(cell_mask(images).cpu(), samples, seed)
    cells = torch.arange(count, device=device).repeat_interleave(samples)
    line = torch.arange(side, device=device)
    answers = []
    # In bfloat16 what a small square changes would be rounding.
    exact = torch.autocast(device.type, enabled=False)
    with exact, as_judged(classifier), torch.no_grad():
        whole = ask(classifier, images, batch_size)
        flat = boxes.to(device).flatten(0, 1)[:, :, None]
        for cell, box in zip(cells.split(batch_size), flat.split(batch_size), strict=True):
            top, bottom, left, right = box.unbind(dim=1)
            rows, columns = (line >= top) & (line < bottom), (line >= left) & (line < right)
            hides = (rows[:, :, None] & columns[:, None])[:, None]
            answers.append(log_odds(classifier(torch.where(hides, other[cell], images[cell]))))
    fallen = whole[:, None] - torch.cat(answers).view(count, samples)
    return Removals(boxes, fallen.cpu() * signs(target, count)[:, None])


def _boxes(cells: Tensor, samples: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    side = cells.shape[-1]
    flat = cells.flatten(1).float()
    flat[~cells.flatten(1).any(dim=1)] = 1  # where there is no cell any pixel will do
    middles = flat.multinomial(samples, replacement=True, generator=generator)
    middles = torch.stack([middles // side, middles % side], dim=2)
    share = torch.rand((len(cells), samples, 1), generator=generator)
    half = ((_SMALLEST + (_LARGEST - _SMALLEST) * share) * side / 2).round().long().clamp(min=1)
    ends = torch.stack([middles - half, middles + half], dim=3).clamp(0, side)
    return ends.flatten(2)


def infidelity(maps: Tensor, removed: Removals) -> tuple[Floats, Floats]:
    """How badly the sums of a map foretell what removals do (Yeh et al. 2019), by Captum.

    Asks the classifier nothing: Captum is given a linear function that knows the answers, whose
    inputs say which square is gone.

    Args:
        maps: finite, ``(B, R, R)`` on the CPU, for the target of the removals.
        removed: see :func:`removals`.

    Returns:
        Two ``float64 (B,)``. The first is in [0, 1] and low is good: the share of the changes (mean
        square) that the map, times its best factor, leaves unexplained; no factor below 0 is taken,
        as Captum's ``normalize`` would, since that is the opposite map's success. NaN where no
        removal changed anything. The second is Captum's number as it is, in squared log-odds: it
        means something for maps in log-odds alone.
    """
    sums = maps.double().cumsum(dim=1).cumsum(dim=2)
    corners = torch.nn.functional.pad(sums, (1, 0, 1, 0))
    top, bottom, left, right = removed.boxes.unbind(dim=2)
    at = torch.arange(len(maps))[:, None]
    told = corners[at, bottom, right] + corners[at, top, left]
    told = told - corners[at, top, right] - corners[at, bottom, left]
    changes = removed.changes.double()
    raw, opposite = _captum(told, changes), _captum(-told, changes)
    fitted, none = _captum(told, changes, normalize=True), _captum(0 * told, changes)
    best = torch.where(raw < opposite, fitted, none).clamp(min=0)
    return (best / none).numpy(), raw.numpy()


def _captum(told: Tensor, changes: Tensor, normalize: bool = False) -> Tensor:
    """Captum's infidelity of what a map tells of each removal, given what each did."""
    count, samples = told.shape
    each = torch.eye(samples, dtype=told.dtype).repeat(count, 1)
    found: Tensor = captum_infidelity(
        lambda gone, change: -(gone * change).sum(dim=1),
        lambda gone: (each, gone + each),
        torch.zeros_like(told),
        told,
        additional_forward_args=(changes,),
        n_perturb_samples=samples,
        normalize=normalize,
    )
    return found


def sensitivity(
    explainer: Explainer,
    classifier: Classifier,
    images: Tensor,
    target: Tensor,
    background: Tensor,
    samples: int = 4,
    radius: float = 0.02,
    batch_size: int = 64,
    seed: int = 0,
) -> Floats:
    """How far a map moves when its cell hardly does (Yeh et al. 2019), by Captum; low is good.

    Costs ``B * (samples + 1)`` explanations.

    Args:
        explainer: the method.
        classifier: fitted.
        images: ``(B, 3, R, R)`` in [0, 1], on the classifier's device.
        target: ``int64 (B,)``.
        background: see :meth:`leuk.explain.explainer.Explainer.attribute`.
        samples: noisy versions of each cell.
        radius: of the uniform noise on the cell's pixels; a pixel that would leave the cell by it
            stays as it is.
        batch_size: noisy cells a time.
        seed: of the noise.

    Returns:
        ``float64 (B,)``, the largest Euclidean distance to the map of the cell as it is, over that
        map's length.
    """
    generator = torch.Generator().manual_seed(seed)

    def noisy(seen: Tensor, width: float) -> Tensor:
        noise = torch.rand(seen.shape, generator=generator).to(seen.device) * 2 - 1
        moved = (seen + width * noise).clamp(0, 1)
        stays = cell_mask(seen) & cell_mask(moved)
        return torch.where(stays[:, None], moved, seen)

    def explain(seen: Tensor | tuple[Tensor, ...], target: Tensor) -> tuple[Tensor]:
        batch = seen[0] if isinstance(seen, tuple) else seen
        return (explainer.attribute(classifier, batch, target, background).maps,)

    found: Tensor = sensitivity_max(
        explain,
        images,
        noisy,
        perturb_radius=radius,
        n_perturb_samples=samples,
        max_examples_per_batch=min(max(batch_size, len(images)), samples * len(images)),
        target=target,
    )
    return found.double().numpy()
