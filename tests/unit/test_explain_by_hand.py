"""Explainers and checks against values computed by hand, on models with known explanations."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from explained import REVERSED, SIDE, TRUTH, FunctionExplainer, disc, linear, some_cells
from torch import Tensor, nn

from leuk.classifiers.base import Classifier, two_class
from leuk.classifiers.cnn import CNN
from leuk.classifiers.optim import Optim
from leuk.data.decode import LIT
from leuk.data.labels import Label
from leuk.explain import figures as thesis_figures
from leuk.explain import lime, study
from leuk.explain.base import Attribution, Explainer
from leuk.explain.figures import (
    OUTCOMES,
    UNKNOWN,
    Canvas,
    Cohort,
    Drawn,
    Pixels,
    drawn_of,
    limit_of,
    outcome_of,
    sizes_of,
    to_pixels,
    verdict,
)
from leuk.explain.gradcam import GradCAM
from leuk.explain.lime import LIME, PresenceLime
from leuk.explain.perturb import cell_mask, hidden
from leuk.explain.quality.checks import Checked, CheckSettings, SubjectMeans, check
from leuk.explain.quality.faithfulness import Curves, all_controls, removals, sensitivity
from leuk.explain.quality.randomization import cascades, randomized_copies
from leuk.explain.quality.regions import region_shares, regions_of
from leuk.explain.shap import GradientSHAP, PatchSHAP, owen_values
from leuk.explain.study import Study
from leuk.metrics.arrays import Floats

BRIGHTNESS = FunctionExplainer("brightness", lambda _, images: images.mean(dim=1))
"""A signed map that ignores the classifier."""


class TwoChannels(Classifier):
    """Log-odds are a weighted sum of two activations: the red and the green channel."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__(Optim())
        self.layer = nn.Conv2d(3, 2, 1, bias=False)
        self.layer.weight.data = torch.eye(3)[:2, :, None, None].clone()
        self.register_buffer("weights", weights)

    def features(self, images: Tensor) -> Tensor:
        return (self.layer(images) * self.weights).sum(dim=(1, 2, 3))[:, None]

    def logits(self, features: Tensor) -> Tensor:
        return two_class(features)

    @property
    def cam_layer(self) -> nn.Module:
        return self.layer

    def cam_grid(self, activations: Tensor) -> Tensor:
        return activations


def test_gradcam_of_two_channels() -> None:
    # Mean gradients: 2.5 for red, -1 for green.
    model = TwoChannels(torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[-4.0, 0.0], [0.0, 0.0]]]))
    image = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[0.0, 1.0], [0.0, 1.0]], [[9.0] * 2] * 2])
    expected = torch.tensor([[[2.5, -1.0], [0.0, 4.0]]])
    found = GradCAM().attribute(model, image[None], Label.ALL, image[None])
    torch.testing.assert_close(found.maps, expected)
    found = GradCAM().attribute(model, image[None], Label.HEM, image[None])
    torch.testing.assert_close(found.maps, -expected)
    # Each class's own logit is half of the log-odds, healthy first.
    halves = GradCAM().of_classes(model, image[None])
    torch.testing.assert_close(halves, torch.stack([-expected / 2, expected / 2]))


class FourPatches(Classifier):
    """Log-odds are a weighted sum of patch means, the tokens, and a product of two of them."""

    has_patches = True

    def __init__(self, product: float = 0.0) -> None:
        super().__init__(Optim())
        self.register_buffer("weights", torch.tensor([1.0, -2.0, 3.0, 5.0]))
        self.product = product

    def tokens(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.mean(dim=1), 2).flatten(1)[:, :, None]

    def from_tokens(self, tokens: Tensor) -> Tensor:
        values = tokens[:, :, 0]
        logit = values @ self.weights + self.product * values[:, 0] * values[:, 3]
        return two_class(logit[:, None])

    def features(self, images: Tensor) -> Tensor:
        return self.tokens(images)

    def logits(self, features: Tensor) -> Tensor:
        return self.from_tokens(features)

    @property
    def cam_layer(self) -> nn.Module:
        raise NotImplementedError

    def cam_grid(self, activations: Tensor) -> Tensor:
        raise NotImplementedError


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
    found = PatchSHAP(evaluations=500).attribute(FourPatches(10.0), image, target, background)
    # Patches 0 and 3 share the gain of their product: each at the mean of the other.
    first = 1 * 0.4 + 10 * 0.4 * (0.3 + 0.1) / 2
    last = 5 * 0.2 + 10 * 0.2 * (0.5 + 0.1) / 2
    sign = 1 if target == Label.ALL else -1
    expected = [sign * value for value in (first, 0.0, 3 * 0.8, last)]
    assert of_quarters(found.maps) == pytest.approx(expected, abs=1e-5)
    assert found.segments is not None
    assert (found.segments[0, :4, 4:] == -1).all()
    assert (found.segments[0, 4:, :4] == 2).all()


