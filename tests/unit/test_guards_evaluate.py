"""Image quality, copies, calibration and baselines, by hand-computed values."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from leuk.metrics.baselines import (
    BASELINES,
    MEASURES,
    Morphology,
    MorphologyExtractor,
    measure_each,
    morphology_distance,
    two_sample_auroc,
    usefulness,
)
from leuk.metrics.bootstrap import Sample, per_subject
from leuk.metrics.calibration import apply_temperature, fit_temperature, reliability
from leuk.metrics.cost import measure_cost
from leuk.metrics.novelty import diversity, nearest_similarity
from leuk.metrics.synthetic.distances import (
    Metrics,
    class_score,
    density_coverage,
    distances,
    equal_rows,
    kernel_distance,
    precision_recall,
)
from leuk.metrics.synthetic.features import Features, Network
from leuk.metrics.synthetic.memorization import (
    Neighbors,
    closest_pairs,
    compare,
    nearest_in_features,
    nearest_in_pixels,
)
from leuk.metrics.synthetic.quality import RealImages, assess_quality, collapse


def on_line(*positions: float) -> Tensor:
    return torch.tensor([[place] for place in positions], dtype=torch.float64)


def features(rows: npt.NDArray[np.float64], name: str = "points") -> Features:
    return Features(name, False, rows.astype(np.float32))


def neighbors(*apart: float) -> Neighbors:
    return Neighbors(np.arange(len(apart)), np.array(apart))


# Distances


def test_precision_and_recall_reach_to_the_third_neighbor() -> None:
    """The reach of the last real image is 3, to 12; that of the first synthetic is 9.4, to 2.2."""
    real = on_line(*range(10))
    synthetic = on_line(11.6, 12.5, *range(20, 28))
    found = precision_recall(synthetic, real)
    assert found == {"precision": pytest.approx(0.1), "recall": pytest.approx(0.7)}


def test_density_and_coverage_reach_to_the_fifth_neighbor() -> None:
    """13.5 is within the reach of image 9 (5), and 9.5 within those of 9, 8 (4) and 7 (3)."""
    real = on_line(*range(10))
    synthetic = on_line(13.5, 9.5, *[100.0] * 8)
    found = density_coverage(synthetic, real)
    assert found == {"density": pytest.approx(4 / 10 / 5), "coverage": pytest.approx(0.3)}


def test_kernel_distance_by_hand() -> None:
    """Cubic kernel (x y + 1)^3 of the sets {0, 1} and {0, 2}; unbiased: 1 + 1 - 2 * 31 / 4."""
    found, _ = kernel_distance(on_line(0, 1), on_line(0, 2), seed=0)
    of_pairs = ((0 * 0 + 1) ** 3 + (0 * 2 + 1) ** 3 + (1 * 0 + 1) ** 3 + (1 * 2 + 1) ** 3) / 4
    assert found == pytest.approx(1 + 1 - 2 * of_pairs)


def test_spread_of_the_kernel_distance_is_that_of_halves() -> None:
    """Halves of ten images hold five of each set; the spread is that of fifty such halves."""
    generator = np.random.default_rng(1)
    x, y = (generator.normal(size=(10, 2)) for _ in range(2))

    def unbiased(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
        n = len(a)
        within = [((g @ g.T / 2 + 1) ** 3) for g in (a, b)]
        own = sum((k.sum() - np.trace(k)) / (n * (n - 1)) for k in within)
        return float(own - 2 * ((a @ b.T / 2 + 1) ** 3).mean())

    draws = np.random.default_rng(7)
    halves = []
    for _ in range(50):
        i, j = (draws.choice(10, 5, replace=False) for _ in range(2))
        halves.append(unbiased(x[i], y[j]))
    found = kernel_distance(torch.from_numpy(x), torch.from_numpy(y), seed=7)
    assert found == pytest.approx((unbiased(x, y), np.std(halves)))


def test_class_score_of_two_certain_classes_is_two() -> None:
    """In a single split: two splits by order would hold one class each and score 1."""
    logits = torch.tensor([[50.0, 0.0]] * 10 + [[0.0, 50.0]] * 10)
    assert class_score(logits) == pytest.approx(2, rel=1e-4)


def test_sets_are_cut_to_the_smallest_at_random() -> None:
    large, small = equal_rows([1000, 12], seed=0)
    assert len(large) == len(small) == 12
    assert sorted(small.tolist()) == list(range(12))
    assert len(set(large.tolist())) == 12
    assert large.max() > 500
    again, _ = equal_rows([1000, 12], seed=1)
    assert again.tolist() != large.tolist()


def test_only_inception_metrics_are_called_fid_and_kid() -> None:
    rows = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    for inception, name in ((True, "fid"), (False, "frechet_distance")):
        one = Features("x", inception, rows, rows)
        assert name in distances(one, one, 0)


# Copies


def test_copies_are_compared_with_held_out_images() -> None:
    """Held-out distances 1 to 100: the first percentile is 1.5, the median 50.5."""
    held_out = neighbors(*range(1, 101))
    found = compare(neighbors(1, 1, 1.45, 200), held_out, neighbors(1.4, 60, 70))
    assert found == {
        "median_ratio": pytest.approx(1.225 / 50.5),
        "closer_share": 0.75,
        "train_median_ratio": pytest.approx(60 / 50.5),
        "train_closer_share": pytest.approx(1 / 3),
    }


def test_held_out_patients_weigh_the_same() -> None:
    """A patient with 99 images at distance 1 and one with a single image at 5: half the weight is
    of each, so that the median lies where a quarter and three quarters meet, between 99 and 100
    images: (0.5 - 98.5 / 198) / (0.75 - 98.5 / 198) of the way from 1 to 5."""
    held_out = neighbors(*[1] * 99, 5)
    patients = np.array([*"a" * 99, "b"])
    way = (0.5 - 98.5 / 198) / (0.75 - 98.5 / 198)
    found = compare(neighbors(2, 2), held_out, neighbors(2), patients)
    assert found["median_ratio"] == pytest.approx(2 / (1 + 4 * way))
    # A patient with all but one of the images does not set the limit alone.
    near = neighbors(0.1, *[3] * 99)
    whose = np.array(["b", *"a" * 99])
    assert compare(neighbors(2, 2), near, neighbors(2))["closer_share"] == 0
    assert compare(neighbors(0.05, 2), near, neighbors(2), whose)["closer_share"] == 0.5


def test_distances_in_pixels_are_gray_levels() -> None:
    black, gray = (np.full((1, 32, 32, 3), value, np.uint8) for value in (0, 10))
    assert nearest_in_pixels(gray, black).distances == pytest.approx([10])


@pytest.mark.parametrize("angle", [15, 30, 45, 105, 330])
@pytest.mark.parametrize("mirrored", [False, True])
def test_copy_rotated_by_any_step_is_found(angle: int, mirrored: bool) -> None:
    train = np.zeros((2, 32, 32, 3), np.uint8)
    train[0, 6:12, 6:22] = (200, 40, 90)
    train[0, 18:21, 14:18] = 255
    train[1, 4:28, 14:18] = 120
    original = torch.from_numpy(train[:1]).permute(0, 3, 1, 2).float()
    turned = rotate(original.flip(3) if mirrored else original, angle, InterpolationMode.BILINEAR)
    copy = turned.round().byte().permute(0, 2, 3, 1).numpy()
    found = nearest_in_pixels(copy, train)
    assert found.rows.tolist() == [0]
    assert found.distances[0] < 1


def test_image_is_its_own_neighbor_only_if_allowed() -> None:
    rows = features(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]))
    assert nearest_in_features(rows, rows).distances.tolist() == [0, 0, 0]
    others = nearest_in_features(rows, rows, itself=False)
    assert others.rows.tolist() == [2, 2, 0]
    assert others.distances == pytest.approx([1, math.sqrt(18), 1])


def test_closest_pairs_are_listed_first() -> None:
    synthetic = Neighbors(np.array([5, 6, 7]), np.array([3.0, 1.0, 2.0]))
    assert closest_pairs(synthetic, 2) == [(1, 6, 1.0), (2, 7, 2.0)]


# Collapse

SOUND: Metrics = {"empty": 0.0, "spread": 11.0, "distinct": 1, "coverage": 0.8, "diversity": 0.4}


@pytest.mark.parametrize(
    ("changed", "warned"),
    [
        ({"empty": 0.05}, 0),
        ({"empty": 0.06}, 1),
        ({"spread": 0.9}, 1),
        ({"distinct": 0.985}, 1),
        ({"distinct": 0.995}, 0),
        ({"coverage": 0.39}, 1),
        ({"coverage": 0.41}, 0),
        ({"diversity": 0.19}, 1),
    ],
)
def test_limits_of_collapse(changed: Metrics, warned: int) -> None:
    assert len(collapse({**SOUND, **changed}, SOUND)) == warned


# Probes


def probe() -> object:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))


def test_two_sample_test_is_five_fold_cross_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fold tests a fifth of both sets with the strongly penalized probe."""
    asked: list[Any] = []

    def predict(model: Any, rows: Any, labels: Any, cv: Any, method: str) -> Any:
        asked.append((model, labels, [test for _, test in cv.split(rows, labels)]))
        return np.repeat([0.3, 0.1], 40)  # higher for the synthetic set

    monkeypatch.setattr("leuk.metrics.baselines.cross_val_predict", predict)
    generator = np.random.default_rng(3)
    synthetic, real = (features(generator.normal(at, 1, (40, 12))) for at in (0.25, 0))
    assert two_sample_auroc(synthetic, real, 4) == 1
    ((model, labels, folds),) = asked
    assert [len(test) for test in folds] == [16] * 5
    assert all(labels[test].sum() == 8 for test in folds)
    assert sorted(np.concatenate(folds).tolist()) == list(range(80))
    assert model[-1].C == 0.01
    assert isinstance(model[0], StandardScaler)


