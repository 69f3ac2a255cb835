import json

import captum.metrics
import numpy as np
import pandas as pd
import pytest
import torch
from explained import REVERSED, TRUTH, Linear, Made, linear, some_cells
from omegaconf import OmegaConf
from scipy.stats import spearmanr
from torch import Tensor

from leuk.classifiers.cnn import CNN
from leuk.config.targets import instantiate
from leuk.data.labels import Label
from leuk.explain.agreement import agreement, rank_correlation
from leuk.explain.checked import Checked
from leuk.explain.checks import CheckSettings, check
from leuk.explain.controls import RandomControl, all_controls
from leuk.explain.explainer import Attribution, Explainer, log_odds, signs
from leuk.explain.faithfulness import curves, infidelity, removals, sensitivity
from leuk.explain.gradcam import GradCAM
from leuk.explain.perturb import cell_mask, hidden
from leuk.explain.subject_means import SubjectMeans

CELLS = 6
CONTROLS = ["random", "random_pixels", "centre", "edges"]
QUICK = CheckSettings(
    steps=4, removals=6, sensitivity_cells=2, sensitivity_samples=2, randomised_cells=3, draws=200
)


@pytest.fixture
def images() -> Tensor:
    return some_cells(CELLS)


@pytest.fixture
def model() -> Linear:
    return linear().eval()


def called(model: Linear, images: Tensor) -> Tensor:
    return (log_odds(model(images)) > 0).long()


def checked(
    model: Linear, images: Tensor, *methods: Explainer, settings: CheckSettings = QUICK
) -> Checked:
    explainers = {method.name: method for method in methods}
    attributions = {
        name: it.attribute(model, images, Label.ALL, images) for name, it in explainers.items()
    }
    subjects = np.array([f"S{i // 2}" for i in range(len(images))])
    decided = called(model, images)
    return check(model, explainers, attributions, images, images, subjects, decided, settings)


def measure(found: Checked, name: str) -> pd.DataFrame:
    table = found.measures
    return table[table["measure"] == name].set_index("method")


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
    """Probability of leukemia with the highest pixels of a cell gone, or alone there."""
    mask = cell_mask(image[None])[0]
    highest = values.masked_fill(~mask, -torch.inf).flatten().argsort(descending=True)
    first = torch.zeros(values.numel(), dtype=torch.bool)
    first[highest[: round(share * int(mask.sum()))]] = True
    first = first.view(values.shape)
    shown = image * (first if insert else ~first)
    return float(log_odds(model(shown[None])).detach().sigmoid())


def test_curves_are_what_their_paper_says(model: Linear, images: Tensor) -> None:
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


def test_what_a_map_says_of_the_background_is_not_asked(model: Linear, images: Tensor) -> None:
    maps = model.truth(images)
    outside = maps + 100 * (~cell_mask(images))
    one, other = (curves(model, images, 0 * images, of, Label.ALL) for of in (maps, outside))
    np.testing.assert_array_equal(one.deletion, other.deletion)
    np.testing.assert_array_equal(one.insertion, other.insertion)


