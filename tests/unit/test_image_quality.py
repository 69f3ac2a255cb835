"""Quality metrics on drawn images, with random projections for features."""

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from drawn_images import Images, cells
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from leuk.metrics.baselines import (
    measure_each,
    morphology_distance,
    two_sample_auroc,
    usefulness,
)
from leuk.metrics.synthetic import distances as similarity
from leuk.metrics.synthetic.distances import (
    Metrics,
    class_score,
    density_coverage,
    distances,
    diversity,
    equal_rows,
    frechet_distance,
    kernel_distance,
    nearest_similarity,
    precision_recall,
)
from leuk.metrics.synthetic.features import Features, Network
from leuk.metrics.synthetic.memorization import (
    Neighbors,
    closest_pairs,
    compare,
    copied,
    nearest_in_features,
    nearest_in_pixels,
)
from leuk.metrics.synthetic.quality import Quality, RealImages, assess_quality, collapse

N = 60


class Projection(Network):
    """Random directions of the shrunk image."""

    def __init__(self) -> None:
        directions = torch.randn(8 * 8 * 3, 24, generator=torch.Generator().manual_seed(0))
        self.images = 0

        def features(images: Tensor) -> Tensor:
            self.images += len(images)
            return F.adaptive_avg_pool2d(images, 8).flatten(1) @ directions

        super().__init__("projection", features, lambda images: features(images)[:, :5])


def points(rows: npt.NDArray[np.float64], inception: bool = False) -> Features:
    return Features("points", inception, rows.astype(np.float32), rows[:, :2].astype(np.float32))


