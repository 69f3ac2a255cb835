"""SHAP against the library's own interface, exact values, and models with known explanations."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import shap
import torch
from explained import Linear
from scipy.cluster.hierarchy import is_valid_linkage
from shap_cases import (
    BACKGROUND,
    CASES,
    IMAGES,
    METHODS,
    MODELS,
    SIDE,
    build_classifier,
)
from torch import Tensor, nn

from leuk.classifiers.cnn import CNN
from leuk.classifiers.vit import ViT
from leuk.explain.base import log_odds
from leuk.explain.perturb import hidden
from leuk.explain.shap import GradientSHAP, PartitionSHAP, PatchSHAP, halvings, owen_values


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

    found = owen_values(answer, players.view(2, 2), 100, 0)
    expected = owen_by_orders(
        lambda there: float(table[tuple(int(part in there) for part in range(4))]), tree
    )
    for part in range(4):
        assert float(found.values[part]) == pytest.approx(expected.get(part, 0.0), abs=1e-6)
    assert 0 < found.spread <= float(table.max() - table.min())


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (1, 7)])
def test_hierarchy_contains_every_player_once(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    players = torch.rand(shape, generator=generator) < 0.7
    linkage = halvings(players)
    count = int(players.sum())
    assert linkage.shape == (count - 1, 4)
    assert is_valid_linkage(linkage)
    assert linkage[-1, 3] == count
    assert sorted(linkage[:, :2].flatten()) == list(range(2 * count - 2))


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


@pytest.mark.parametrize("name", MODELS)
def test_pixels_match_the_gradient_explainer_of_shap(name: str) -> None:
    model = build_classifier(name)

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


def test_pixels_of_a_linear_model_are_weights_times_differences() -> None:
    weights = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found = GradientSHAP(samples=60).attribute(Linear(weights), IMAGES, 1, BACKGROUND[:1])
    expected = (weights * (IMAGES - BACKGROUND[:1])).sum(dim=1)
    torch.testing.assert_close(found.maps, expected, rtol=1e-4, atol=1e-5)
    assert float(found.checks["additivity_error"].max()) < 1e-5


def test_more_draws_reduce_the_additivity_error() -> None:
    weights = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    few, many = (
        GradientSHAP(samples=samples)
        .attribute(Linear(weights), IMAGES, 1, BACKGROUND)
        .checks["additivity_error"]
        .mean()
        for samples in (10, 1000)
    )
    assert float(many) < float(few)
    assert float(many) < 0.05


def test_seeds_give_different_draws() -> None:
    first, second = (
        GradientSHAP(samples=10, seed=seed)
        .attribute(build_classifier("cnn"), IMAGES, 1, BACKGROUND)
        .maps
        for seed in (0, 1)
    )
    assert not torch.isclose(first, second).all()


@pytest.mark.parametrize("hide", ["cell", "black", "blur"])
def test_regions_of_a_linear_model_are_weights_times_differences(hide: str) -> None:
    weights = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    method = PartitionSHAP(evaluations=5000, regions=8, hide=hide)  # type: ignore[arg-type]
    found = method.attribute(Linear(weights), IMAGES, 1, BACKGROUND)
    each = (weights * (IMAGES - hidden(IMAGES, hide))).sum(dim=1, keepdim=True)  # type: ignore[arg-type]
    expected = nn.functional.avg_pool2d(each, 4) * 16
    sums = nn.functional.avg_pool2d(found.maps[:, None], 4) * 16
    torch.testing.assert_close(sums, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("hide", ["cell", "black", "blur"])
def test_regions_sum_to_what_hiding_the_cell_changes(name: str, hide: str) -> None:
    model = build_classifier(name)
    method = PartitionSHAP(evaluations=50, regions=8, hide=hide)  # type: ignore[arg-type]
    found = method.attribute(model, IMAGES, 1, BACKGROUND)
    with torch.no_grad():
        gain = log_odds(model(IMAGES)) - log_odds(model(hidden(IMAGES, hide)))  # type: ignore[arg-type]
    torch.testing.assert_close(found.maps.sum(dim=(1, 2)), gain, rtol=1e-3, atol=1e-5)
    assert float(found.checks["additivity_error"].max()) < 1e-4
    assert not found.degenerate.any()


@pytest.mark.parametrize("name", ["vit", "hybrid"])
def test_patches_sum_to_what_the_training_cells_mean_embeddings_change(name: str) -> None:
    model = build_classifier(name)
    found = PatchSHAP(evaluations=50).attribute(model, IMAGES, 1, BACKGROUND)
    with torch.no_grad():
        mean = model.tokens(BACKGROUND).mean(dim=0, keepdim=True)
        gain = log_odds(model(IMAGES)) - log_odds(model.from_tokens(mean))
    torch.testing.assert_close(found.maps.sum(dim=(1, 2)), gain, rtol=1e-3, atol=1e-5)
    assert float(found.checks["additivity_error"].max()) < 1e-4
    assert found.unit == "patch"
    assert not found.degenerate.any()


def test_patches_are_owen_values_of_halvings() -> None:
    torch.manual_seed(0)
    model = ViT(resolution=SIDE, patch=16, width=16, depth=2, heads=2, mlp=32, hidden=16).eval()
    found = PatchSHAP().attribute(model, IMAGES[:1], 1, BACKGROUND)
    with torch.no_grad():
        tokens, mean = model.tokens(IMAGES[:1])[0], model.tokens(BACKGROUND).mean(dim=0)

    def value(there: frozenset[int]) -> float:
        shown = torch.tensor([patch in there for patch in range(4)])[:, None]
        with torch.no_grad():
            return float(log_odds(model.from_tokens(tokens.where(shown, mean)[None])))

    expected = owen_by_orders(value, ((0, 1), (2, 3)))
    sums = nn.functional.avg_pool2d(found.maps[None], 16).flatten() * 256
    assert sums.tolist() == pytest.approx([expected[patch] for patch in range(4)], abs=1e-5)


@pytest.mark.parametrize(("name", "method"), CASES)
def test_batch_size_does_not_change_values(name: str, method: str) -> None:
    model, explainer = build_classifier(name), METHODS[method]
    found = explainer.attribute(model, IMAGES, 1, BACKGROUND)
    settings = {key: value for key, value in vars(explainer).items() if key != "batch_size"}
    single = type(explainer)(**settings, batch_size=1).attribute(model, IMAGES, 1, BACKGROUND)
    torch.testing.assert_close(found.maps, single.maps, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("name", "method"), CASES)
def test_map_of_an_image_depends_on_no_other_image(name: str, method: str) -> None:
    model, explainer = build_classifier(name), METHODS[method]
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    found = explainer.attribute(model, IMAGES, 1, BACKGROUND)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    again = explainer.attribute(model, IMAGES, 1, BACKGROUND)
    alone = explainer.attribute(model, IMAGES[2:], 1, BACKGROUND)
    other_class = explainer.attribute(model, IMAGES, 0, BACKGROUND)
    assert torch.equal(found.maps, again.maps)
    assert torch.equal(found.maps, -other_class.maps)
    torch.testing.assert_close(found.maps[2:], alone.maps, rtol=1e-3, atol=1e-6)
    assert found.maps.shape == (3, SIDE, SIDE)
    assert found.checks["additivity_error"].shape == (3,)