def test_shapley_values_of_additive_and_interacting_parts() -> None:
    def answer(presence: Tensor) -> Tensor:
        a, b, c, d = presence.float().T
        return 3 * a + 2 * b - c + 0 * d + 4 * a * c

    found = owen_values(answer, torch.ones(1, 4, dtype=torch.bool), 500, 0)
    torch.testing.assert_close(found.values, torch.tensor([5, 2, 1, 0]).double())
    # From -1 (c alone) to 8 (all).
    assert found.spread == pytest.approx(9)


def test_seed_orders_blocks_that_matter_equally() -> None:
    # Four pairs of equal value; the evaluations suffice to divide only some of them.
    weights = torch.tensor([3.0, -1.0]).repeat(4)

    def values(seed: int) -> tuple[float, ...]:
        every = torch.ones(1, 8, dtype=torch.bool)
        found = owen_values(lambda there: there.float() @ weights, every, 26, seed)
        return tuple(found.values.tolist())

    assert values(3) == values(3)
    assert len({values(seed) for seed in range(8)}) > 1


def test_additivity_error_is_the_missing_share_of_the_range() -> None:
    background = torch.cat([quarters([0.0] * 4), quarters([1.0] * 4)])
    model = linear_sum()
    image = quarters([1.0] * 4)
    found = GradientSHAP(samples=1).attribute(model, image, Label.ALL, background)
    # Log-odds are the image's sum: 192, and 0 and 192 of the background, whose mean is 96.
    expected = abs(float(found.maps.sum()) - 96) / 192
    assert float(found.checks["additivity_error"]) == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx(0.5)


class LinearSum(TwoChannels):
    """Log-odds are the sum of all pixels."""

    def features(self, images: Tensor) -> Tensor:
        return images.sum(dim=(1, 2, 3))[:, None]


def linear_sum() -> Classifier:
    return LinearSum(torch.ones(2, 1, 1))


def test_lime_is_a_weighted_ridge_in_closed_form() -> None:
    drawn: list[Tensor] = []

    def answer(presence: Tensor) -> Tensor:
        drawn.append(presence)
        a, b, c, d = presence.float().T
        return 2 * a - 3 * b + 0.5 * c * d

    found = PresenceLime(None, seed=4).fit(answer, 4, 200)
    present = torch.cat(drawn).double()
    assert present[0].tolist() == [1, 1, 1, 1]
    # Ribeiro et al. 2016, section 3.4: an exponential kernel of the cosine distance, width 0.25.
    length = present.norm(dim=1)
    cosine = present.sum(dim=1) / (length * 2).clamp(min=1e-12)
    weights = (-((1 - cosine) ** 2) / 0.25**2).exp().sqrt()
    said = answer(present).double() - answer(present[:1]).double()
    share = weights / weights.sum()
    centered, gains = present - share @ present, said - share @ said
    gram = centered.T @ (weights[:, None] * centered) + torch.eye(4, dtype=torch.float64)
    expected = torch.linalg.solve(gram, centered.T @ (weights * gains))
    np.testing.assert_allclose(found.weights, expected, atol=1e-6)
    left = gains - centered @ expected
    r2 = 1 - float(weights @ left**2) / float(weights @ gains**2)
    assert found.r2 == pytest.approx(r2, abs=1e-6)
    assert found.weights[0] > 1 > 0 > -2 > found.weights[1]


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
    assert float(twice.checks["stability"]) < 0.999  # the second seed gives different draws
    assert not torch.equal(twice.maps, other.maps)


def test_stability_keeps_the_sign_of_rank_correlations() -> None:
    up, down, same = np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0]), np.ones(3)
    assert lime._agreement([up, down]) == pytest.approx(-1)
    assert lime._agreement([up, up, down]) == pytest.approx((1 - 1 - 1) / 3)
    assert math.isnan(lime._agreement([up, same]))