def test_usefulness_is_of_a_probe_trained_on_the_first_pair() -> None:
    generator = np.random.default_rng(5)
    sets = [features(generator.normal(at, 1, (30, 20))) for at in (0.3, 0, 0.3, 0)]
    rows = [np.concatenate([a.pooled, b.pooled]) for a, b in (sets[:2], sets[2:])]
    labels = np.repeat([1, 0], 30)
    model = probe().fit(rows[0].astype(np.float64), labels)  # type: ignore[attr-defined]
    expected = roc_auc_score(labels, model.decision_function(rows[1].astype(np.float64)))
    assert usefulness(*sets) == pytest.approx(expected)


class Ident(Network):
    """Mean color of an image and its standard deviation."""

    def __init__(self) -> None:
        def found(images: Tensor) -> Tensor:
            flat = images.flatten(2)
            return torch.cat([flat.mean(dim=2), flat.std(dim=2)], dim=1)

        super().__init__("ident", found)


def flat_cells(seed: int, bright: int, count: int = 14) -> npt.NDArray[np.uint8]:
    generator = np.random.default_rng(seed)
    images = np.zeros((count, 32, 32, 3), np.uint8)
    for image in images:
        side = generator.integers(8, 14)
        image[6 : 6 + side, 8 : 8 + side] = generator.normal(bright, 8, (side, side, 3)).clip(20)
    return images


