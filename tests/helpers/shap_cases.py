"""Small models of each architecture, images, and SHAP explainers for tests."""

from collections.abc import Callable

import torch
from torch import Tensor

from leuk.classifiers.base import Classifier
from leuk.classifiers.cnn import CNN
from leuk.classifiers.hybrid import Hybrid
from leuk.classifiers.vit import ViT
from leuk.explain.base import Explainer
from leuk.explain.shap import GradientSHAP, PartitionSHAP, PatchSHAP

SIDE = 32


def cells(count: int, seed: int) -> Tensor:
    """Speckled discs on black."""
    place = torch.arange(SIDE) - SIDE / 2
    disc = place[:, None] ** 2 + place**2 < 11**2
    generator = torch.Generator().manual_seed(seed)
    return (0.2 + 0.7 * torch.rand(count, 3, SIDE, SIDE, generator=generator)) * disc


IMAGES, BACKGROUND = cells(3, 1), cells(6, 2)


def cnn() -> CNN:
    return CNN(resolution=SIDE, widths=(4, 8, 8), hidden=8)


def vit() -> ViT:
    return ViT(resolution=SIDE, patch=8, width=16, depth=3, heads=2, mlp=32, hidden=16)


def hybrid() -> Hybrid:
    return Hybrid(
        resolution=SIDE, widths=(4, 8), patch=4, stride=4, width=16, depth=2, heads=2, mlp=32,
        hidden=(16, 8),
    )  # fmt: skip


MODELS: dict[str, Callable[[], Classifier]] = {"cnn": cnn, "vit": vit, "hybrid": hybrid}
METHODS: dict[str, Explainer] = {
    "pixels": GradientSHAP(samples=30),
    "regions": PartitionSHAP(evaluations=60, regions=8),
    "patches": PatchSHAP(evaluations=60),
}
CASES = [
    (model, method)
    for model in MODELS
    for method in METHODS
    if (model, method) != ("cnn", "patches")
]


def build_classifier(name: str) -> Classifier:
    torch.manual_seed(0)
    return MODELS[name]().eval()