def test_mask_is_what_is_brighter_than_the_limit_in_any_channel() -> None:
    image = torch.zeros(1, 3, 1, 4)
    image[0, 0, 0, 1] = LIT / 255
    image[0, 1, 0, 2] = (LIT + 1) / 255
    image[0, 2, 0, 3] = 1.0
    assert cell_mask(image)[0, 0].tolist() == [False, False, True, True]


def test_blur_is_a_gaussian_of_an_eighth_of_the_side() -> None:
    image = torch.zeros(1, 3, 33, 33)
    image[:, :, 16, 16] = 1
    line = torch.arange(33) - 16
    bell = torch.exp(-((line / (33 / 8)) ** 2) / 2)
    bell = torch.where(line.abs() <= 12, bell, 0)
    bell = bell / bell.sum()
    torch.testing.assert_close(hidden(image, "blur")[0, 0], bell[:, None] * bell, atol=1e-4, rtol=0)


def test_areas_under_curves_are_mean_heights() -> None:
    curves = Curves(np.array([0, 0.5, 1]), np.array([[1.0, 0.5, 0.0]]), np.array([[0.0, 1.0, 1.0]]))
    assert curves.deletion_auc.tolist() == [0.5]
    assert curves.insertion_auc.tolist() == [0.75]


def test_removed_squares_are_around_the_cell_with_the_specified_sides() -> None:
    side = 96
    image = torch.zeros(1, 3, side, side)
    image[:, :, 40:50, 60:64] = 0.5  # far from its mirror image
    boxes = removals(LinearSumOf(), image, 0 * image, Label.ALL, samples=300).boxes[0]
    top, bottom, left, right = boxes.T
    rows, columns = (top + bottom) / 2, (left + right) / 2
    assert 40 <= int(rows.min()) <= int(rows.max()) < 50
    assert 60 <= int(columns.min()) <= int(columns.max()) < 64
    sides = bottom - top
    assert torch.equal(sides, right - left)
    assert int(sides.min()) in (12, 14)
    assert int(sides.max()) in (30, 32)


class LinearSumOf(LinearSum):
    """:class:`LinearSum` without arguments."""

    def __init__(self) -> None:
        super().__init__(torch.ones(2, 1, 1))


def test_sensitivity_is_the_largest_relative_change_under_noise_within_the_cell() -> None:
    seen: list[Tensor] = []

    def squared(_: Classifier, images: Tensor) -> Tensor:
        seen.append(images.clone())
        return (images.mean(dim=1)) ** 2

    images, target = some_cells(2), torch.tensor([1, 0])
    found = sensitivity(
        FunctionExplainer("squared", squared),
        linear(),
        images,
        target,
        images,
        samples=5,
        radius=0.05,
    )
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


def test_maps_of_random_copies_have_the_same_target() -> None:
    images, target = some_cells(4), torch.tensor([1, 0, 0, 1])
    model = linear()
    maps = BRIGHTNESS.attribute(model, images, target, images).maps
    found = cascades({"it": BRIGHTNESS}, {"it": maps}, model, images, target, images)["it"]
    np.testing.assert_allclose(found.spearman, 1)
    np.testing.assert_allclose(found.ssim, 1, atol=1e-5)


def test_rank_correlation_with_and_without_sign() -> None:
    images = torch.zeros(1, 3, SIDE, SIDE)
    images[0, :, 16, 10:14] = 0.5
    maps = torch.zeros(2, 1, SIDE, SIDE)
    maps[0, 0, 16, 10:14] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    maps[1, 0, 16, 10:14] = torch.tensor([1.0, 2.0, -40.0, 3.0])
    steps = iter([maps[1]])
    again = FunctionExplainer("again", lambda *_: next(steps))
    found = cascades({"it": again}, {"it": maps[0]}, linear(), images, 1, images, stages=1)["it"]
    # Ranks 1 2 3 4 against 2 3 1 4, or 1 2 4 3 without signs: 1 - 6 sum(d^2) / (n (n^2 - 1)).
    assert found.spearman[-1, 0] == pytest.approx(1 - 6 * 6 / 60)
    assert found.absolute[-1, 0] == pytest.approx(1 - 6 * 2 / 60)
    assert found.similarity[0] == pytest.approx(0.8)