# Calibration


def test_temperature_of_two_by_hand() -> None:
    """Of scores 0.9 three quarters are leukemic: log 9 / T = log 3."""
    scores = np.repeat([0.9, 0.9, 0.1, 0.1], [75, 25, 75, 25])
    labels = np.repeat([1, 0, 0, 1], [75, 25, 75, 25])
    assert fit_temperature(scores, labels) == pytest.approx(2, rel=1e-4)
    assert apply_temperature(np.array([0.9, 0.1, 0.5]), 2).tolist() == pytest.approx(
        [0.75, 0.25, 0.5]
    )


def test_temperature_is_bounded() -> None:
    sure = np.repeat([0.6, 0.4], 20), np.repeat([1, 0], 20)
    assert fit_temperature(*sure) == pytest.approx(0.05, rel=1e-3)
    assert fit_temperature(sure[0], 1 - sure[1]) == pytest.approx(20, rel=1e-3)


def test_reliability_by_hand() -> None:
    """Fifteen bins of a fifteenth each; 0.3 is in the fifth, where one of two is leukemic."""
    found = reliability(np.array([0.3, 0.31, 0.99, 0.02]), np.array([1, 0, 1, 0]))
    assert found["low"].tolist() == pytest.approx([0, 4 / 15, 14 / 15])
    assert found["observed"].tolist() == [0, 0.5, 1]
    assert found["score"].tolist() == pytest.approx([0.02, 0.305, 0.99])
    assert found["count"].tolist() == [1, 2, 1]
    edge = reliability(np.array([0.2, 0.2]), np.array([1, 0]), bins=5)
    assert edge["low"].tolist() == pytest.approx([0.2])


