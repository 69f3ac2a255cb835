import captum.metrics
import numpy as np
import pytest
import torch
from checking import CELLS, CONTROLS, called, checked, measure
from explained import REVERSED, TRUTH, Linear, linear, some_cells
from scipy.stats import spearmanr
from torch import Tensor

from leuk.data.labels import Label
from leuk.explain.base import log_odds
from leuk.explain.perturb import cell_mask, hidden
from leuk.explain.quality.faithfulness import (
    RandomControl,
    all_controls,
    curves,
    infidelity,
    removals,
    sensitivity,
)
from leuk.explain.quality.randomization import agreement, rank_correlation

images = pytest.fixture(lambda: some_cells(CELLS))
model = pytest.fixture(lambda: linear().eval())


@pytest.mark.parametrize("how", ["black", "blur"])
def test_truth_beats_the_controls_and_its_opposite_is_worst(
    model: Linear, images: Tensor, how: str
) -> None:
    found = checked(model, images, TRUTH, REVERSED)
    deletion = measure(found, f"deletion_{how}")["value"]
    insertion = measure(found, f"insertion_{how}")["value"]
    for control in CONTROLS:
        assert deletion["truth"] < deletion[control] < deletion["reversed"]
        assert insertion["truth"] > insertion[control] > insertion["reversed"]
    gain = measure(found, f"insertion_minus_deletion_{how}_over_random")
    assert gain.loc["truth", "low"] > 0 > gain.loc["reversed", "high"]
    assert gain.loc["random", "value"] == 0


def by_hand(model: Linear, image: Tensor, values: Tensor, share: float, insert: bool) -> float:
    """Probability of leukemia with the highest pixels of a cell hidden, or only these shown."""
    mask = cell_mask(image[None])[0]
    highest = values.masked_fill(~mask, -torch.inf).flatten().argsort(descending=True)
    first = torch.zeros(values.numel(), dtype=torch.bool)
    first[highest[: round(share * int(mask.sum()))]] = True
    first = first.view(values.shape)
    shown = image * (first if insert else ~first)
    return float(log_odds(model(shown[None])).detach().sigmoid())


def test_curves_match_their_definition(model: Linear, images: Tensor) -> None:
    maps, black = model.truth(images), torch.zeros_like(images)
    pixels = cell_mask(images).sum(dim=(1, 2))
    for i, count in enumerate(pixels.tolist()):
        one = slice(i, i + 1)
        found = curves(
            model, images[one], black[one], maps[one], Label.ALL, steps=count, batch_size=64
        )
        for at in (0, 1, count // 2, count):
            share = found.shares[at]
            for curve, insert in ((found.deletion, False), (found.insertion, True)):
                expected = by_hand(model, images[i], maps[i], share, insert)
                assert curve[0, at] == pytest.approx(expected, abs=1e-5)
    assert found.deletion_auc[0] == pytest.approx(
        (found.deletion[0, 1:] + found.deletion[0, :-1]).mean() / 2
    )


def test_curves_meet_at_their_ends(model: Linear, images: Tensor) -> None:
    other = hidden(images, "blur") * cell_mask(images)[:, None]
    healthy = curves(model, images, other, model.truth(images), Label.HEM)
    with torch.no_grad():
        whole, nothing = (1 - log_odds(model(seen)).sigmoid() for seen in (images, other))
    for curve, first, last in (
        (healthy.deletion, whole, nothing),
        (healthy.insertion, nothing, whole),
    ):
        np.testing.assert_allclose(curve[:, 0], first, atol=1e-5)
        np.testing.assert_allclose(curve[:, -1], last, atol=1e-5)
    assert healthy.shares[0] == 0
    assert healthy.shares[-1] == 1


def test_background_does_not_affect_curves(model: Linear, images: Tensor) -> None:
    maps = model.truth(images)
    outside = maps + 100 * (~cell_mask(images))
    one, other = (curves(model, images, 0 * images, of, Label.ALL) for of in (maps, outside))
    np.testing.assert_array_equal(one.deletion, other.deletion)
    np.testing.assert_array_equal(one.insertion, other.insertion)


def test_seed_orders_pixels_of_equal_value(model: Linear, images: Tensor) -> None:
    coarse = (model.truth(images) > 0).float()
    first, again, other = (
        curves(model, images, 0 * images, coarse, Label.ALL, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.deletion, again.deletion)
    assert not np.array_equal(first.deletion, other.deletion)
    alone = curves(model, images[2:3], 0 * images[2:3], coarse[2:3], Label.ALL)
    np.testing.assert_allclose(alone.deletion[0], first.deletion[2], atol=1e-6)


def test_measures_do_not_depend_on_the_batch_size(model: Linear, images: Tensor) -> None:
    maps, black = model.truth(images), torch.zeros_like(images)
    one, other = (
        curves(model, images, black, maps, Label.ALL, batch_size=size) for size in (7, 500)
    )
    np.testing.assert_allclose(one.insertion, other.insertion, atol=1e-6)
    small, large = (removals(model, images, black, Label.ALL, batch_size=size) for size in (7, 500))
    assert torch.equal(small.boxes, large.boxes)
    torch.testing.assert_close(small.changes, large.changes)


def test_infidelity_of_the_truth_is_zero(model: Linear, images: Tensor) -> None:
    removed = removals(model, images, torch.zeros_like(images), Label.ALL)
    truth = model.truth(images)
    share, raw = infidelity(truth, removed)
    np.testing.assert_allclose(share, 0, atol=1e-6)
    np.testing.assert_allclose(raw, 0, atol=1e-6)
    share, raw = infidelity(7 * truth, removed)
    np.testing.assert_allclose(share, 0, atol=1e-6)
    assert (raw > 0.01).all()
    for wrong in (-truth, torch.zeros_like(truth)):
        np.testing.assert_allclose(infidelity(wrong, removed)[0], 1)
    noise = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1))
    assert (infidelity(noise, removed)[0] > 0.3).all()