def test_equal_pixels_go_in_an_order_that_the_seed_draws(model: Linear, images: Tensor) -> None:
    coarse = (model.truth(images) > 0).float()
    first, again, other = (
        curves(model, images, 0 * images, coarse, Label.ALL, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.deletion, again.deletion)
    assert not np.array_equal(first.deletion, other.deletion)
    alone = curves(model, images[2:3], 0 * images[2:3], coarse[2:3], Label.ALL)
    np.testing.assert_allclose(alone.deletion[0], first.deletion[2], atol=1e-6)


def test_answers_do_not_depend_on_the_batch_size(model: Linear, images: Tensor) -> None:
    maps, black = model.truth(images), torch.zeros_like(images)
    one, other = (
        curves(model, images, black, maps, Label.ALL, batch_size=size) for size in (7, 500)
    )
    np.testing.assert_allclose(one.insertion, other.insertion, atol=1e-6)
    small, large = (removals(model, images, black, Label.ALL, batch_size=size) for size in (7, 500))
    assert torch.equal(small.boxes, large.boxes)
    torch.testing.assert_close(small.changes, large.changes)


def test_infidelity_of_the_truth_is_none(model: Linear, images: Tensor) -> None:
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


def test_nothing_can_be_told_where_nothing_changes(images: Tensor) -> None:
    removed = removals(linear(scale=0.0), images, torch.zeros_like(images), Label.ALL)
    assert np.isnan(infidelity(images.mean(dim=1), removed)[0]).all()


def test_sensitivity_is_how_far_maps_move(model: Linear, images: Tensor) -> None:
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
def test_controls_ignore_weights_class_and_neighbours(name: str, images: Tensor) -> None:
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


def test_cells_of_one_subject_are_one_observation() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 12)
    subjects = np.array([f"S{i // 2}" for i in range(12)])
    once = SubjectMeans(subjects).of(values)
    assert (once.cells, once.subjects) == (12, 6)
    assert once.low < once.value < once.high
    doubled = SubjectMeans(np.concatenate([subjects, subjects[:2], subjects[:2]])).of(
        np.concatenate([values, values[:2], values[:2]])
    )
    assert (doubled.value, doubled.low, doubled.high) == pytest.approx(
        (once.value, once.low, once.high)
    )
    as_cells = SubjectMeans(np.arange(1200).astype(str)).of(np.repeat(values, 100))
    assert as_cells.high - as_cells.low < (once.high - once.low) / 3


def test_intervals_keep_to_bounds_and_few_subjects_have_none() -> None:
    values = np.array([0.97, 0.999, 0.9, np.nan])
    means = SubjectMeans(np.array(["a", "b", "c", "d"]))
    bounded = means.of(values, (0.0, 1.0))
    assert bounded.value == pytest.approx(np.nanmean(values))
    assert (bounded.cells, bounded.subjects) == (3, 3)
    assert 0 < bounded.low < bounded.value < bounded.high < 1
    assert means.of(values).high > 1
    assert means.of(-values, (-np.inf, np.inf)).low < -1
    one = SubjectMeans(np.array(["a", "a"])).of(np.array([0.1, 0.3]))
    assert one.value == pytest.approx(0.2)
    assert np.isnan([one.low, one.high]).all()
    none = means.of(np.full(4, np.nan))
    assert np.isnan(none.value)
    assert (none.cells, none.subjects) == (0, 0)


def test_degenerate_maps_are_counted_and_left_out(model: Linear, images: Tensor) -> None:
    def broken(classifier: Linear, seen: Tensor) -> Tensor:
        maps = classifier.truth(seen)
        maps[0] = 0.0
        maps[1, 0, 0] = torch.nan
        return maps

    found = checked(
        model, images, TRUTH, Made("broken", broken), Made("flat", lambda _, seen: seen[:, 0] * 0)
    )
    lines = found.methods.set_index("method")
    assert lines["degenerate"][["truth", "broken", "flat", "random"]].tolist() == [0, 2, CELLS, 0]
    assert lines.loc["flat", "passes_randomisation"] is None
    deletion = measure(found, "deletion_black")
    assert deletion["cells"][["truth", "broken", "flat"]].tolist() == [CELLS, CELLS - 2, 0]
    assert deletion["subjects"][["truth", "broken", "flat"]].tolist() == [3, 2, 0]
    assert np.isnan(deletion.loc["flat", "value"])
    rows = found.cells[found.cells["method"] == "broken"].reset_index(drop=True)
    truth = found.cells[found.cells["method"] == "truth"].reset_index(drop=True)
    assert rows["infidelity"].isna().tolist() == [True, True, *[False] * (CELLS - 2)]
    pd.testing.assert_series_equal(rows["deletion_blur"][2:], truth["deletion_blur"][2:])
    assert np.isnan(found.agreement.loc["flat", "truth"])
    assert found.agreement.loc["broken", "truth"] == pytest.approx(1)
    plain = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert plain["methods"]["flat"]["measures"]["deletion_black"]["value"] is None
    assert plain["methods"]["broken"]["degenerate"] == 2


def test_black_images_are_counted(model: Linear, images: Tensor) -> None:
    images[3] = 0
    found = checked(model, images, TRUTH)
    assert found.empty == 1
    assert measure(found, "deletion_black").loc["random", "cells"] == CELLS - 1
    assert measure(found, "positive_cell_ratio").loc["centre", "cells"] == CELLS - 1