# Baselines


def table_of(count: int = 60) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(count, len(MEASURES))) * 0.05 + 0.2
    labels = (values[:, 0] + generator.normal(0, 0.03, count) > 0.19).astype(np.int64)
    return pd.DataFrame(values, columns=list(MEASURES)), labels


def test_majority_baseline_is_the_training_share() -> None:
    table, _ = table_of(8)
    score = BASELINES["majority"].fitted(table, np.array([1, 1, 1, 0, 1, 1, 1, 0]))
    assert score(table).tolist() == [0.75] * 8


@pytest.mark.parametrize(("name", "columns"), [("area", ["area"]), ("morphology", [*MEASURES])])
def test_baseline_is_a_standardized_logistic_regression(name: str, columns: list[str]) -> None:
    table, labels = table_of()
    train, test = table[:40], table[40:]
    values = train[columns].to_numpy()
    mean, std = values.mean(axis=0), values.std(axis=0)
    model = LogisticRegression(max_iter=1000).fit((values - mean) / std, labels[:40])
    expected = model.predict_proba((test[columns].to_numpy() - mean) / std)[:, 1]
    found = BASELINES[name].fitted(train, labels[:40])(test)
    assert found.tolist() == pytest.approx(expected.tolist())
    assert roc_auc_score(labels[40:], found) > 0.7


# Morphology


