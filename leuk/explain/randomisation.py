"""Does a map depend on what the classifier has learned? Weights are randomised to find out.

The test is Adebayo et al.'s (2018, *Sanity checks for saliency maps*, section 3.1, cascading).
Layers of a copy are re-initialised from the head down, and the cells explained again at each stage.
A map that stays as it was never showed what was learned.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics.functional.image import structural_similarity_index_measure

from leuk.classifiers.classifier import Classifier
from leuk.evaluate.vectors import Floats
from leuk.explain.agreement import rank_correlation
from leuk.explain.explainer import Explainer, Target
from leuk.explain.perturb import cell_mask
from leuk.training.initial import glorot

CHANGED_BELOW = 0.5
"""A map whose mean rank correlation is below this has changed: the two share less than a quarter of
the variance of the ranks."""

_SAMPLE = 32
"""Cells that give new layers their batch statistics."""

_STD = 0.02
"""Of new values of a parameter whose own do not differ."""


@dataclass(frozen=True, eq=False)
class Cascade:
    """How alike maps of a classifier and of its randomised copies are, stage by stage.

    Attributes:
        layers: names of what each of the S stages re-initialises, beside all before it.
        spearman: ``(S, B)`` rank correlation over the cell's pixels.
        absolute: ``(S, B)``, the same of maps without their sign.
        ssim: ``(S, B)``, structural similarity over the cell's pixels of maps scaled to [-1, 1].
    """

    layers: list[list[str]]
    spearman: Floats
    absolute: Floats
    ssim: Floats

    @property
    def similarity(self) -> Floats:
        """``(B,)``, once all is random: the larger size of the two rank correlations.

        A map turned upside down is the same picture, and so is one whose sign alone has changed.
        """
        return np.asarray(np.maximum(np.abs(self.spearman[-1]), np.abs(self.absolute[-1])))


def cascades(
    explainers: Mapping[str, Explainer],
    maps: Mapping[str, Tensor],
    classifier: Classifier,
    images: Tensor,
    target: Target,
    background: Tensor,
    stages: int = 4,
    seed: int = 0,
) -> dict[str, Cascade]:
    """Randomise a copy in stages and explain with every method at each.

    Costs ``stages * B`` explanations a method, and one pass of at most 32 images a stage.

    Args:
        explainers: by name.
        maps: by the same names ``(B, R, R)`` on the CPU, of the classifier as it is, for the
            target.
        classifier: fitted; it stays as it is.
        images: ``(B, 3, R, R)`` in [0, 1], on the classifier's device.
        target: what is explained, whatever the copies decide.
        background: see :meth:`leuk.explain.explainer.Explainer.attribute`.
        stages: how many at most; fewer where there are fewer layers.
        seed: of the new weights.
    """
    cells = cell_mask(images).cpu()
    layers: list[list[str]] = []
    found: dict[str, list[tuple[Floats, Floats, Floats]]] = {name: [] for name in explainers}
    for names, randomised in randomised_copies(classifier, background, images, stages, seed):
        layers.append(names)
        for name, explainer in explainers.items():
            again = explainer.attribute(randomised, images, target, background).maps
            found[name].append(_similarities(maps[name], again, cells))
    return {
        name: Cascade(layers, *(np.stack(column) for column in zip(*rows, strict=True)))
        for name, rows in found.items()
    }


def randomised_copies(
    classifier: Classifier, background: Tensor, images: Tensor, stages: int, seed: int
) -> Iterator[tuple[list[str], Classifier]]:
    """One copy again and again, its layers re-initialised from the head down.

    The first stage is the layer nearest the output, the others share out what is left evenly, in
    the order in which layers are registered. Layers start as they do before training (their own
    way, then Glorot uniform where the house does that); parameters that belong to no layer, such as
    positions, are normal with the standard deviation they had. Re-initialised batch normalisation
    takes the statistics of the new activations: with others a deep network gives no numbers.

    Args:
        classifier: fitted; it stays as it is.
        background: ``(K, 3, R, R)``, whose activations give batch statistics, together with
            ``images``.
        images: likewise.
        stages: how many at most.
        seed: of the new weights.

    Yields:
        Names of the layers re-initialised at this stage, and the copy, in evaluation mode; it is
        the same object each time.
    """
    # Copied within inference mode, weights could have no gradients flow through them.
    with torch.inference_mode(False):
        altered = copy.deepcopy(classifier).eval().requires_grad_(False)
    device, done = classifier.device, set[str]()
    sample = torch.cat([background, images])[:_SAMPLE]
    for number, names in enumerate(stages_of(classifier, stages)):
        done.update(names)
        with torch.inference_mode(False), torch.no_grad():
            altered.cpu()  # where the same seed draws the same weights whatever the device
            with torch.random.fork_rng(devices=[]):
                # Not the plain seed: weights may have started from it.
                drawn = np.random.SeedSequence((seed, number)).generate_state(1)
                torch.default_generator.manual_seed(int(drawn[0]))
                for name in names:
                    _reinitialise(altered.get_submodule(name))
            altered.to(device)
            _measure_statistics(altered, done, sample)
        yield names, altered


def stages_of(classifier: nn.Module, stages: int) -> list[list[str]]:
    """Names of modules that hold parameters themselves, from the output back, in groups."""
    names = [
        name
        for name, module in classifier.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ][::-1]
    if stages == 1 or len(names) < 2:
        return [names]
    groups = np.array_split(np.arange(1, len(names)), min(stages - 1, len(names) - 1))
    return [names[:1], *([names[i] for i in group] for group in groups)]


def _reinitialise(module: nn.Module) -> None:
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
    """Give the batch normalisation among these layers the statistics of a sample."""
    norms = [
        module
        for name, module in classifier.named_modules()
        if name in names and isinstance(module, _BatchNorm)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all that is seen
        norm.train()
    if norms:
        classifier(sample)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _similarities(one: Tensor, other: Tensor, cells: Tensor) -> tuple[Floats, Floats, Floats]:
    return (
        rank_correlation(one, other, cells),
        rank_correlation(one.abs(), other.abs(), cells),
        _ssim(one, other, cells),
    )


def _ssim(one: Tensor, other: Tensor, cells: Tensor) -> Floats:
    """Structural similarity (Wang et al. 2004) within cells, ``(B,)``; NaN of a map of zeros."""
    a, b = ((of / of.abs().amax(dim=(1, 2), keepdim=True))[:, None] for of in (one, other))
    _, image = structural_similarity_index_measure(
        a, b, data_range=2.0, reduction="none", return_full_image=True
    )
    within = (image[:, 0] * cells).sum(dim=(1, 2)) / cells.sum(dim=(1, 2))
    return within.double().numpy()