def test_tables_hold_methods_and_controls(images: Tensor) -> None:
    torch.manual_seed(0)
    cnn = CNN(resolution=32, widths=(4, 8, 8), hidden=8)
    stable = torch.rand(CELLS)
    found = GradCAM().attribute(cnn, images, Label.ALL, images)
    found = Attribution(found.maps, "pixel", 3.0, {"stability": stable})
    subjects = np.array(["a", "b", "a", "b", "c", "c"])
    predicted = torch.tensor([0, 1] * 3)
    arguments = ({"cam": GradCAM()}, {"cam": found}, images, images, subjects, predicted)
    with torch.inference_mode():  # as in Lightning's hooks
        inside = images + 0
        table = check(cnn, *arguments[:2], inside, *arguments[3:], QUICK)
    methods = ["cam", *CONTROLS]
    assert table.methods["method"].tolist() == methods
    assert table.methods["control"].tolist() == [False] + [True] * 4
    assert table.methods["seconds_per_image"][0] == pytest.approx(0.5)
    assert table.agreement.index.tolist() == methods
    shape = (len(methods), 2 * 2 * (QUICK.steps + 1))
    assert table.curves.groupby("method").size().tolist() == [shape[1]] * shape[0]
    assert sorted(table.randomisation["stage"].unique()) == [1, 2, 3, 4]
    own = measure(table, "stability")
    assert own.index.tolist() == ["cam"]
    assert own.loc["cam", "value"] == pytest.approx(
        np.mean([stable[subjects == who].mean() for who in "abc"])
    )
    again = check(cnn, *arguments, QUICK)
    pd.testing.assert_frame_equal(table.measures, again.measures)
    slow = CheckSettings(**{**vars(QUICK), "batch_size": 5})
    other = check(cnn, *arguments, slow).measures
    pd.testing.assert_frame_equal(table.measures, other, rtol=1e-3, atol=1e-5)


def test_maps_are_turned_toward_what_was_predicted(model: Linear, images: Tensor) -> None:
    table = checked(model, images, TRUTH).cells
    rows = table[table["method"] == "truth"]
    decided = called(model, images)
    assert 0 < int(decided.sum()) < CELLS
    turned = model.truth(images) * signs(decided, CELLS)[:, None, None]
    toward = curves(model, images, 0 * images, turned, decided, steps=QUICK.steps)
    np.testing.assert_allclose(rows["deletion_black"], toward.deletion_auc, atol=1e-6)


def test_nothing_is_explained_again_where_it_is_not_wanted(model: Linear, images: Tensor) -> None:
    asked: list[int] = []

    def counted(classifier: Linear, seen: Tensor) -> Tensor:
        asked.append(len(seen))
        return classifier.truth(seen)

    none = CheckSettings(steps=2, removals=2, sensitivity_cells=0, randomised_cells=0, draws=50)
    found = checked(model, images, Made("counted", counted), settings=none)
    assert asked == [CELLS]
    assert found.randomisation.empty
    assert "sensitivity" not in set(found.measures["measure"])
    assert found.methods["passes_randomisation"].isna().all()
    assert found.summary()["methods"]["counted"]["passes_randomisation"] is None


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ("subjects", "6 images to check"),
        ("predicted", "6 images to check"),
        ("attribution", "each needs its own"),
        ("name", "not among"),
    ],
)
def test_what_does_not_fit_is_refused(
    missing: str, why: str, model: Linear, images: Tensor
) -> None:
    maps = TRUTH.attribute(model, images, Label.ALL, images)
    name = "edges" if missing == "name" else "truth"
    found = {} if missing == "attribution" else {name: maps}
    subjects = np.array(["a"] * (CELLS - (missing == "subjects")))
    predicted = torch.zeros(CELLS - (missing == "predicted"), dtype=torch.long)
    with pytest.raises(ValueError, match=why):
        check(model, {name: TRUTH}, found, images, images, subjects, predicted, QUICK)


def test_settings_come_from_a_config() -> None:
    node = OmegaConf.create({"_target_": "leuk.explain.checks.CheckSettings", "steps": 8})
    assert instantiate(node) == CheckSettings(steps=8)
    with pytest.raises(Exception, match="steps"):
        instantiate(OmegaConf.create({**node, "steps": 0}))
