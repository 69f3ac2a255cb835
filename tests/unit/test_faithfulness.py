"""Deletion and insertion curves, infidelity, sensitivity and controls, on a linear model."""

import numpy as np
import pytest
import torch
from checking import CELLS, CONTROLS, case, checked, measure
from explained import REVERSED, TRUTH, FunctionExplainer, Linear, linear, some_cells
from scipy.stats import spearmanr
from torch import Tensor

from leuk.classifiers.base import Classifier
from leuk.data.decode import cell_mask
from leuk.data.labels import Label
from leuk.explain.base import log_odds
from leuk.explain.perturb import hidden
from leuk.explain.quality.faithfulness import (
    controls,
    curves,
    infidelity,
    removals,
    sensitivity,
)
from leuk.explain.quality.randomization import agreement, rank_correlations

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
    maps += 100 * ~cell_mask(images)  # has no effect
    pixels = cell_mask(images).sum(dim=(1, 2))
    for i, count in enumerate(pixels.tolist()):
        one = slice(i, i + 1)
        found = curves(case(model, images[one]), black[one], maps[one], steps=count)
        for at in (0, 1, count // 2, count):
            share = found.shares[at]
            for curve, insert in ((found.deletion, False), (found.insertion, True)):
                expected = by_hand(model, images[i], maps[i], share, insert)
                assert curve[0, at] == pytest.approx(expected, abs=1e-5)


def test_curves_meet_at_their_ends(model: Linear, images: Tensor) -> None:
    other = hidden(images, "blur") * cell_mask(images)[:, None]
    healthy = curves(case(model, images, Label.HEM), other, model.truth(images))
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


def test_seed_orders_pixels_of_equal_value(model: Linear, images: Tensor) -> None:
    coarse = (model.truth(images) > 0).float()
    first, again, other = (
        curves(case(model, images, seed=seed), 0 * images, coarse) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.deletion, again.deletion)
    assert not np.array_equal(first.deletion, other.deletion)
    alone = curves(case(model, images[2:3]), 0 * images[2:3], coarse[2:3])
    np.testing.assert_allclose(alone.deletion[0], first.deletion[2], atol=1e-6)


def test_removed_squares_are_around_the_cell_with_the_specified_sides() -> None:
    side = 96
    image = torch.zeros(1, 3, side, side)
    image[:, :, 40:50, 60:64] = 0.5  # far from its mirror image
    boxes = removals(case(Linear(torch.ones(3, 1, 1)), image), 0 * image, samples=300).boxes[0]
    top, bottom, left, right = boxes.T
    rows, columns = (top + bottom) / 2, (left + right) / 2
    assert 40 <= int(rows.min()) <= int(rows.max()) < 50
    assert 60 <= int(columns.min()) <= int(columns.max()) < 64
    sides = bottom - top
    assert torch.equal(sides, right - left)
    assert int(sides.min()) in (12, 14)
    assert int(sides.max()) in (30, 32)


def test_infidelity_of_the_truth_is_zero(model: Linear, images: Tensor) -> None:
    removed = removals(case(model, images), torch.zeros_like(images))
    healthy = removals(case(model, images, Label.HEM), torch.zeros_like(images))
    torch.testing.assert_close(healthy.changes, -removed.changes)
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


def test_infidelity_is_nan_without_changes(images: Tensor) -> None:
    removed = removals(case(linear(scale=0.0), images), torch.zeros_like(images))
    assert np.isnan(infidelity(images.mean(dim=1), removed)[0]).all()


def test_sensitivity_is_the_largest_relative_change_under_noise_within_the_cell() -> None:
    seen: list[Tensor] = []

    def squared(_: Classifier, images: Tensor) -> Tensor:
        seen.append(images.clone())
        return (images.mean(dim=1)) ** 2

    images, target = some_cells(2), torch.tensor([1, 0])
    explainer = FunctionExplainer("squared", squared)
    found = sensitivity(case(linear(), images, target), explainer, samples=5, radius=0.05)
    noisy = torch.cat([batch for batch in seen if not torch.equal(batch, images)])
    assert len(noisy) == 2 * 5
    owner = [int((one[None] - images).abs().amax(dim=(1, 2, 3)).argmin()) for one in noisy]
    assert sorted(owner) == [0] * 5 + [1] * 5
    change = torch.stack([one - images[i] for one, i in zip(noisy, owner, strict=True)])
    assert 0.045 < float(change.max()) <= 0.0501
    assert -0.0501 <= float(change.min()) < -0.045
    assert not change[~cell_mask(images)[owner][:, None].expand_as(change)].any()
    before = images.mean(dim=1) ** 2
    moved = (noisy.mean(dim=1) ** 2 - before[owner]).flatten(1).norm(dim=1)
    expected = [
        float(max(moved[j] for j in range(10) if owner[j] == i) / before[i].norm())
        for i in range(2)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_rank_correlation_is_scipys(images: Tensor) -> None:
    one, other = torch.rand(2, CELLS, 32, 32).round(decimals=1)
    mask = cell_mask(images)
    expected = [spearmanr(a[m], b[m]).statistic for a, b, m in zip(one, other, mask, strict=True)]
    np.testing.assert_allclose(rank_correlations([one, other], mask)[:, 0, 1], expected)
    broken = one.clone()
    broken[0], broken[1, 16, 16], mask[2] = 0, torch.nan, False
    found = rank_correlations([broken, other], mask)[:, 0, 1]
    assert np.isnan(found).tolist() == [True] * 3 + [False] * 3
    table = agreement({"one": one, "same": 2 * one, "opposite": -one, "broken": broken}, mask)
    assert table.loc["one", "same"] == pytest.approx(1)
    assert table.loc["one", "opposite"] == pytest.approx(-1)
    assert table.loc["broken", "same"] == pytest.approx(1)
    nothing = agreement({"one": one, "flat": torch.zeros_like(one)}, mask)
    assert np.isnan(nothing.loc["one", "flat"])


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_ignore_weights_class_and_other_images(name: str, images: Tensor) -> None:
    control = controls(0)[name]
    assert control.name == name
    found = control.attribute(linear(0), images, Label.ALL, images)
    other = control.attribute(linear(1), images.flip(0), Label.HEM, images).maps.flip(0)
    torch.testing.assert_close(found.maps, other)
    assert not found.degenerate.any()
    assert float(found.maps.min()) >= 0
    if name.startswith("random"):
        assert not torch.equal(controls(1)[name].draw(images[0]), found.maps[0])
        assert not torch.equal(found.maps[0], found.maps[1])


@pytest.mark.parametrize("name", ["random", "random_pixels"])
def test_noise_does_not_change_random_controls(name: str, model: Linear, images: Tensor) -> None:
    assert (sensitivity(case(model, images), controls(0)[name]) == 0).all()


def test_controls_are_a_bell_and_an_edge() -> None:
    side = 40
    image = torch.zeros(1, 3, side, side)
    image[:, :, 10:30, 12:28] = 0.5
    found = controls(0)
    maps = {
        name: found[name].attribute(linear(), image, 1, image).maps[0]
        for name in ("center", "edges")
    }
    line = (torch.arange(side) - 19.5) / 8  # standard deviation: a fifth of the side
    bell = torch.exp(-(line[:, None] ** 2 + line**2) / 2)
    torch.testing.assert_close(maps["center"], bell)
    edges = maps["edges"]
    assert float(edges[14:26, 16:24].abs().max()) < 1e-6  # flat inside
    assert float(edges[:5].abs().max()) < 1e-6
    assert float(edges[20, 11:13].min()) > 0.1
    assert float(edges[9:11, 20].min()) > 0.1
