"""SHAP against the library's own interface, exact values, and models with known explanations."""

import copy
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import shap
import torch
from explained import Linear
from shap_cases import (
    BACKGROUND,
    CASES,
    IMAGES,
    METHODS,
    SIDE,
    build_classifier,
)
from torch import Tensor, nn

from leuk.classifiers.base import two_class
from leuk.classifiers.cnn import CNN
from leuk.data.labels import Label
from leuk.errors import ConfigError
from leuk.explain.base import log_odds
from leuk.explain.lime import LIME, PatchLIME
from leuk.explain.perturb import hidden
from leuk.explain.shap import GradientSHAP, PartitionSHAP, PatchSHAP, owen_values


def owen_by_orders(value: Callable[[frozenset[int]], float], tree: object) -> dict[int, float]:
    """Mean contribution of each leaf over all orders that keep the tree's branches together."""

    def orders(node: object) -> list[tuple[int, ...]]:
        if isinstance(node, int):
            return [(node,)]
        assert isinstance(node, tuple)
        first, second = (orders(part) for part in node)
        pairs = itertools.product(first, second)
        return [order for a, b in pairs for order in (a + b, b + a)]

    found = orders(tree)
    values = dict.fromkeys(found[0], 0.0)
    for order in found:
        for number, player in enumerate(order):
            before = frozenset(order[:number])
            values[player] += (value(before | {player}) - value(before)) / len(found)
    return values


@pytest.mark.parametrize(
    ("absent", "tree"),
    [((), ((0, 1), (2, 3))), ((1,), (0, (2, 3))), ((0, 3), (1, 2)), ((0, 1, 2), 3)],
)
def test_values_are_the_mean_over_orders_that_keep_halves_together(
    absent: tuple[int, ...], tree: object
) -> None:
    table = torch.randn(2, 2, 2, 2, generator=torch.Generator().manual_seed(3))
    players = torch.tensor([part not in absent for part in range(4)])

    def answer(presence: Tensor) -> Tensor:
        assert not presence[:, ~players].any()
        return table[tuple(presence.long().T)]

    values, spread = owen_values(answer, players.view(2, 2), 100, 0)
    expected = owen_by_orders(
        lambda there: float(table[tuple(int(part in there) for part in range(4))]), tree
    )
    for part in range(4):
        assert float(values[part]) == pytest.approx(expected.get(part, 0.0), abs=1e-6)
    assert 0 < spread <= float(table.max() - table.min())


def test_shapley_values_of_additive_and_interacting_parts() -> None:
    def answer(presence: Tensor) -> Tensor:
        a, b, c, d = presence.float().T
        return 3 * a + 2 * b - c + 0 * d + 4 * a * c

    values, spread = owen_values(answer, torch.ones(1, 4, dtype=torch.bool), 500, 0)
    torch.testing.assert_close(values, torch.tensor([5, 2, 1, 0]).double())
    # From -1 (c alone) to 8 (all).
    assert spread == pytest.approx(9)


class FourPatches(Linear):
    """Log-odds are a weighted sum of patch means, the tokens, and a product of two of them."""

    has_patches = True

    def __init__(self) -> None:
        super().__init__(torch.tensor([1.0, -2.0, 3.0, 5.0]))

    def tokens(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.mean(dim=1), 2).flatten(1)[:, :, None]

    def from_tokens(self, tokens: Tensor) -> Tensor:
        values = tokens[:, :, 0]
        logit = values @ self.weight + 10 * values[:, 0] * values[:, 3]
        return two_class(logit[:, None])

    features, logits = tokens, from_tokens


def quarters(values: Sequence[float]) -> Tensor:
    """An image of four even patches, row by row."""
    grid = torch.tensor(values).view(1, 1, 2, 2).repeat(1, 3, 1, 1)
    return nn.functional.interpolate(grid, 8, mode="nearest")


def of_quarters(maps: Tensor) -> list[float]:
    """Sums of a map over the four patches."""
    return [float(total) for total in nn.functional.avg_pool2d(maps[:, None], 4).flatten() * 16]