def test_infidelity_is_captums(model: Linear, images: Tensor) -> None:
    removed = removals(model, images, torch.zeros_like(images), Label.ALL, samples=5)
    maps = torch.randn(images.shape[0], 32, 32) * 0.1
    gone = torch.zeros(*removed.boxes.shape[:2], 3, 32, 32)
    for i, boxes in enumerate(removed.boxes.tolist()):
        for j, (top, bottom, left, right) in enumerate(boxes):
            gone[i, j, :, top:bottom, left:right] = 1
    gone = gone.flatten(0, 1)
    expected = captum.metrics.infidelity(
        lambda seen: log_odds(model(seen)),
        lambda seen: (gone, seen * (1 - gone)),
        images,
        maps[:, None].expand(images.shape) / 3,
        n_perturb_samples=5,
    )
    np.testing.assert_allclose(infidelity(maps, removed)[1], expected.detach(), rtol=1e-3)


def test_infidelity_is_nan_without_changes(images: Tensor) -> None:
    removed = removals(linear(scale=0.0), images, torch.zeros_like(images), Label.ALL)
    assert np.isnan(infidelity(images.mean(dim=1), removed)[0]).all()


def test_sensitivity_is_the_largest_change_of_maps(model: Linear, images: Tensor) -> None:
    target = called(model, images)
    of_truth = sensitivity(TRUTH, model, images, target, images, radius=0.02)
    assert ((of_truth > 0.001) & (of_truth < 0.2)).all()
    wider = sensitivity(TRUTH, model, images, target, images, radius=0.2)
    assert (wider > 2 * of_truth).all()
    for control in (RandomControl(), RandomControl(blobs=0)):
        assert (sensitivity(control, model, images, target, images) == 0).all()
    parts = sensitivity(TRUTH, model, images, target, images, batch_size=CELLS)
    assert parts.shape == (CELLS,)


def test_rank_correlation_is_scipys(images: Tensor) -> None:
    one, other = torch.rand(2, CELLS, 32, 32).round(decimals=1)
    mask = cell_mask(images)
    expected = [spearmanr(a[m], b[m]).statistic for a, b, m in zip(one, other, mask, strict=True)]
    np.testing.assert_allclose(rank_correlation(one, other, mask), expected)
    broken = one.clone()
    broken[0], broken[1, 16, 16], mask[2] = 0, torch.nan, False
    assert np.isnan(rank_correlation(broken, other, mask)).tolist() == [True] * 3 + [False] * 3
    table = agreement({"one": one, "same": 2 * one, "opposite": -one, "broken": broken}, mask)
    assert table.loc["one", "same"] == pytest.approx(1)
    assert table.loc["one", "opposite"] == pytest.approx(-1)
    assert table.loc["broken", "same"] == pytest.approx(1)
    nothing = agreement({"one": one, "flat": torch.zeros_like(one)}, mask)
    assert np.isnan(nothing.loc["one", "flat"])


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_ignore_weights_class_and_other_images(name: str, images: Tensor) -> None:
    control = all_controls(0)[name]
    assert control.name == name
    found = control.attribute(linear(0), images, Label.ALL, images)
    other = control.attribute(linear(1), images.flip(0), Label.HEM, images).maps.flip(0)
    torch.testing.assert_close(found.maps, other)
    assert not found.degenerate.any()
    assert float(found.maps.min()) >= 0
    if name.startswith("random"):
        assert not torch.equal(all_controls(1)[name]._map(images[0]), found.maps[0])
        assert not torch.equal(found.maps[0], found.maps[1])
