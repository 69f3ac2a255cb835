"""Weight randomization test: dependence of maps on the classifier's learned weights.

Cascading randomization of Adebayo et al. (2018, *Sanity checks for saliency maps*, section 3.1).
Layers of a copy are re-initialized from the head down, and the images explained again at each
stage. A map that does not change never depended on the learned weights.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

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

# --- Rank agreement between maps of the same images, independent of method and scale


def rank_correlations(maps: Sequence[Tensor], masks: Tensor) -> Floats:
    """Spearman's rank correlations ``(B, M, M)`` of M maps ``(B, R, R)`` within masks.

    NaN for a map that is constant or not finite within the mask.
    """
    found = np.full((len(masks), len(maps), len(maps)), np.nan)
    for own, mask, *of_image in zip(found, masks, *maps, strict=True):
        if int(mask.sum()) < 2:
            continue
        values = torch.stack([one[mask] for one in of_image]).numpy()
        ranks = rankdata(values, axis=1)
        # rankdata ranks NaN too.
        ranks[~np.isfinite(values).all(axis=1)] = np.nan
        with np.errstate(invalid="ignore", divide="ignore"):
            own[:] = np.corrcoef(ranks)
    return found


def agreement(maps: Mapping[str, Tensor], masks: Tensor) -> pd.DataFrame:
    """Mean over images of :func:`rank_correlations`, methods by methods.

    NaN for a pair whose maps do not both vary on any image.
    """
    found = rank_correlations(list(maps.values()), masks)
    finite = np.isfinite(found)
    with np.errstate(invalid="ignore"):
        mean = np.where(finite, found, 0).sum(axis=0) / finite.sum(axis=0)
    return pd.DataFrame(mean, index=list(maps), columns=list(maps))


# --- Maps of copies with random weights


class Stage(NamedTuple):
    """Similarity ``(B,)`` between maps of a classifier and of its copy, within the cell mask."""

    layers: list[str]  # re-initialized in addition to those of earlier stages
    spearman: Floats  # rank correlation
    absolute: Floats  # rank correlation of the absolute values
    ssim: Floats  # structural similarity of maps scaled to [-1, 1]

    @property
    def similarity(self) -> Floats:
        """Larger absolute rank correlation ``(B,)``, with or without signs.

        Inverting a map, or changing only its signs, leaves the same image structure.
        """
        return np.asarray(np.maximum(np.abs(self.spearman), np.abs(self.absolute)))


def cascades(
    case: Case, explainers: Mapping[str, Explainer], maps: Mapping[str, Tensor], stages: int = 4
) -> dict[str, list[Stage]]:
    """Randomize a copy of the classifier in stages and compare the maps of every method.

    Costs ``stages * B`` explanations per method, and a pass of at most 32 images per stage. The
    explained class is the target, whatever the copies predict. ``maps (B, R, R)`` are those of the
    original classifier, on the CPU.
    """
    masks = cell_mask(case.images).cpu()
    sample = torch.cat([case.background, case.images])[:32]
    found: dict[str, list[Stage]] = {name: [] for name in explainers}
    for names, randomized in randomized_copies(case.classifier, sample, stages, case.seed):
        for name, explainer in explainers.items():
            again = explainer.attribute(randomized, case.images, case.target, case.background).maps
            one = maps[name]
            spearman = rank_correlations([one, again], masks)[:, 0, 1]
            absolute = rank_correlations([one.abs(), again.abs()], masks)[:, 0, 1]
            found[name].append(Stage(names, spearman, absolute, _ssim(one, again, masks)))
    return found


def randomized_copies(
    classifier: Classifier, images: Tensor, stages: int, seed: int
) -> Iterator[tuple[list[str], Classifier]]:
    """Re-initialize the layers of a copy stage by stage, from the head down.

    The first stage is the layer nearest the output; the others divide the remaining layers evenly,
    in reverse order of registration. Layers are initialized as before training: by their own
    method, then :func:`leuk.training.glorot`. Parameters without such a method, like
    positional embeddings, are normal with their previous standard deviation. Re-initialized batch
    normalization gets the statistics of the activations for ``images``: with the old ones the
    output of a deep network is not finite.

    Yields:
        Names of the layers re-initialized at this stage, and the copy in evaluation mode, the same
        object each time.
    """
    # In inference mode, the copied weights could not take part in autograd.
    with torch.inference_mode(False):
        altered = copy.deepcopy(classifier).eval().requires_grad_(False)
    device, norms = classifier.device, list[_BatchNorm]()
    for number, names in enumerate(stages_of(classifier, stages)):
        modules = [altered.get_submodule(name) for name in names]
        norms += [module for module in modules if isinstance(module, _BatchNorm)]
        with torch.inference_mode(False), torch.no_grad():
            altered.cpu()  # draw on the CPU, for the same weights on every device
            with torch.random.fork_rng(devices=[]):
                # Not the bare seed: the classifier's initial weights may come from it.
                drawn = np.random.SeedSequence((seed, number)).generate_state(1)
                torch.default_generator.manual_seed(int(drawn[0]))
                for module in modules:
                    _reinitialize(module)
            altered.to(device)
            _measure_statistics(altered, norms, images)
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
    for name in ("reset_parameters", "_reset_parameters"):
        if hasattr(module, name):
            getattr(module, name)()
            glorot(module)
            return
    for parameter in module.parameters(recurse=False):
        std = float(parameter.std()) if parameter.numel() > 1 else 0.0
        nn.init.normal_(parameter, std=std or 0.02)


def _measure_statistics(classifier: nn.Module, norms: Sequence[_BatchNorm], sample: Tensor) -> None:
    """Set the running statistics of batch normalization from a sample."""
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
