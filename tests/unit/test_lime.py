"""LIME against the library's own interface, and on models with known explanations."""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
import torch
from explained import SIDE, linear, some_cells
from lime.lime_image import LimeImageExplainer
from shap_cases import BACKGROUND, IMAGES, MODELS, build_classifier
from torch import Tensor, nn

from leuk.classifiers.cnn import CNN
from leuk.data.decode import cell_mask
from leuk.explain import lime
from leuk.explain.base import Explainer, log_odds
from leuk.explain.lime import LIME, PatchLIME, PresenceLime, cell_superpixels
from leuk.explain.perturb import Hide, hidden

METHODS: dict[str, Callable[..., Explainer]] = {
    "lime": partial(LIME, samples=60, segments=12),
    "lime_patches": partial(PatchLIME, samples=60),
}
CASES = [
    *((model, "lime") for model in MODELS),
    *((model, "lime_patches") for model in MODELS if model != "cnn"),
]


def weights_of(maps: Tensor, segments: Tensor) -> Tensor:
    """Contribution of each segment, ``(K,)``, from the map of an image."""
    inside = segments >= 0
    return torch.zeros(int(segments.max()) + 1).scatter_add_(0, segments[inside], maps[inside])


@pytest.mark.parametrize("count", [1, 16, 58, 64])
def test_number_of_superpixels_is_close_to_the_setting(count: int) -> None:
    smooth = nn.functional.interpolate(some_cells(2), 96, mode="bilinear")
    found = cell_superpixels(smooth, count)
    assert torch.equal(found >= 0, cell_mask(smooth))
    for image, own in zip(smooth, found, strict=True):
        number = int(own.max()) + 1
        assert 0.7 * count <= number <= 1.1 * count
        assert own.unique().tolist() == list(range(-1, number))
        assert torch.equal(cell_superpixels(image[None], count)[0], own)


@pytest.mark.parametrize("lit", [0, 1, 2, 5])
def test_tiny_cells_have_as_many_superpixels_as_pixels(lit: int) -> None:
    image = torch.zeros(1, 3, SIDE, SIDE)
    image[0, :, 4, 4 : 4 + lit] = 0.1 * torch.arange(1, lit + 1)
    segments = cell_superpixels(image, 64)
    assert sorted(segments[segments >= 0].tolist()) == list(range(lit))


