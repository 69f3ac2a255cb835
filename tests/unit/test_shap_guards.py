"""SHAP explainers: side effects, refused settings, reported checks."""

import inspect
import itertools
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import get_class
from shap_cases import (
    BACKGROUND,
    CASES,
    IMAGES,
    METHODS,
    SIDE,
    build_classifier,
)
from torch import Tensor, nn

from leuk.errors import ConfigError
from leuk.explain.base import log_odds
from leuk.explain.shap import GradientSHAP, PartitionSHAP, PatchSHAP, owen_values


@pytest.mark.parametrize(("name", "method"), CASES)
def test_half_precision_does_not_change_the_checks(name: str, method: str) -> None:
    model, explainer = build_classifier(name), METHODS[method]
    plain = explainer.attribute(model, IMAGES, 1, BACKGROUND).maps
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = explainer.attribute(model, IMAGES, 1, BACKGROUND)
    if method == "pixels":
        torch.testing.assert_close(found.maps, plain)
    else:
        assert float(found.checks["additivity_error"].max()) < 0.2
    assert found.maps.dtype == torch.float32
    assert not found.degenerate.any()


def test_gradients_of_training_are_untouched() -> None:
    model = build_classifier("cnn")
    log_odds(model(IMAGES)).sum().backward()
    before = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    GradientSHAP(samples=3).attribute(model, IMAGES, 1, BACKGROUND)
    for parameter, gradient in zip(model.parameters(), before, strict=True):
        assert gradient is None or torch.equal(parameter.grad, gradient)
        assert parameter.requires_grad


def test_background_is_excluded_from_the_game() -> None:
    found = PartitionSHAP(evaluations=20, regions=8).attribute(
        build_classifier("cnn"), IMAGES, 1, BACKGROUND
    )
    assert found.segments is not None
    black = nn.functional.max_pool2d(IMAGES.amax(dim=1, keepdim=True), 4)[:, 0] == 0
    black = black.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    assert black.any()
    assert (found.segments[black] == -1).all()
    assert (found.segments[~black] >= 0).all()
    assert (found.maps[black] == 0).all()
    assert (found.maps[~black] != 0).all()


def test_empty_image_has_a_degenerate_map() -> None:
    nothing = torch.zeros(1, 3, SIDE, SIDE)
    found = PartitionSHAP(regions=8).attribute(build_classifier("cnn"), nothing, 1, BACKGROUND)
    assert found.degenerate.all()
    assert found.checks["additivity_error"].tolist() == [0.0]


def test_image_equal_to_the_background_has_patches_of_zero() -> None:
    found = PatchSHAP().attribute(build_classifier("vit"), IMAGES[:1], 1, IMAGES[:1])
    assert (found.maps == 0).all()


@pytest.mark.parametrize("evaluations", [20, 45, 300])
def test_evaluations_stay_within_the_budget(evaluations: int) -> None:
    asked = []
    weights = torch.randn(64, generator=torch.Generator().manual_seed(0))

    def answer(presence: Tensor) -> Tensor:
        asked.append(len(presence))
        return (presence.float() @ weights).sin()

    owen_values(answer, torch.ones(8, 8, dtype=torch.bool), evaluations, 0)
    assert evaluations - 2 <= sum(asked) <= evaluations + 1
    assert max(asked) <= 64


def test_regions_equal_to_patches_have_the_unit_patch() -> None:
    for name, regions, unit in (("vit", 4, "patch"), ("vit", 8, "superpixel"), ("cnn", 4, None)):
        method = PartitionSHAP(evaluations=10, regions=regions)
        found = method.attribute(build_classifier(name), IMAGES[:1], 1, BACKGROUND)
        assert found.unit == (unit or "superpixel")


@pytest.mark.parametrize("regions", [1, SIDE + 1])
def test_impossible_regions_are_refused(regions: int) -> None:
    with pytest.raises(ConfigError, match=r"explain\.shap_regions\.regions=.*2 to 32"):
        PartitionSHAP(regions=regions).attribute(build_classifier("cnn"), IMAGES, 1, BACKGROUND)


def test_classifiers_without_patches_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"explain=shap_patches.*model=vit"):
        PatchSHAP().attribute(build_classifier("cnn"), IMAGES, 1, BACKGROUND)


def test_slow_explanations_print_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=100)
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    for explainer in METHODS.values():
        explainer.attribute(build_classifier("vit"), IMAGES, 1, BACKGROUND)
    assert capfd.readouterr() == ("", "")


def test_the_config_names_every_method_and_its_settings() -> None:
    path = Path(__file__).parents[2] / "conf/explain/shap.yaml"
    nodes = yaml.safe_load(path.read_text())
    assert list(nodes) == [method.name for method in METHODS.values()]
    for name, node in nodes.items():
        method = get_class(node.pop("_target_"))
        assert method.name == name
        assert set(node) == set(inspect.signature(method).parameters)
        method(**node)