@pytest.mark.parametrize("target", list(Label))
def test_patch_values_are_exact_shapley_values(target: Label) -> None:
    # An absent patch is 0.1, the background's mean. Patch 1 equals it and gets no share.
    background = torch.cat([quarters([0.0] * 4), quarters([0.2] * 4)])
    image = quarters([0.5, 0.1, 0.9, 0.3])
    found = PatchSHAP(evaluations=500).attribute(FourPatches(), image, target, background)
    # Patches 0 and 3 share the gain of their product: each at the mean of the other.
    first = 1 * 0.4 + 10 * 0.4 * (0.3 + 0.1) / 2
    last = 5 * 0.2 + 10 * 0.2 * (0.5 + 0.1) / 2
    sign = 1 if target == Label.ALL else -1
    expected = [sign * value for value in (first, 0.0, 3 * 0.8, last)]
    assert of_quarters(found.maps) == pytest.approx(expected, abs=1e-5)
    assert found.segments is not None
    assert (found.segments[0, :4, 4:] == -1).all()
    assert (found.segments[0, 4:, :4] == 2).all()


@pytest.mark.slow  # numba compiles shap's masker
def test_regions_match_the_image_masker_of_shap() -> None:
    torch.manual_seed(0)
    model = CNN(resolution=4, widths=(4,), hidden=8).eval()
    images = 0.1 + 0.9 * torch.rand(2, 3, 4, 4)

    def ask(pixels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            batch = torch.from_numpy(pixels).float().permute(0, 3, 1, 2)
            return log_odds(model(batch)).numpy()

    masker = shap.maskers.Image(0.0, shape=(4, 4, 3))
    explainer = shap.PartitionExplainer(ask, masker)
    pixels = images.permute(0, 2, 3, 1).numpy()
    plain = explainer(pixels, max_evals=10_000, batch_size=200, silent=True).values
    method = PartitionSHAP(evaluations=10_000, regions=4, hide="black")
    found = method.attribute(model, images, 1, images)
    expected = torch.from_numpy(plain.sum(axis=3)).float()
    torch.testing.assert_close(found.maps, expected, rtol=1e-4, atol=1e-6)
    assert not found.degenerate.any()


def test_pixels_match_the_gradient_explainer_of_shap() -> None:
    model = build_classifier("vit")

    class Margin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.model(images)
            return logits[:, 1:] - logits[:, :1]

    found = GradientSHAP(samples=20, batch_size=7, seed=5).attribute(model, IMAGES, 1, BACKGROUND)
    (seed,) = np.random.SeedSequence(5).generate_state(1)
    plain = shap.GradientExplainer(Margin(), BACKGROUND)
    for image, own in zip(IMAGES.split(1), found.maps, strict=True):
        values = plain.shap_values(image, nsamples=20, rseed=int(seed))
        expected = torch.from_numpy(values.sum(axis=(0, 1, 4))).float()
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)


def test_additivity_error_is_the_missing_share_of_the_range() -> None:
    background = torch.cat([quarters([0.0] * 4), quarters([1.0] * 4)])
    model, image = Linear(torch.ones(3, 1, 1)), quarters([1.0] * 4)
    found = GradientSHAP(samples=1).attribute(model, image, Label.ALL, background)
    # Log-odds are the image's sum: 192, and 0 and 192 of the background, whose mean is 96.
    expected = abs(float(found.maps.sum()) - 96) / 192
    assert float(found.checks["additivity_error"]) == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx(0.5)


