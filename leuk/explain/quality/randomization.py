"""Weight randomization test: dependence of maps on the classifier's learned weights.

Cascading randomization of Adebayo et al. (2018, *Sanity checks for saliency maps*, section 3.1).
Layers of a copy are re-initialized from the head down, and the images explained again at each
stage. A map that does not change never depended on the learned weights.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics.functional.image import structural_similarity_index_measure

from leuk.classifiers.base import Classifier
from leuk.data.decode import cell_mask
from leuk.explain.base import Explainer
from leuk.explain.quality.faithfulness import Case
from leuk.metrics.arrays import Floats
from leuk.training import glorot

CHANGED_BELOW = 0.5
"""Rank correlation below which maps count as changed: less than a quarter of shared variance."""

_SAMPLE = 32
"""Number of images for the batch statistics of re-initialized layers."""

_STD = 0.02
"""Standard deviation of new values for a parameter whose own values are all equal."""

# --- Rank agreement between maps of the same images, independent of method and scale


def rank_correlation(one: Tensor, other: Tensor, masks: Tensor) -> Floats:
    """Spearman's rank correlation of two maps of each image within its mask.

    Args:
        one: ``(B, R, R)`` on the CPU.
        other: ``(B, R, R)`` on the CPU.
        masks: ``bool (B, R, R)``, the pixels to compare.

    Returns:
        ``float64 (B,)`` in [-1, 1]; NaN if a map is constant or not finite within the mask.
    """
    pairs = zip(one, other, masks, strict=True)
    return np.array([_spearman([a, b], mask)[0, 1] for a, b, mask in pairs], dtype=np.float64)


def agreement(maps: Mapping[str, Tensor], masks: Tensor) -> pd.DataFrame:
    """Mean Spearman rank correlation between methods, within the masks of the images.

    Args:
        maps: maps by method, ``(B, R, R)`` on the CPU, all for the same target classes.
        masks: ``bool (B, R, R)``, the pixels to compare.

    Returns:
        Methods by methods; NaN for a pair whose maps do not both vary on any image.
    """
    found = np.stack(
        [_spearman([batch[i] for batch in maps.values()], mask) for i, mask in enumerate(masks)]
    )
    finite = np.isfinite(found)
    with np.errstate(invalid="ignore"):
        mean = np.where(finite, found, 0).sum(axis=0) / finite.sum(axis=0)
    return pd.DataFrame(mean, index=list(maps), columns=list(maps))


def _spearman(maps: list[Tensor], mask: Tensor) -> Floats:
    """Rank correlations ``(M, M)`` of M maps within a mask."""
    if int(mask.sum()) < 2:
        return np.full((len(maps), len(maps)), np.nan)
    values = torch.stack([one[mask] for one in maps]).numpy()
    ranks = rankdata(values, axis=1)
    # rankdata ranks NaN too.
    ranks[~np.isfinite(values).all(axis=1)] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.corrcoef(ranks))


# --- Maps of copies with random weights


@dataclass(frozen=True, eq=False)
class Cascade:
    """Similarity between maps of a classifier and of its randomized copies, by stage.

    Attributes:
        layers: for each of S stages the names of the layers re-initialized in addition.
        spearman: ``(S, B)``, rank correlation within the cell mask.
        absolute: ``(S, B)``, rank correlation of the absolute values.
        ssim: ``(S, B)``, structural similarity within the cell mask of maps scaled to [-1, 1].
    """

    layers: list[list[str]]
    spearman: Floats
    absolute: Floats
    ssim: Floats

    @property
    def similarity(self) -> Floats:
        """Larger absolute rank correlation ``(B,)`` at the last stage, with or without signs.

        Inverting a map, or changing only its signs, leaves the same image structure.
        """
        return np.asarray(np.maximum(np.abs(self.spearman[-1]), np.abs(self.absolute[-1])))


def cascades(
    case: Case, explainers: Mapping[str, Explainer], maps: Mapping[str, Tensor], stages: int = 4
) -> dict[str, Cascade]:
    """Randomize a copy of the classifier in stages and compare the maps of every method.

    Costs ``stages * B`` explanations per method, and a pass of at most 32 images per stage.

    Args:
        case: classifier, images and the class that is explained, whatever the copies predict.
        explainers: methods by name.
        maps: maps by the same names, ``(B, R, R)`` on the CPU, of the original classifier for the
            target.
        stages: maximum number of stages; limited by the number of layers.
    """
    masks = cell_mask(case.images).cpu()
    sample = torch.cat([case.background, case.images])
    layers: list[list[str]] = []
    found: dict[str, list[tuple[Floats, Floats, Floats]]] = {name: [] for name in explainers}
    for names, randomized in randomized_copies(case.classifier, sample, stages, case.seed):
        layers.append(names)
        for name, explainer in explainers.items():
            again = explainer.attribute(randomized, case.images, case.target, case.background).maps
            one = maps[name]
            found[name].append(
                (
                    rank_correlation(one, again, masks),
                    rank_correlation(one.abs(), again.abs(), masks),
                    _ssim(one, again, masks),
                )
            )
    return {
        name: Cascade(layers, *(np.stack(column) for column in zip(*rows, strict=True)))
        for name, rows in found.items()
    }


def randomized_copies(
    classifier: Classifier, images: Tensor, stages: int, seed: int
) -> Iterator[tuple[list[str], Classifier]]:
    """Re-initialize the layers of a copy stage by stage, from the head down.

    The first stage is the layer nearest the output; the others divide the remaining layers evenly,
    in reverse order of registration. Layers are initialized as before training: by their own
    method, then :func:`leuk.training.glorot`. Parameters without such a method, like
    positional embeddings, are normal with their previous standard deviation. Re-initialized batch
    normalization gets the statistics of the new activations: with the old ones the output of a
    deep network is not finite.

    Args:
        classifier: trained classifier; it does not change.
        images: ``(B, 3, R, R)`` in [0, 1]; the first 32 give the batch statistics.
        stages: maximum number of stages.
        seed: seed of the new weights.

    Yields:
        Names of the layers re-initialized at this stage, and the copy in evaluation mode, the same
        object each time.
    """
    # In inference mode, the copied weights could not take part in autograd.
    with torch.inference_mode(False):
        altered = copy.deepcopy(classifier).eval().requires_grad_(False)
    device, done = classifier.device, set[str]()
    for number, names in enumerate(stages_of(classifier, stages)):
        done.update(names)
        with torch.inference_mode(False), torch.no_grad():
            altered.cpu()  # draw on the CPU, for the same weights on every device
            with torch.random.fork_rng(devices=[]):
                # Not the bare seed: the classifier's initial weights may come from it.
                drawn = np.random.SeedSequence((seed, number)).generate_state(1)
                torch.default_generator.manual_seed(int(drawn[0]))
                for name in names:
                    _reinitialize(altered.get_submodule(name))
            altered.to(device)
            _measure_statistics(altered, done, images[:_SAMPLE])
        yield names, altered


def stages_of(classifier: nn.Module, stages: int) -> list[list[str]]:
    """Divide the modules with parameters of their own into stages, from the output back."""
    names = [
        name
        for name, module in classifier.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ][::-1]
    if stages == 1 or len(names) < 2:
        return [names]
    groups = np.array_split(np.arange(1, len(names)), min(stages - 1, len(names) - 1))
    return [names[:1], *([names[i] for i in group] for group in groups)]


def _reinitialize(module: nn.Module) -> None:
    own = ("reset_parameters", "_reset_parameters")
    reset = next((getattr(module, name) for name in own if hasattr(module, name)), None)
    if reset is not None:
        reset()
        glorot(module)
        return
    for parameter in module.parameters(recurse=False):
        std = float(parameter.std()) if parameter.numel() > 1 else 0.0
        nn.init.normal_(parameter, std=std or _STD)


def _measure_statistics(classifier: nn.Module, names: set[str], sample: Tensor) -> None:
    """Set the running statistics of batch normalization among these layers from a sample."""
    norms = [
        module
        for name, module in classifier.named_modules()
        if name in names and isinstance(module, _BatchNorm)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
        norm.train()
    if norms:
        classifier(sample)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _ssim(one: Tensor, other: Tensor, masks: Tensor) -> Floats:
    """Structural similarity (Wang et al. 2004) within masks, ``(B,)``; NaN for a map of zeros."""
    a, b = ((maps / maps.abs().amax(dim=(1, 2), keepdim=True))[:, None] for maps in (one, other))
    _, image = structural_similarity_index_measure(
        a, b, data_range=2.0, reduction="none", return_full_image=True
    )
    within = (image[:, 0] * masks).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))
    return within.double().numpy()