def rectangle(high: int, wide: int, color: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    image = np.zeros((1, 40, 40, 3), np.uint8)
    image[0, 5 : 5 + high, 5 : 5 + wide] = color
    return image


def test_measures_of_a_rectangle_by_hand() -> None:
    """Pixel centers of 8 by 16 vary by 63 / 12 and 255 / 12; two specks of 2 and 4 pixels."""
    image = rectangle(8, 16, (200, 100, 50))
    image[0, 30, 30:32] = 255
    image[0, 34:36, 34:36] = 255
    found = dict(zip(MEASURES, measure_each(image)[0], strict=True))
    assert found["area"] == pytest.approx(128 / 1600)
    assert found["eccentricity"] == pytest.approx(math.sqrt(1 - 63 / 255))
    assert found["solidity"] == pytest.approx(1)
    assert [found[name] for name in ("red", "green", "blue")] == pytest.approx([200, 100, 50])
    assert found["texture"] == pytest.approx(0)
    assert found["specks"] == pytest.approx(6 / 134)


def test_texture_is_measured_two_pixels_from_the_border() -> None:
    """One pixel brighter by 90 (gray by 30) inside: Laplacian -4, and 1 at its four neighbors."""
    image = rectangle(12, 12, (60, 60, 60))
    image[0, 10, 10] = 150
    found = measure_each(image)[0][MEASURES.index("texture")]
    gray = np.zeros(8 * 8)
    gray[:5] = [-4 * 90, 90, 90, 90, 90]
    assert found == pytest.approx(gray.std())
    on_rim = rectangle(12, 12, (60, 60, 60))
    on_rim[0, 6, 10] = 150  # one pixel inside the edge
    on_edge = measure_each(on_rim)[0][MEASURES.index("texture")]
    # Of its Laplacian only the neighbor below reaches the core.
    below = np.zeros(8 * 8)
    below[0] = 90
    assert on_edge == pytest.approx(below.std())


def test_morphology_distances_are_in_standard_deviations_of_the_real_set() -> None:
    real = Morphology(np.tile(np.array([[0.0], [4.0]]), (1, len(MEASURES))), 0)
    synthetic = Morphology(np.full((2, len(MEASURES)), 6.0), 0)
    found = morphology_distance(synthetic, real)
    # Moved by 4 on average, of a standard deviation of 2.
    assert found["mean"] == pytest.approx(2)


def test_features_are_standardized_by_the_given_images() -> None:
    train, other = flat_cells(0, 100, 12), flat_cells(1, 200, 12)
    extractor = MorphologyExtractor(train)
    own, theirs = extractor(train).pooled, extractor(other).pooled
    assert own.mean(axis=0).tolist() == pytest.approx([0] * len(MEASURES), abs=1e-5)
    color = MEASURES.index("red")
    assert own[:, color].std() == pytest.approx(1, abs=1e-4) or own[:, color].std() < 1
    assert theirs[:, color].mean() > 10


# Cost and subjects


class Fixed(nn.Module):
    """Linear map of 3 * 4 * 4 numbers to 2, with frozen weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 2)
        self.still = nn.Parameter(torch.zeros(7), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.linear(images.flatten(1))
        return found


def test_cost_of_a_linear_map_by_hand() -> None:
    model = Fixed()
    found = measure_cost(model, 4, "cpu", batch=3)
    assert found["parameters"] == 48 * 2 + 2 + 7
    assert found["trainable_parameters"] == 48 * 2 + 2
    assert found["flops"] == 2 * 48 * 2
    twice = measure_cost(
        model, 4, "cpu", batch=3, predict=lambda images: model(images) + model(images)
    )
    assert twice["flops"] == 2 * 2 * 48 * 2


class Attends(nn.Module):
    """Self-attention of two heads over the image as 6 tokens of 8 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        tokens = images.view(-1, 6, 8)
        found: Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return found


def test_flops_of_attention_are_counted() -> None:
    """Projections to queries, keys and values, two products per head, and the last projection."""
    expected = 2 * 6 * 8 * 24 + 2 * (2 * 2 * 6 * 6 * 4) + 2 * 6 * 8 * 8
    assert measure_cost(Attends(), 4, "cpu", batch=2)["flops"] == expected


def test_latencies_are_milliseconds_per_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leuk.metrics.cost._seconds", lambda work, device: 0.012)
    found = measure_cost(Fixed(), 4, "cpu", batch=3)
    assert found["latency_ms"] == pytest.approx(12)
    assert found["batch_latency_ms"] == pytest.approx(4)


def test_per_subject_results_by_hand() -> None:
    sample = Sample(
        np.array([0.5, 0.9, 0.2, 0.4]), np.array([1, 1, 1, 0]), np.array(["a", "a", "b", "a"])
    )
    found = per_subject(sample, 0.5)
    assert found.to_numpy().tolist() == [
        ["a", 0, 1, 1.0, 0.4],
        ["a", 1, 2, 1.0, pytest.approx(0.7)],
        ["b", 1, 1, 0.0, 0.2],
    ]


# Similarity


def test_each_image_is_compared_with_its_nearest() -> None:
    synthetic, real = flat_cells(0, 100, 3), flat_cells(0, 100, 3)[[2, 0, 1]]
    found = nearest_similarity(synthetic, real, np.array([1, 2, 0]))
    assert found == {"ssim": pytest.approx(1), "ssim_mask": pytest.approx(1)}
    wrong = nearest_similarity(synthetic, real, np.array([0, 1, 2]))
    assert (wrong["ssim"] or 0) < 0.999


def test_black_pairs_have_no_similarity_inside_a_cell() -> None:
    black, cell = np.zeros((2, 32, 32, 3), np.uint8), flat_cells(0, 150, 2)
    assert nearest_similarity(black, black, np.arange(2))["ssim_mask"] is None
    half = nearest_similarity(
        np.stack([black[0], cell[0]]), np.stack([black[0], cell[0]]), np.arange(2)
    )
    assert half["ssim_mask"] == pytest.approx(1)
    # Inside the union of both masks: no similarity where an image is black.
    apart = nearest_similarity(cell[:1], black[:1], np.arange(1))
    assert apart["ssim_mask"] is not None
    assert (apart["ssim"] or 0) > 2 * apart["ssim_mask"]


def test_diversity_of_two_images_is_that_of_the_pair() -> None:
    same = flat_cells(0, 100, 1).repeat(5, 0)
    assert diversity(same, 0) == pytest.approx(0, abs=1e-5)
    two = np.stack([flat_cells(0, 100, 1)[0], flat_cells(1, 220, 1)[0]])
    # An image is never paired with itself, so any seed gives the same pair.
    assert diversity(two, 0) == pytest.approx(diversity(two, 1), abs=1e-5)
    assert diversity(two, 0) > 0.01


# The table of image quality


def test_each_row_of_the_table_is_of_its_own_images() -> None:
    """All sets differ, so rows cannot be confused."""
    real = RealImages(
        train=flat_cells(0, 100),
        train_other=flat_cells(1, 180),
        reference=flat_cells(2, 105),
        reference_other=flat_cells(3, 230),
    )
    synthetic = flat_cells(4, 100)
    rows = assess_quality(synthetic, real, Ident(), seed=0).rows
    assert list(rows) == ["synthetic", "real", "other_class", "black", "mean_image"]
    sets = {"synthetic": synthetic, "real": real.train, "other_class": real.reference_other}
    reference = measure_each(real.reference)
    for name, images in sets.items():
        assert rows[name]["spread"] == pytest.approx(images.std(axis=0).mean(), rel=1e-5)
        expected = morphology_distance(
            Morphology.of(measure_each(images)), Morphology.of(reference)
        )
        assert rows[name]["morphology"] == pytest.approx(expected["mean"])
    assert rows["black"]["empty"] == 1
    assert rows["black"]["diversity"] == pytest.approx(0, abs=1e-5)
    assert (rows["synthetic"]["diversity"] or 0) > 0.05


def test_copied_training_set_is_warned_of_and_new_images_are_not() -> None:
    real = RealImages(
        flat_cells(0, 100), flat_cells(1, 180), flat_cells(2, 104), flat_cells(3, 190)
    )
    copied = assess_quality(real.train.copy(), real, Ident(), seed=0)
    for figures in copied.memorization.values():
        assert figures["closer_share"] == 1
        assert (figures["train_closer_share"] or 0) < 1
    assert any("copies" in text for text in copied.warnings)
    assert copied.closest[0][2] == 0


def test_usefulness_in_the_table_of_synthetic_and_real_images() -> None:
    """Synthetic images of the wrong brightness mislead the probe, real images do not."""
    real = RealImages(
        flat_cells(0, 100), flat_cells(1, 180), flat_cells(2, 100), flat_cells(3, 180)
    )
    found = assess_quality(flat_cells(5, 180), real, Ident(), 0, synthetic_other=flat_cells(6, 100))
    assert (found.usefulness["synthetic"] or 0) < 0.2 < 0.8 < (found.usefulness["real"] or 0)


def test_usefulness_is_measured_on_held_out_images_of_both_classes() -> None:
    """Held-out images are the other way round: bright where training images are dark."""
    real = RealImages(
        flat_cells(0, 100), flat_cells(1, 180), flat_cells(2, 230), flat_cells(3, 170)
    )
    found = assess_quality(flat_cells(5, 100), real, Ident(), 0, synthetic_other=flat_cells(6, 180))
    assert (found.usefulness["real"] or 0) < 0.2
    assert (found.usefulness["synthetic"] or 0) < 0.2