def cloud(n: int, seed: int, at: float = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(at, 1, (n, 6))


def value(figure: float | None) -> float:
    assert figure is not None
    return figure


def on_line(*positions: float) -> Tensor:
    return torch.tensor([[place] for place in positions], dtype=torch.float64)


def features(rows: npt.NDArray[np.float64], name: str = "points") -> Features:
    return Features(name, False, rows.astype(np.float32))


def neighbors(*apart: float) -> Neighbors:
    return Neighbors(np.arange(len(apart)), np.array(apart))


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


# Distances between features


def test_only_inception_distances_are_called_fid() -> None:
    fid = {"fid", "kid", "kid_spread", "inception_score"}
    one, other = cloud(20, 0), cloud(20, 1)
    assert fid <= set(distances(points(one, inception=True), points(other, inception=True), 0))
    found = set(distances(points(one), points(other), 0))
    assert not {name for name in found if "fid" in name or "kid" in name or "inception" in name}
    assert {"frechet_distance", "kernel_distance", "class_score"} <= found


def test_frechet_distance_of_known_gaussians() -> None:
    synthetic, real = (torch.from_numpy(cloud(20_000, seed, at)) for seed, at in ((0, 2), (1, 0)))
    # Means 2 apart in each of 6 directions; standard deviations 3 and 1.
    assert frechet_distance(synthetic * 3 - 4, real) == pytest.approx(6 * 4 + 6 * 4, rel=0.02)


PATIENTS = np.repeat(np.arange(10), 12)


def of_patients(seed: int, between: float = 1.0) -> npt.NDArray[np.float64]:
    """Features of 12 images each of 10 patients that differ from each other."""
    shift = np.random.default_rng([seed, 1]).normal(0, between, (10, 6))[PATIENTS]
    return cloud(120, seed) + shift


def test_spread_is_that_of_new_patients() -> None:
    """The spread over halves of images would be less than half of it."""
    found, spreads, of_images = [], [], []
    for seed in range(25):
        synthetic, real = (torch.from_numpy(of_patients(2 * seed + j) + 2 * j) for j in (0, 1))
        distance, spread = kernel_distance(synthetic, real, 0, PATIENTS, PATIENTS)
        found.append(distance)
        spreads.append(value(spread))
        of_images.append(value(kernel_distance(synthetic, real, 0)[1]))
    assert np.mean(spreads) == pytest.approx(np.std(found), rel=0.5)
    assert np.mean(of_images) < 0.5 * np.std(found)


def test_few_patients_have_no_spread() -> None:
    synthetic, real = (torch.from_numpy(cloud(120, seed)) for seed in (0, 1))
    distance, _ = kernel_distance(synthetic, real, 0)
    two = PATIENTS % 2
    assert kernel_distance(synthetic, real, 0, None, two) == (distance, None)
    assert kernel_distance(synthetic, real, 0, two, None) == (distance, None)
    # Ten patients are fewer than three effective patients if one has nearly all images.
    uneven = np.where(np.arange(120) < 110, 0, PATIENTS)
    uneven[110:] = np.arange(10)
    assert kernel_distance(synthetic, real, 0, None, uneven)[1] is None
    assert kernel_distance(synthetic, real, 0, None, PATIENTS)[1] is not None


@pytest.mark.parametrize(
    ("images", "patients", "complaint"),
    [
        (3, None, "synthetic=3 images of 3 patients: no half of the patients has two images"),
        (1, None, "synthetic=1 images: a distance needs pairs"),
    ],
)
def test_sets_without_a_half_of_two_images_are_refused(
    images: int, patients: npt.NDArray[np.int64] | None, complaint: str
) -> None:
    """No half of three independent images has a pair: the search for halves would never end."""
    few, many = torch.from_numpy(cloud(images, 0)), torch.from_numpy(cloud(12, 1))
    with pytest.raises(ValueError, match=complaint):
        kernel_distance(few, many, 0, patients)
    if images > 1:
        with pytest.raises(ValueError, match=complaint.replace("synthetic", "real")):
            kernel_distance(many, few, 0, None, patients)


def test_sets_must_share_size_and_extractor() -> None:
    with pytest.raises(ValueError, match=r"same size, found 30 and 20 images.*equal_rows"):
        distances(points(cloud(30, 0)), points(cloud(20, 1)), 0)
    with pytest.raises(ValueError, match="different extractors: points and other"):
        distances(points(cloud(20, 0)), Features("other", False, points(cloud(20, 0)).pooled), 0)
    with pytest.raises(ValueError, match="at least 10 images"):
        distances(points(cloud(9, 0)), points(cloud(9, 1)), 0)
    with pytest.raises(ValueError, match="not finite"):
        distances(points(cloud(20, 0) * np.nan), points(cloud(20, 1)), 0)


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


# Memorization


PLANTED: dict[str, Callable[[Images], Images]] = {
    "identical": lambda images: images,
    "one gray level brighter": lambda images: np.minimum(images, 254) + np.uint8(1),
    "mirrored": lambda images: images[:, :, ::-1],
    "upside down": lambda images: images[:, ::-1],
    "turned": lambda images: np.rot90(images, 1, (1, 2)),
    "moved by a pixel": lambda images: np.roll(images, 1, axis=1),
    "moved": lambda images: np.roll(images, (-2, 1), axis=(1, 2)),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_single_copy_is_found(name: str) -> None:
    train, synthetic = cells(N, 0, side=64), cells(100, 1, side=64)
    assert not copied(synthetic, train).any()
    synthetic[17] = PLANTED[name](train[5:6])[0]
    assert np.flatnonzero(copied(synthetic, train)).tolist() == [17]


def test_closest_pairs_come_first() -> None:
    train = cells(N, 0)
    synthetic = cells(N, 1)
    synthetic[[7, 3]] = train[[20, 50]]
    pairs = closest_pairs(nearest_in_pixels(synthetic, train), 2)
    assert {pair[:2] for pair in pairs} == {(7, 20), (3, 50)}


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
    assert compare(neighbors(1), neighbors(0, 0), neighbors(1))["median_ratio"] is None


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


# Probes


def test_probe_does_not_recognize_patients() -> None:
    """Two sets of real images of the same population: the probe knows the patients, not the set."""
    known, images = [], []
    for seed in range(5):
        one, other = points(of_patients(2 * seed, 3)), points(of_patients(2 * seed + 1, 3))
        known.append(value(two_sample_auroc(one, other, 0, PATIENTS, PATIENTS)))
        images.append(value(two_sample_auroc(one, other, 0)))
    assert np.mean(known) < 0.6
    assert np.mean(images) > np.mean(known) + 0.15


def test_a_set_of_one_patient_has_no_probe() -> None:
    one = points(cloud(20, 0)), points(cloud(20, 1))
    assert two_sample_auroc(*one, 0, np.zeros(20), None) is None
    assert two_sample_auroc(*one, 0, None, np.zeros(20)) is None
    assert two_sample_auroc(*one, 0, None, np.arange(20) // 10) is not None


def probe() -> object:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))


def test_two_sample_test_is_five_fold_cross_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fold tests a fifth of both sets with the strongly penalized probe."""
    calls: list[Any] = []

    def predict(model: Any, rows: Any, labels: Any, cv: Any, method: str) -> Any:
        calls.append((model, labels, [test for _, test in cv.split(rows, labels)]))
        return np.repeat([0.3, 0.1], 40)  # higher for the synthetic set

    monkeypatch.setattr("leuk.metrics.baselines.cross_val_predict", predict)
    generator = np.random.default_rng(3)
    synthetic, real = (features(generator.normal(at, 1, (40, 12))) for at in (0.25, 0))
    assert two_sample_auroc(synthetic, real, 4) == 1
    ((model, labels, folds),) = calls
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


# Structural similarity


@pytest.mark.parametrize("side", [16, 32, 64, 128, 224])
def test_diversity_at_every_resolution(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "_PAIRS", 8)
    image = cells(1, 0, side / 4, side)
    assert diversity(image.repeat(4, 0), 0) == pytest.approx(0, abs=1e-6)
    assert 0 < diversity(cells(4, 0, side / 4, side), 0) < 1


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


# The whole table


@pytest.fixture(scope="module")
def real() -> RealImages:
    return RealImages(cells(N, 0), cells(N, 1, 11), cells(N + 20, 2), cells(N + 10, 3, 11))


def assess(synthetic: Images, real: RealImages) -> Quality:
    return assess_quality(synthetic, real, Projection(), seed=0)


@pytest.fixture(scope="module")
def quality(real: RealImages) -> Quality:
    """Quality of good images."""
    return assess(cells(N + 5, 9), real)


def test_good_images_are_close_to_real_images(quality: Quality) -> None:
    assert quality.n == N
    assert list(quality.rows) == ["synthetic", "real", "other_class", "black", "mean_image"]
    assert quality.warnings == []
    rows = {name: value(figures["frechet_distance"]) for name, figures in quality.rows.items()}
    assert rows["synthetic"] < 2 * rows["real"] < rows["other_class"] < rows["black"]
    assert abs(value(quality.rows["synthetic"]["two_sample_auroc"]) - 0.5) < 0.2
    assert value(quality.rows["other_class"]["two_sample_auroc"]) > 0.8
    assert value(quality.usefulness["synthetic"]) > 0.8
    json.dumps(dataclasses.asdict(quality), allow_nan=False)


def test_patients_of_real_images_affect_every_metric(real: RealImages) -> None:
    names = ("train", "train_other", "reference", "reference_other")
    few = {name: np.arange(len(images)) % 2 for name, images in real.sets.items()}
    many = {name: np.arange(len(images)) % 10 for name, images in real.sets.items()}
    assert tuple(real.sets) == names
    synthetic = cells(N, 9)
    by_few, by_many = (
        assess(synthetic, dataclasses.replace(real, patients=patients)) for patients in (few, many)
    )
    assert set(by_few.patients) == set(names)
    assert by_few.patients["reference"] == pytest.approx(2, abs=0.1)
    for row in ("synthetic", "real", "other_class"):
        assert by_few.rows[row]["kernel_distance_spread"] is None
        assert by_many.rows[row]["kernel_distance_spread"] is not None
        assert by_few.rows[row]["kernel_distance"] == by_many.rows[row]["kernel_distance"]
    alone = assess(synthetic, dataclasses.replace(real, patients={"train": np.zeros(N)})).rows
    assert alone["real"]["two_sample_auroc"] is None
    assert alone["synthetic"]["two_sample_auroc"] is not None
    json.dumps(dataclasses.asdict(by_few), allow_nan=False)


def test_quality_is_reproducible_and_depends_on_the_seed(
    quality: Quality, real: RealImages
) -> None:
    assert assess(cells(N + 5, 9), real) == quality
    assert assess_quality(cells(N + 5, 9), real, Projection(), seed=1).rows != quality.rows


SICK = {
    "black": (np.zeros((N, 32, 32, 3), np.uint8), ["are black", "all alike", "coverage"]),
    "constant": (cells(1, 9).repeat(N, 0), ["all alike", "coverage", "diversity"]),
    "few": (cells(3, 9).repeat(N // 3, 0), ["only 5% of the synthetic images are distinct"]),
    "copies": (np.rot90(cells(N, 0), 1, (1, 2)).copy(), ["in pixels"]),
    "one mode": (cells(1, 9).repeat(N, 0) + cells(N, 5) // 64, ["coverage", "diversity"]),
}


@pytest.mark.parametrize("name", SICK)
def test_collapse_is_warned_of(name: str, real: RealImages) -> None:
    synthetic, expected = SICK[name]
    quality = assess(synthetic, real)
    text = "\n".join(quality.warnings)
    for phrase in expected:
        assert phrase in text
    json.dumps(dataclasses.asdict(quality), allow_nan=False)


def test_copies_are_reported_from_the_first_on(real: RealImages) -> None:
    """1 of 100 images of the other class, then 8 of 100 of both: below any share that warns."""
    synthetic = cells(100, 9)
    synthetic[40] = real.train_other[3]
    quality = assess(synthetic, real)
    assert quality.memorization["pixels"]["copies"] == 1
    assert quality.warnings == [
        "1 synthetic image is a copy of a training image, exact to about one gray level"
    ]
    synthetic[:7] = real.train[:7]
    assert any(
        text.startswith("8 synthetic images are copies")
        for text in assess(synthetic, real).warnings
    )


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
        expected = morphology_distance(measure_each(images), reference)
        assert rows[name]["morphology"] == pytest.approx(expected["mean"])
    assert rows["black"]["empty"] == 1
    assert rows["black"]["diversity"] == pytest.approx(0, abs=1e-5)
    assert (rows["synthetic"]["diversity"] or 0) > 0.05


def test_usefulness_is_measured_on_held_out_images_of_both_classes() -> None:
    """Held-out images are the other way round: bright where training images are dark."""
    real = RealImages(
        flat_cells(0, 100), flat_cells(1, 180), flat_cells(2, 230), flat_cells(3, 170)
    )
    found = assess_quality(flat_cells(5, 100), real, Ident(), 0, synthetic_other=flat_cells(6, 180))
    assert (found.usefulness["real"] or 0) < 0.2
    assert (found.usefulness["synthetic"] or 0) < 0.2


def test_images_of_another_resolution_are_refused(real: RealImages) -> None:
    with pytest.raises(
        ValueError, match="train images have 32 pixels per side, synthetic images 64"
    ):
        assess(cells(N, 9, side=64), real)
    with pytest.raises(ValueError, match="uint8"):
        assess(cells(N, 9).astype(np.float32), real)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 10 images"):
        assess(cells(5, 9), real)
