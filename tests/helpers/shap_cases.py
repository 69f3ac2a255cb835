"""Small models of each architecture, images, and SHAP explainers for tests."""

from collections.abc import Callable

import torch
from explained import SIDE, some_cells

from leuk.classifiers.base import Classifier
from leuk.classifiers.cnn import CNN
from leuk.classifiers.hybrid import Hybrid
from leuk.classifiers.vit import ViT
from leuk.explain.base import Explainer
from leuk.explain.shap import GradientSHAP, PartitionSHAP, PatchSHAP

IMAGES, BACKGROUND = some_cells(3, seed=1), some_cells(6, seed=2)


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
