"""SHAP (Lundberg & Lee 2017), by the shap library: per pixel, per region, per patch embedding.

Every method reports its additivity error: ``checks["additivity_error"]`` is
|sum of the map - (log-odds of the image - log-odds of the reference)|, divided by the range of all
log-odds computed. shap's DeepExplainer is missing because it fails on LayerNorm.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import shap
import torch
from torch import Tensor, nn

from leuk.classifiers.base import Classifier
from leuk.config.schema import Count, CountOrZero
from leuk.errors import ConfigError
from leuk.explain.base import Attribution, Explainer, Unit, log_odds
from leuk.explain.perturb import (
    Answer,
    Hide,
    compared_tokens,
    hidden,
    image_answers,
    patch_segments,
    predict_log_odds,
    spread,
    token_answers,
)

# --- Owen values of an image's segments by shap, with a masker that handles no pixels

ROUND = 64
"""Number of perturbed images that shap requests at once. Values depend on it, because shap refines
its tree after each request; they do not depend on the batch size of the classifier.
"""


def owen_values(
    answer: Answer, players: Tensor, evaluations: int, seed: int
) -> tuple[Tensor, float]:
    """Owen values of the segments of a grid (Lundberg & Lee 2017, shap's ``PartitionExplainer``).

    The value of a segment is its mean contribution over all orders that keep the segments of each
    half, quarter, and so on, of the grid together (Owen 1977). If the evaluations run out, the
    segments of an undivided block share its value evenly.

    Args:
        answer: predicts log-odds from the presence of segments.
        players: ``bool (h, w)`` on the CPU, segments whose hiding changes the image. The others get
            no share of a block's value.
        evaluations: total number of perturbed images.
        seed: seed of the order among equally important blocks.

    Returns:
        Values ``float64 (K,)``, 0 for segments that are not players, whose sum is the log-odds with
        all players minus those with none; and the range of all log-odds computed.
    """
    playing = players.flatten()
    values = torch.zeros(len(playing), dtype=torch.float64)
    if not playing.any():
        return values, 0.0
    seen: list[npt.NDArray[np.float32]] = []

    def of_players(presence: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        parts = torch.zeros(len(presence), len(playing), dtype=torch.bool)
        parts[:, playing] = torch.from_numpy(presence)
        seen.append(answer(parts).cpu().numpy())
        return seen[-1]

    explainer = shap.PartitionExplainer(of_players, PresenceMasker(halvings(players)))
    with numpy_seeded(seed):
        found = explainer(
            np.ones((1, int(playing.sum())), dtype=bool),
            max_evals=evaluations,
            batch_size=ROUND,
            silent=True,
        )
    values[playing] = torch.from_numpy(found.values[0])
    odds = np.concatenate(seen)
    return values, float(odds.max()) - float(odds.min())


class PresenceMasker(shap.maskers.Masker):  # type: ignore[misc] # shap has no types
    """Masker whose masked input is the mask itself; ``clustering`` as from :func:`halvings`."""

    immutable_outputs = True  # shap need not copy what it is given

    def __init__(self, clustering: npt.NDArray[np.float64]) -> None:
        self.clustering = clustering
        self.shape = (1, len(clustering) + 1)

    def __call__(self, mask: npt.NDArray[np.bool_], x: object) -> npt.NDArray[np.bool_]:
        """Return the presence ``bool (1, M)`` of the players."""
        return mask[None]


def halvings(players: Tensor) -> npt.NDArray[np.float64]:
    """Hierarchy of the players of a grid: blocks are halved across their longer side.

    Players are the elements of ``bool (h, w)`` that are True, numbered row by row.

    Returns:
        ``(M - 1, 4)`` for M players, a linkage matrix as in ``scipy.cluster.hierarchy``: the two
        nodes that are joined (M + i is the node of row i), their distance, and the number of
        players below. The distance is that number too.
    """
    number = (players.flatten().cumsum(0) - 1).view(players.shape)
    count = int(players.sum())
    rows: list[list[int]] = []

    def join(top: int, bottom: int, left: int, right: int) -> list[tuple[int, int]]:
        """Return the node of a block and its number of players; empty if it has none."""
        if not players[top:bottom, left:right].any():
            return []
        height, width = bottom - top, right - left
        if height == width == 1:
            return [(int(number[top, left]), 1)]
        if height >= width:
            middle = top + height // 2
            found = join(top, middle, left, right) + join(middle, bottom, left, right)
        else:
            middle = left + width // 2
            found = join(top, bottom, left, middle) + join(top, bottom, middle, right)
        if len(found) == 1:
            return found
        (first, held), (second, held_too) = found
        held += held_too
        rows.append([first, second, held, held])
        return [(count + len(rows) - 1, held)]

    join(0, players.shape[0], 0, players.shape[1])
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


@contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which shap draws from; restore its state afterwards."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


# --- Explainers

_DRAWS = 50
"""Draws per call of shap, which keeps four float64 copies of each: 1.2 MB per copy at 224 px."""


class GradientSHAP(Explainer):
    """Expected gradients (shap's ``GradientExplainer``; Erion et al. 2021), summed over channels.

    The value of a pixel is its gradient times its difference from a training image, averaged over
    training images and points on the straight line to the explained image. With enough draws, the
    values sum to the image's log-odds minus the mean log-odds of the training images. The
    additivity error refers to the range of the log-odds of all these images. Draws depend only on
    the seed, not on other explained images. ``samples`` are draws per image.
    """

    name = "shap_pixels"
    title = "SHAP, pixels"
    thesis_figure = 10
    needs_background = True

    def __init__(self, samples: Count = 200, batch_size: Count = 25, seed: CountOrZero = 0) -> None:
        self.samples, self.batch_size, self.seed = samples, batch_size, seed

    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        with torch.autocast(images.device.type, enabled=False):
            model = _LogOdds(classifier, self.batch_size)
            method = shap.GradientExplainer(model, background, batch_size=self.batch_size)
            maps = torch.cat([self._map(method, image) for image in images.split(1)])
            odds = predict_log_odds(classifier, images, self.batch_size).cpu()
            compared = predict_log_odds(classifier, background, self.batch_size).cpu()
        both = torch.cat([odds[:, None], compared.expand(len(odds), -1)], dim=1)
        range_ = both.amax(dim=1) - both.amin(dim=1)
        error = _additivity_error(maps, odds - compared.mean(), range_)
        return Attribution(maps, "pixel", checks={"additivity_error": error})

    def _map(self, method: shap.GradientExplainer, image: Tensor) -> Tensor:
        """Compute the map ``(1, R, R)`` of an image ``(1, 3, R, R)``, the mean over all draws."""
        rounds = [min(_DRAWS, self.samples - done) for done in range(0, self.samples, _DRAWS)]
        seeds = np.random.SeedSequence(self.seed).generate_state(len(rounds))
        total = torch.zeros(image[:, 0].shape, dtype=torch.float64)
        for draws, seed in zip(rounds, seeds.tolist(), strict=True):
            with numpy_seeded(seed):  # shap seeds NumPy's global generator and does not restore it
                values = method.shap_values(image, nsamples=draws, rseed=seed)
            total += torch.from_numpy(values[..., 0]).sum(dim=1) * draws
        return (total / self.samples).float()


class _LogOdds(nn.Module):
    """Classifier in shap's form: log-odds ``(B, 1)`` for any number of images."""

    def __init__(self, classifier: Classifier, batch_size: int) -> None:
        super().__init__()
        self.held = (classifier,)  # a tuple hides it from shap, which would clear its gradients
        self.batch_size = batch_size

    def forward(self, images: Tensor) -> Tensor:
        odds = [log_odds(self.held[0](batch)) for batch in images.split(self.batch_size)]
        return torch.cat(odds)[:, None]


class _Owen(Explainer):
    """Owen values of the segments of a grid, see :func:`leuk.explain.shap.owen_values`."""

    thesis_figure = 10

    def __init__(
        self,
        evaluations: Count = 500,
        batch_size: Count = 32,
        seed: CountOrZero = 0,
        when_possible: bool = False,
    ) -> None:
        self.evaluations, self.batch_size, self.seed = evaluations, batch_size, seed
        self.when_possible = when_possible

    def _valued(
        self,
        answers: Sequence[Answer],
        players: Tensor,
        gains: Tensor,
        segments: Tensor,
        unit: Unit,
    ) -> Attribution:
        """Compute the Owen values of all images' segments ``(B, R, R)`` as maps.

        ``players`` are ``bool (B, h, w)`` on the CPU, see :func:`owen_values`; ``gains (B,)`` the
        log-odds of each image minus those with every segment hidden.
        """
        found = [
            owen_values(answer, own, self.evaluations, self.seed)
            for answer, own in zip(answers, players, strict=True)
        ]
        plays = players.flatten(1).gather(1, segments.flatten(1)).view(segments.shape)
        segments = segments.where(plays, -1)
        values, ranges = zip(*found, strict=True)
        maps = spread(torch.stack(values), segments)
        error = _additivity_error(maps, gains.cpu(), torch.tensor(ranges))
        return Attribution(maps, unit, checks={"additivity_error": error}, segments=segments)


class PartitionSHAP(_Owen):
    """Owen values of image regions (shap's ``PartitionExplainer``), for every classifier.

    Regions are squares of a grid. Regions that hiding does not change, such as black background,
    are excluded from the game: their value is 0 and their segment -1. The reference is the image
    with every region hidden.

    Args:
        evaluations: perturbed images per explained image.
        regions: regions per side of the grid; the classifier's patches per side for patches.
        hide: replacement of hidden regions, see :func:`leuk.explain.perturb.hidden`.
        batch_size: images per pass.
        seed: seed of the order among equally important blocks of regions.
    """

    name = "shap_regions"
    title = "SHAP, regions"

    def __init__(
        self,
        evaluations: Count = 500,
        regions: Count = 16,
        hide: Hide = "cell",
        batch_size: Count = 32,
        seed: CountOrZero = 0,
    ) -> None:
        super().__init__(evaluations, batch_size, seed)
        self.regions, self.hide = regions, hide

    @torch.no_grad()
    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        side, count = images.shape[-1], self.regions**2
        if not 2 <= self.regions <= side:
            raise ConfigError(
                f"explain.shap_regions.regions={self.regions}: an image of {side} px can have 2 to "
                f"{side} regions per side; choose a number in this range, such as {min(16, side)}"
            )
        others = hidden(images, self.hide)
        segments = patch_segments(side, count, len(images))
        grid, size = segments[0].to(images.device), self.batch_size
        differs = (images != others).any(dim=1).flatten(1).long()
        found = differs.new_zeros(len(images), count).scatter_add(
            1, grid.flatten().expand_as(differs), differs
        )
        players = (found > 0).view(-1, self.regions, self.regions).cpu()
        gains = predict_log_odds(classifier, images, size)
        gains = gains - predict_log_odds(classifier, others, size)
        answers = image_answers(classifier, images, others, segments.to(images.device), size)
        patches = classifier.has_patches and classifier.tokens(images[:1]).shape[1] == count
        return self._valued(answers, players, gains, segments, "patch" if patches else "superpixel")


class PatchSHAP(_Owen):
    """Owen values of patch embeddings (shap's ``PartitionExplainer``), as in the thesis, figure 10.

    An absent patch is replaced by the mean embedding of the training images at its position; the
    reference has all patches absent. Patches whose embedding equals that mean are excluded. For the
    arguments see :class:`PartitionSHAP`; ``when_possible`` skips classifiers without patches.
    """

    name = "shap_patches"
    title = "SHAP, patches"
    needs_patches = True
    needs_background = True

    @torch.no_grad()
    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        size = self.batch_size
        tokens, other = compared_tokens(classifier, images, background, size)
        apart = (tokens - other).abs().amax(dim=2)  # (B, N)
        players = (apart > 1e-5 * tokens.abs().amax()).cpu()  # not equal but for rounding
        segments = patch_segments(images.shape[-1], players.shape[1], len(images))
        across = int(segments[0, 0, -1]) + 1
        gains = predict_log_odds(classifier, images, size)
        gains = gains - log_odds(classifier.from_tokens(other[None]))
        answers = token_answers(classifier, tokens, other, size)
        return self._valued(answers, players.unflatten(1, (across, -1)), gains, segments, "patch")


def _additivity_error(maps: Tensor, gains: Tensor, range_: Tensor) -> Tensor:
    """Difference ``(B,)`` of the sums of maps from ``gains (B,)``, relative to ``range_ (B,)``."""
    error = (maps.double().sum(dim=(1, 2)) - gains).abs()
    return (error / range_.clamp(min=torch.finfo(torch.float32).tiny)).float()