def test_structural_similarity_is_within_the_cell_and_independent_of_scale() -> None:
    images = some_cells(2) * disc(5)
    maps = torch.rand(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    elsewhere = maps.clone()
    elsewhere[:, :4] = 1 - elsewhere[:, :4]  # farther away than a window reaches
    scaled = elsewhere * torch.tensor([1000.0, 0.01])[:, None, None]
    again = FunctionExplainer("again", lambda *_: scaled)
    model = linear()
    found = cascades({"it": again}, {"it": maps}, model, images, 1, images, stages=1)["it"]
    # The scales differ only by the largest pixel, which is close to 1 in both.
    np.testing.assert_allclose(found.ssim[-1], 1, atol=1e-3)


def test_random_layers_start_as_glorot_uniform() -> None:
    torch.manual_seed(0)
    cnn = CNN(resolution=SIDE, widths=(4, 8, 8), hidden=32)
    images = some_cells(2)
    *_, (_, copy) = randomized_copies(cnn, images, images, 2, seed=0)
    layers = [it for it in copy.modules() if isinstance(it, nn.Linear)]
    largest = max(layers, key=lambda it: it.weight.numel()).weight
    bound = math.sqrt(6 / sum(largest.shape))
    assert 0.98 * bound < float(largest.abs().max()) <= bound


def checked(
    model: Classifier, images: Tensor, explainers: Sequence[Explainer], **settings: int
) -> Checked:
    made = CheckSettings(
        **{"steps": 4, "removals": 8, "draws": 50, "sensitivity_images": 0, **settings}
    )
    found = {it.name: it.attribute(model, images, Label.ALL, images) for it in explainers}
    subjects = np.arange(len(images)) // 2
    predicted = model(images).argmax(dim=1)
    return check(
        model, {it.name: it for it in explainers}, found, images, images, subjects, predicted, made
    )


def measured(found: Checked, method: str, measure: str) -> pd.Series:
    table = found.measures.set_index(["method", "measure"])
    return table.loc[(method, measure)]


def test_checks_use_the_predicted_class_and_black_squares() -> None:
    model, images = linear().eval(), some_cells(6)
    found = checked(model, images, [TRUTH, REVERSED, BRIGHTNESS], randomized_images=6)
    # The true map of a linear model predicts the effect of black squares exactly.
    assert measured(found, "truth", "infidelity")["value"] < 1e-6
    assert measured(found, "truth", "infidelity_raw")["value"] < 1e-6
    # A map that ignores the weights does not change, whichever class is predicted.
    assert measured(found, "brightness", "randomized_ssim")["value"] == pytest.approx(1, abs=1e-5)
    gain = measured(found, "reversed", "insertion_minus_deletion_black")
    assert -1 < gain["low"] < gain["value"] < gain["high"] < 0


def test_randomization_measure_comes_from_the_last_stage() -> None:
    torch.manual_seed(0)
    cnn = CNN(resolution=SIDE, widths=(4, 8, 8), hidden=8).eval()
    found = checked(cnn, some_cells(4), [GradCAM()], randomized_images=4, stages=3)
    stages = found.randomization[found.randomization["method"] == "gradcam"]
    last = stages.iloc[-1]
    for name in ("spearman", "absolute", "ssim"):
        value = measured(found, "gradcam", f"randomized_{name}")["value"]
        assert value == pytest.approx(last[name])
        assert value != pytest.approx(stages.iloc[0][name])


def test_default_border_is_a_tenth_of_the_diameter() -> None:
    cell = disc(40, 128)
    images = 0.6 * cell[None, None].float().repeat(1, 3, 1, 1)
    share = regions_of(images, CheckSettings().band).border.sum() / cell.sum()
    assert float(share) == pytest.approx(1 - 0.8**2, abs=0.02)
    shares = region_shares(torch.ones(1, 128, 128), regions_of(images))
    assert shares["positive_border"][0] == pytest.approx(float(share * cell.float().mean()))


def test_controls_are_a_bell_and_an_edge() -> None:
    side = 40
    image = torch.zeros(1, 3, side, side)
    image[:, :, 10:30, 12:28] = 0.5
    controls = all_controls(0)
    maps = {
        name: controls[name].attribute(linear(), image, 1, image).maps[0]
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


@pytest.mark.parametrize(
    ("label", "score", "outcome"),
    [
        (1, 0.5, "true positive"),
        (1, 0.499, "false negative"),
        (0, 0.5, "false positive"),
        (0, 0.499, "true negative"),
    ],
)
def test_outcomes_are_decided_at_a_half(label: int, score: float, outcome: str) -> None:
    assert outcome_of(label, score) == outcome


def test_verdicts_are_about_the_prediction_not_the_class() -> None:
    assert [verdict(outcome) for outcome in (*OUTCOMES, UNKNOWN)] == [
        "right",
        "WRONG",
        "right",
        "WRONG",
        "",
    ]


def cohort() -> Cohort:
    """Predictions that differ from labels, and patients that differ from subjects."""
    table = pd.DataFrame(
        {
            "row": [3, 4, 5],
            "subject": ["a", "b", "c"],
            "patient": ["p", "p", "q"],
            "file": ["1.bmp", "2.bmp", "3.bmp"],
            "label": [1, 1, 0],
            "score": [0.9, 0.2, 0.7],
            "outcome": ["true positive", "false negative", "false positive"],
            "shown": [True, True, False],
        }
    )
    return Cohort(table, some_cells(3), some_cells(2, seed=1))


def test_study_checks_patients_predictions_and_training_images(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[object, ...]] = []
    monkeypatch.setattr(study, "check", lambda *arguments: given.append(arguments))
    own, model = cohort(), linear()
    maps = {"truth": TRUTH.attribute(model, own.images, 1, own.images)}
    one = Study({"truth": TRUTH}, tmp_path, "model", checks=CheckSettings())  # type: ignore[arg-type]
    one._checked({"truth": TRUTH}, maps, model, own)
    ((_, _, _, images, background, subjects, predicted, _),) = given
    assert images is own.images
    assert background is own.background
    assert list(subjects) == ["p", "p", "q"]  # type: ignore[call-overload]
    assert predicted.tolist() == [1, 0, 1]  # type: ignore[attr-defined]


def test_chunks_are_joined_and_means_are_of_finite_values() -> None:
    parts = [
        Attribution(torch.ones(n, 2, 2), "pixel", seconds, {"r2": torch.full((n,), value)})
        for n, seconds, value in ((2, 1.5, 0.5), (1, 2.0, math.nan))
    ]
    joined = study._joined(parts)
    assert joined.seconds == 3.5
    assert study._mean(joined.checks["r2"]) == 0.5
    assert study._mean(torch.tensor([math.nan, math.inf])) is None


def test_pixels_are_drawn_at_their_position() -> None:
    image = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    drawn = to_pixels(image)
    for row, column, channel in ((0, 3, 1), (2, 1, 0), (3, 0, 2)):
        assert drawn[0, row, column, channel] == float(image[0, channel, row, column])


def test_maps_are_drawn_at_their_position() -> None:
    maps = torch.zeros(1, 8, 8)
    maps[0, 1, 6] = 1
    drawn = drawn_of("x", Attribution(maps, "pixel"))
    color = drawn.over(0, np.zeros((8, 8, 3), np.float32))
    darkest = np.unravel_index(color.sum(axis=2).argmin(), (8, 8))
    assert darkest == (1, 6)
    assert limit_of(np.linspace(0, 1, 101, dtype=np.float32)) == pytest.approx(0.99)
    assert sizes_of(np.array([[[-1, 2], [2, 2]]])).tolist() == [[[0, 3], [3, 3]]]


def test_figure_9_draws_the_map_of_each_class_beside_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[tuple[float, float]] = []

    def record(_: Canvas, maps: Drawn, position: int, cell: Pixels, place: Sequence[float]) -> None:
        drawn.append((place[1], float(maps.values[position].mean())))

    monkeypatch.setattr(Canvas, "map", record)
    maps = torch.stack([torch.full((1, SIDE, SIDE), value) for value in (-0.5, 1.0)])[None]
    canvas = thesis_figures._across_layers(cohort(), [0], ["layer"], maps, "title")
    names = {
        text.get_text().split("\n")[1]: text.get_position()[1]
        for text in canvas.axes.texts
        if text.get_text().startswith("evidence for")
    }
    by_row: dict[float, float] = {round(top, 3): value for top, value in drawn}
    assert by_row[round(names["leukemia"] - 0.1, 3)] == 1.0
    assert by_row[round(names["healthy"] - 0.1, 3)] == -0.5


def test_values_of_a_patient_are_averaged_with_their_signs() -> None:
    values: Floats = np.array([-1.0, -3.0, 4.0])
    found = SubjectMeans(np.array(["a", "a", "b"])).of(values)
    assert found.value == pytest.approx(1.0)  # of -2 and 4
    assert (found.images, found.subjects) == (3, 2)