@pytest.mark.parametrize(("hide", "features"), [("cell", None), ("black", 8), ("blur", None)])
def test_weights_are_those_of_lime_itself(hide: Hide, features: int | None) -> None:
    model = build_classifier("cnn")
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5)).clamp(0.1)
    method = LIME(60, segments=12, hide=hide, features=features, repeats=1, seed=7)
    found = method.attribute(model, image, 1, BACKGROUND)
    assert found.segments is not None
    segments = found.segments[0]

    def predict(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            answers: Tensor = log_odds(model(torch.from_numpy(batch).permute(0, 3, 1, 2)))
            return answers[:, None].numpy()

    plain = LimeImageExplainer(random_state=7).explain_instance(
        image[0].permute(1, 2, 0).numpy(),
        predict,
        labels=(0,),
        top_labels=None,
        hide_color=hidden(image, hide)[0].permute(1, 2, 0).numpy(),
        num_features=features or 100,
        num_samples=60,
        segmentation_fn=lambda _: segments.numpy(),
    )
    own = weights_of(found.maps[0], segments)
    of_lime = torch.tensor(
        [float(dict(plain.local_exp[0]).get(part, 0)) for part in range(len(own))]
    )
    torch.testing.assert_close(own, of_lime, rtol=1e-4, atol=1e-6)
    assert float(found.checks["r2"]) == pytest.approx(plain.score, abs=1e-4)
    assert int((own != 0).sum()) == (features or len(own))


def test_confident_classifier_has_weights_for_log_odds_not_for_probabilities() -> None:
    adds = torch.tensor([3.0, -1.0, 0.5, -2.0])

    def odds(there: Tensor) -> Tensor:
        return 30 + there.float() @ adds

    def probability(there: Tensor) -> Tensor:
        value = odds(there)
        return torch.stack([torch.zeros_like(value), value], dim=1).softmax(dim=1)[:, 1]

    assert (PresenceLime(None, 0).fit(probability, 4, 500)[0] == 0).all()
    # lime's feature selection does not set nonzero weights to zero either.
    for features in (None, 4, 2):
        weights = PresenceLime(features, 0).fit(odds, 4, 500)[0]
        assert weights[[0, 3]] == pytest.approx([3, -2], rel=0.15)
        assert int((weights != 0).sum()) == (features or 4)


def test_lime_map_comes_from_the_first_seed() -> None:
    torch.manual_seed(0)
    model = CNN(resolution=SIDE, widths=(4, 8), hidden=8).eval()
    images = some_cells(1)
    twice, once, other = (
        LIME(40, segments=8, repeats=repeats, seed=seed).attribute(model, images, 1, images)
        for repeats, seed in ((2, 7), (1, 7), (1, 8))
    )
    assert torch.equal(twice.maps, once.maps)
    assert torch.equal(twice.checks["r2"], once.checks["r2"])
    assert "stability" not in once.checks
    assert float(twice.checks["stability"]) < 0.999  # the second seed gives different draws
    assert not torch.equal(twice.maps, other.maps)


def test_stability_keeps_the_sign_of_rank_correlations() -> None:
    up, down, same = np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0]), np.ones(3)
    assert lime.stability([up, down]) == pytest.approx(-1)
    assert lime.stability([up, up, down]) == pytest.approx((1 - 1 - 1) / 3)
    assert np.isnan(lime.stability([up, same]))


@pytest.mark.parametrize(("name", "method"), CASES)
def test_map_of_an_image_depends_on_nothing_else(name: str, method: str) -> None:
    model, explainer = build_classifier(name), METHODS[method]()
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    found = explainer.attribute(model, IMAGES, 1, BACKGROUND)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    torch.manual_seed(5)  # nothing may depend on global generators
    np.random.seed(5)  # noqa: NPY002
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = explainer.attribute(model, IMAGES, 1, BACKGROUND).maps
    assert half.dtype == torch.float32
    assert half.isfinite().all()
    assert torch.equal(found.maps, explainer.attribute(model, IMAGES, 1, BACKGROUND).maps)
    few = METHODS[method](batch_size=7).attribute(model, IMAGES[2:], 1, BACKGROUND)
    torch.testing.assert_close(found.maps[2:], few.maps, rtol=1e-3, atol=1e-6)
    other = METHODS[method](seed=9).attribute(model, IMAGES, 1, BACKGROUND)
    assert not torch.isclose(found.maps, other.maps).all()
    assert not found.degenerate.any()
    assert found.maps.dtype == torch.float32
    assert found.segments is not None
    assert (found.maps[found.segments < 0] == 0).all()
    assert found.unit == ("superpixel" if method == "lime" else "patch")
    assert set(found.checks) == {"r2", "stability"}
    for values in found.checks.values():
        assert values.shape == (3,)
        assert bool((values.abs() <= 1).all())


def test_images_without_evidence_have_degenerate_maps() -> None:
    images = torch.cat([torch.zeros(2, 3, SIDE, SIDE), IMAGES[:1]])
    images[1, :, 4, 4] = 0.5  # a single superpixel
    found = METHODS["lime"](hide="black").attribute(linear(), images, 1, BACKGROUND)
    assert found.degenerate.tolist() == [True, False, False]
    assert (found.maps[1] != 0).sum() == 1
    assert found.checks["r2"].isnan().tolist() == [True, False, False]
    assert found.checks["stability"].isnan().tolist() == [True, True, False]
    for model, seen in ((linear(), images[:1]), (linear(scale=0), IMAGES)):
        found = METHODS["lime"]().attribute(model, seen, 1, BACKGROUND)
        assert (found.maps == 0).all()
        assert found.checks["r2"].isnan().all()
