"""SHAP against the library's plain interface, exact values and models whose truth is known."""

import inspect
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shap
import torch
import yaml
from hydra.utils import get_class
from scipy.cluster.hierarchy import is_valid_linkage
from torch import Tensor, nn

from leuk.classifiers.classifier import Classifier, two_class
from leuk.classifiers.cnn import CNN
from leuk.classifiers.hybrid import Hybrid
from leuk.classifiers.optim import Optim
from leuk.classifiers.vit import ViT
from leuk.errors import ConfigError
from leuk.explain.explainer import Explainer, log_odds
from leuk.explain.perturb import hidden
from leuk.explain.shap import GradientSHAP, PartitionSHAP, PatchSHAP
from leuk.explain.shap_masker import halvings, owen_values

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


class Linear(Classifier):
    """Log-odds are a weighted sum of pixels."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__(Optim())
        self.weights = nn.Parameter(weights)

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def logits(self, features: Tensor) -> Tensor:
        return two_class(features @ self.weights.flatten()[:, None])

    @property
    def cam_layer(self) -> nn.Module:
        return self

    def cam_grid(self, activations: Tensor) -> Tensor:
        return activations


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


def made(name: str) -> Classifier:
    torch.manual_seed(0)
    return MODELS[name]().eval()


def owen_by_orders(value: Callable[[frozenset[int]], float], tree: object) -> dict[int, float]:
    """Mean contribution of each leaf over all orders that keep the tree's parts together."""

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
def test_the_hierarchy_holds_every_player_once(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    players = torch.rand(shape, generator=generator) < 0.7
    linkage = halvings(players)
    count = int(players.sum())
    assert linkage.shape == (count - 1, 4)
    assert is_valid_linkage(linkage)
    assert linkage[-1, 3] == count
    assert sorted(linkage[:, :2].flatten()) == list(range(2 * count - 2))


def test_regions_are_what_shap_s_own_image_masker_gives() -> None:
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
def test_pixels_are_what_shap_s_gradient_explainer_gives(name: str) -> None:
    model = made(name)

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


def test_more_draws_come_nearer_to_additive() -> None:
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


def test_another_seed_draws_otherwise() -> None:
    first, second = (
        GradientSHAP(samples=10, seed=seed).attribute(made("cnn"), IMAGES, 1, BACKGROUND).maps
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
    model = made(name)
    method = PartitionSHAP(evaluations=50, regions=8, hide=hide)  # type: ignore[arg-type]
    found = method.attribute(model, IMAGES, 1, BACKGROUND)
    with torch.no_grad():
        gain = log_odds(model(IMAGES)) - log_odds(model(hidden(IMAGES, hide)))  # type: ignore[arg-type]
    torch.testing.assert_close(found.maps.sum(dim=(1, 2)), gain, rtol=1e-3, atol=1e-5)
    assert float(found.checks["additivity_error"].max()) < 1e-4
    assert not found.degenerate.any()


@pytest.mark.parametrize("name", ["vit", "hybrid"])
def test_patches_sum_to_what_the_training_cells_mean_embeddings_change(name: str) -> None:
    model = made(name)
    found = PatchSHAP(evaluations=50).attribute(model, IMAGES, 1, BACKGROUND)
    with torch.no_grad():
        mean = model.tokens(BACKGROUND).mean(dim=0, keepdim=True)
        gain = log_odds(model(IMAGES)) - log_odds(model.from_tokens(mean))
    torch.testing.assert_close(found.maps.sum(dim=(1, 2)), gain, rtol=1e-3, atol=1e-5)
    assert float(found.checks["additivity_error"].max()) < 1e-4
    assert found.unit == "patch"
    assert not found.degenerate.any()


def test_patches_are_valued_as_orders_of_halves_say() -> None:
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
def test_how_many_go_in_a_pass_changes_nothing(name: str, method: str) -> None:
    model, explainer = made(name), METHODS[method]
    found = explainer.attribute(model, IMAGES, 1, BACKGROUND)
    settings = {key: value for key, value in vars(explainer).items() if key != "batch_size"}
    single = type(explainer)(**settings, batch_size=1).attribute(model, IMAGES, 1, BACKGROUND)
    torch.testing.assert_close(found.maps, single.maps, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("name", "method"), CASES)
def test_a_cell_has_the_same_map_each_time_and_among_others(name: str, method: str) -> None:
    model, explainer = made(name), METHODS[method]
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


@pytest.mark.parametrize(("name", "method"), CASES)
def test_half_precision_around_does_not_change_what_is_said(name: str, method: str) -> None:
    model, explainer = made(name), METHODS[method]
    plain = explainer.attribute(model, IMAGES, 1, BACKGROUND).maps
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = explainer.attribute(model, IMAGES, 1, BACKGROUND)
    if method == "pixels":
        torch.testing.assert_close(found.maps, plain)
    else:
        assert float(found.checks["additivity_error"].max()) < 0.2
    assert found.maps.dtype == torch.float32
    assert not found.degenerate.any()


def test_gradients_of_a_fit_are_left_alone() -> None:
    model = made("cnn")
    log_odds(model(IMAGES)).sum().backward()
    before = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    GradientSHAP(samples=3).attribute(model, IMAGES, 1, BACKGROUND)
    for parameter, gradient in zip(model.parameters(), before, strict=True):
        assert gradient is None or torch.equal(parameter.grad, gradient)
        assert parameter.requires_grad


def test_background_is_no_part_of_the_game() -> None:
    found = PartitionSHAP(evaluations=20, regions=8).attribute(made("cnn"), IMAGES, 1, BACKGROUND)
    assert found.segments is not None
    black = nn.functional.max_pool2d(IMAGES.amax(dim=1, keepdim=True), 4)[:, 0] == 0
    black = black.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    assert black.any()
    assert (found.segments[black] == -1).all()
    assert (found.segments[~black] >= 0).all()
    assert (found.maps[black] == 0).all()
    assert (found.maps[~black] != 0).all()


def test_a_cell_that_is_not_there_has_a_degenerate_map() -> None:
    nothing = torch.zeros(1, 3, SIDE, SIDE)
    found = PartitionSHAP(regions=8).attribute(made("cnn"), nothing, 1, BACKGROUND)
    assert found.degenerate.all()
    assert found.checks["additivity_error"].tolist() == [0.0]


def test_a_cell_that_is_the_training_cell_has_patches_worth_nothing() -> None:
    found = PatchSHAP().attribute(made("vit"), IMAGES[:1], 1, IMAGES[:1])
    assert (found.maps == 0).all()


@pytest.mark.parametrize("evaluations", [20, 45, 300])
def test_no_more_evaluations_than_asked_for(evaluations: int) -> None:
    asked = []
    weights = torch.randn(64, generator=torch.Generator().manual_seed(0))

    def answer(presence: Tensor) -> Tensor:
        asked.append(len(presence))
        return (presence.float() @ weights).sin()

    owen_values(answer, torch.ones(8, 8, dtype=torch.bool), evaluations, 0)
    assert evaluations - 2 <= sum(asked) <= evaluations + 1
    assert max(asked) <= 64


def test_regions_that_are_the_patches_are_called_so() -> None:
    for name, regions, unit in (("vit", 4, "patch"), ("vit", 8, "superpixel"), ("cnn", 4, None)):
        method = PartitionSHAP(evaluations=10, regions=regions)
        found = method.attribute(made(name), IMAGES[:1], 1, BACKGROUND)
        assert found.unit == (unit or "superpixel")


@pytest.mark.parametrize("regions", [1, SIDE + 1])
def test_impossible_regions_are_refused(regions: int) -> None:
    with pytest.raises(ConfigError, match=r"explain\.shap_regions\.regions=.*2 to 32"):
        PartitionSHAP(regions=regions).attribute(made("cnn"), IMAGES, 1, BACKGROUND)


def test_patches_are_asked_only_of_who_has_them() -> None:
    with pytest.raises(ConfigError, match=r"explain=shap_patches.*model=vit"):
        PatchSHAP().attribute(made("cnn"), IMAGES, 1, BACKGROUND)


def test_nothing_is_printed_however_long_it_takes(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=100)
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    for explainer in METHODS.values():
        explainer.attribute(made("vit"), IMAGES, 1, BACKGROUND)
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