@pytest.mark.parametrize(("name", "hide"), [("cnn", "cell"), ("vit", "black"), ("hybrid", "blur")])
def test_regions_sum_to_what_hiding_the_cell_changes(name: str, hide: str) -> None:
    model = build_classifier(name)
    method = PartitionSHAP(evaluations=50, regions=8, hide=hide)  # type: ignore[arg-type]
    found = method.attribute(model, IMAGES, 1, BACKGROUND)
    with torch.no_grad():
        gain = log_odds(model(IMAGES)) - log_odds(model(hidden(IMAGES, hide)))  # type: ignore[arg-type]
    torch.testing.assert_close(found.maps.sum(dim=(1, 2)), gain, rtol=1e-3, atol=1e-5)
    assert float(found.checks["additivity_error"].max()) < 1e-4
    assert not found.degenerate.any()


@pytest.mark.parametrize(("name", "method"), CASES)
def test_map_of_an_image_depends_on_nothing_else(name: str, method: str) -> None:
    model, explainer = build_classifier(name), METHODS[method]
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    found = explainer.attribute(model, IMAGES, 1, BACKGROUND)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    torch.manual_seed(5)  # nothing may depend on global generators
    np.random.seed(5)  # noqa: NPY002
    other_class = explainer.attribute(model, IMAGES, 0, BACKGROUND)
    assert torch.equal(found.maps, -other_class.maps)
    small = copy.copy(explainer)
    vars(small)["batch_size"] = 1
    alone = small.attribute(model, IMAGES[2:], 1, BACKGROUND)
    torch.testing.assert_close(found.maps[2:], alone.maps, rtol=1e-3, atol=1e-6)
    assert found.maps.shape == (3, SIDE, SIDE)
    assert found.checks["additivity_error"].shape == (3,)


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


def test_slow_explanations_print_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=100)
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    for method in (*METHODS.values(), LIME(samples=60, segments=12), PatchLIME(samples=60)):
        method.attribute(build_classifier("vit"), IMAGES[:1], 1, BACKGROUND)
    assert capfd.readouterr() == ("", "")


def test_images_without_players_have_maps_of_zeros() -> None:
    nothing = torch.zeros(1, 3, SIDE, SIDE)
    found = PartitionSHAP(regions=8).attribute(build_classifier("cnn"), nothing, 1, BACKGROUND)
    assert found.degenerate.all()
    assert found.checks["additivity_error"].tolist() == [0.0]
    found = PatchSHAP().attribute(build_classifier("vit"), IMAGES[:1], 1, IMAGES[:1])
    assert (found.maps == 0).all()


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


@pytest.mark.parametrize("evaluations", [26, 300])
def test_evaluations_stay_within_the_budget_and_follow_the_seed(evaluations: int) -> None:
    # Four pairs of equal value; 26 evaluations suffice to divide only some of them.
    sizes: list[int] = []
    weights = torch.tensor([3.0, -1.0]).repeat(4 if evaluations == 26 else 100)

    def answer(presence: Tensor) -> Tensor:
        sizes.append(len(presence))
        return presence.float() @ weights

    def values(seed: int) -> tuple[float, ...]:
        sizes.clear()
        players = torch.ones(1, len(weights), dtype=torch.bool)
        found, _ = owen_values(answer, players, evaluations, seed)
        assert evaluations - 2 <= sum(sizes) <= evaluations + 1
        assert max(sizes) <= 64
        return tuple(found.tolist())

    assert values(3) == values(3)
    assert evaluations == 300 or len({values(seed) for seed in range(8)}) > 1


def test_regions_equal_to_patches_have_the_unit_patch() -> None:
    for name, regions, unit in (("vit", 4, "patch"), ("vit", 8, "superpixel"), ("cnn", 4, None)):
        method = PartitionSHAP(evaluations=10, regions=regions)
        found = method.attribute(build_classifier(name), IMAGES[:1], 1, BACKGROUND)
        assert found.unit == (unit or "superpixel")


@pytest.mark.parametrize("regions", [1, SIDE + 1])
def test_impossible_regions_are_refused(regions: int) -> None:
    with pytest.raises(ConfigError, match=r"explain\.shap_regions\.regions=.*2 to 32"):
        PartitionSHAP(regions=regions).attribute(build_classifier("cnn"), IMAGES, 1, BACKGROUND)
