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

from leuk.metrics.baselines import measure_each
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
    morphology_distance,
    nearest_similarity,
    precision_recall,
    two_sample_auroc,
    usefulness,
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

N = 40


@pytest.fixture(scope="module", autouse=True)
def few_pairs() -> Any:
    """Structural similarity of 16 random pairs instead of 200."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(similarity, "_PAIRS", 16)
        yield


class Projection(Network):
    """Random directions of the shrunk image."""

    def __init__(self) -> None:
        directions = torch.randn(8 * 8 * 3, 24, generator=torch.Generator().manual_seed(0))

        def features(images: Tensor) -> Tensor:
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


def neighbors(*apart: float) -> Neighbors:
    return Neighbors(np.arange(len(apart)), np.array(apart))


# Distances between features


def test_only_inception_distances_are_called_fid() -> None:
    fid = {"fid", "kid", "kid_spread", "inception_score"}
    one, other = cloud(20, 0), cloud(20, 1)
    assert fid <= set(distances(points(one, inception=True), points(other, inception=True), 0))
    found = set(distances(points(one), points(other), 0))
    assert not {name for name in found if "fid" in name or "kid" in name or "inception" in name}
    assert {"frechet_distance", "kernel_distance", "class_score"} <= found
    with pytest.raises(ValueError, match="not finite"):
        distances(points(one * np.nan), points(other), 0)


def test_frechet_distance_of_known_gaussians() -> None:
    synthetic, real = (torch.from_numpy(cloud(20_000, seed, at)) for seed, at in ((0, 2), (1, 0)))
    # Means 2 apart in each of 6 directions; standard deviations 3 and 1.
    assert frechet_distance(synthetic * 3 - 4, real) == pytest.approx(6 * 4 + 6 * 4, rel=0.02)


PATIENTS = np.repeat(np.arange(10), 12)


def of_patients(seed: int, between: float = 1.0) -> npt.NDArray[np.float64]:
    """Features of 12 images each of 10 patients that differ from each other."""
    shift = np.random.default_rng([seed, 1]).normal(0, between, (10, 6))[PATIENTS]
    return cloud(120, seed) + shift


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


def test_precision_and_recall_reach_to_the_third_neighbor() -> None:
    """The reach of the last real image is 3, to 12; that of the first synthetic is 9.4, to 2.2."""
    found = precision_recall(on_line(11.6, 12.5, *range(20, 28)), on_line(*range(10)))
    assert found == {"precision": pytest.approx(0.1), "recall": pytest.approx(0.7)}


def test_density_and_coverage_reach_to_the_fifth_neighbor() -> None:
    """13.5 is within the reach of image 9 (5), and 9.5 within those of 9, 8 (4) and 7 (3)."""
    found = density_coverage(on_line(13.5, 9.5, *[100.0] * 8), on_line(*range(10)))
    assert found == {"density": pytest.approx(4 / 10 / 5), "coverage": pytest.approx(0.3)}


def test_kernel_distance_by_hand() -> None:
    """Cubic kernel (x y + 1)^3 of the sets {0, 1} and {0, 2}; unbiased: 1 + 1 - 2 * 31 / 4."""
    one = np.zeros(2, np.int64)
    found, _ = kernel_distance(on_line(0, 1), on_line(0, 2), 0, one, one)
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
    assert len(set(large.tolist())) == len(small) == 12
    assert sorted(small.tolist()) == list(range(12))
    assert large.max() > 500
    assert equal_rows([1000, 12], seed=1)[0].tolist() != large.tolist()


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


def test_each_copy_is_found() -> None:
    train, synthetic = cells(N, 0, side=64), cells(60, 1, side=64)
    assert not copied(synthetic, train).any()
    for row, planted in enumerate(PLANTED.values()):
        synthetic[2 * row] = planted(train[5:6])[0]
    assert np.flatnonzero(copied(synthetic, train)).tolist() == list(range(0, 14, 2))


def test_closest_pairs_come_first() -> None:
    train, synthetic = cells(N, 0), cells(N, 1)
    synthetic[[7, 3]] = train[[20, 30]]
    pairs = closest_pairs(nearest_in_pixels(synthetic, train), 2)
    assert {pair[:2] for pair in pairs} == {(7, 20), (3, 30)}


def test_copies_are_compared_with_held_out_images() -> None:
    """Held-out distances 1 to 100: the first percentile is 1.5, the median 50.5."""
    found = compare(neighbors(1, 1, 1.45, 200), neighbors(*range(1, 101)), neighbors(1.4, 60, 70))
    assert found == {
        "median_ratio": pytest.approx(1.225 / 50.5),
        "closer_share": 0.75,
        "train_median_ratio": pytest.approx(60 / 50.5),
        "train_closer_share": pytest.approx(1 / 3),
    }
    assert compare(neighbors(1), neighbors(0, 0), neighbors(1))["median_ratio"] is None
    # A patient with all but one of the images does not set the limit alone.
    near, whose = neighbors(0.1, *[3] * 99), np.array(["b", *"a" * 99])
    assert compare(neighbors(2, 2), near, neighbors(2))["closer_share"] == 0
    assert compare(neighbors(0.05, 2), near, neighbors(2), whose)["closer_share"] == 0.5


def test_distances_in_pixels_are_gray_levels() -> None:
    black, gray = (np.full((1, 32, 32, 3), level, np.uint8) for level in (0, 10))
    assert nearest_in_pixels(gray, black).distances == pytest.approx([10])


@pytest.mark.parametrize(("angle", "mirrored"), [(15, False), (45, True), (330, True)])
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
    rows = points(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]))
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
    for patients in ((np.zeros(120), None), (None, np.zeros(120))):
        assert two_sample_auroc(one, other, 0, *patients) is None


def test_usefulness_is_of_a_probe_trained_on_the_first_pair() -> None:
    sets = [points(cloud(30, seed, at)) for seed, at in enumerate((0.3, 0, 0.3, 0))]
    train, test = (
        np.concatenate([a.pooled, b.pooled]).astype(np.float64) for a, b in (sets[:2], sets[2:])
    )
    labels = np.repeat([1, 0], 30)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(train, labels)
    expected = roc_auc_score(labels, model.decision_function(test))
    assert usefulness(*sets) == pytest.approx(expected)


# Structural similarity


@pytest.mark.parametrize("side", [16, 32, 64, 224])
def test_diversity_at_every_resolution(side: int) -> None:
    image = cells(1, 0, side / 4, side)
    assert diversity(image.repeat(4, 0), 0) == pytest.approx(0, abs=1e-6)
    two = cells(2, 0, side / 4, side)
    assert 0.01 < diversity(two, 0) < 1
    if side < 64:  # an image is never paired with itself, so any seed gives the same pair
        assert diversity(two, 0) == pytest.approx(diversity(two, 1), abs=1e-5)


def test_each_image_is_compared_with_its_nearest() -> None:
    synthetic, real = cells(3, 0), cells(3, 0)[[2, 0, 1]]
    found = nearest_similarity(synthetic, real, np.array([1, 2, 0]))
    assert found == {"ssim": pytest.approx(1), "ssim_mask": pytest.approx(1)}
    wrong = nearest_similarity(synthetic, real, np.array([0, 1, 2]))
    assert value(wrong["ssim"]) < 0.999


def test_black_pairs_have_no_similarity_inside_a_cell() -> None:
    black, cell = np.zeros((2, 32, 32, 3), np.uint8), cells(2, 0)
    assert nearest_similarity(black, black, np.arange(2))["ssim_mask"] is None
    half = np.stack([black[0], cell[0]])
    assert nearest_similarity(half, half, np.arange(2))["ssim_mask"] == pytest.approx(1)
    # Inside the union of both masks: no similarity where an image is black.
    apart = nearest_similarity(cell[:1], black[:1], np.arange(1))
    assert value(apart["ssim"]) > 2 * value(apart["ssim_mask"])


# The whole table


@pytest.fixture(scope="module")
def real() -> RealImages:
    return RealImages(cells(N, 0), cells(N, 1, 11), cells(N + 10, 2), cells(N + 5, 3, 11))


def assess(synthetic: Images, real: RealImages, seed: int = 0) -> Quality:
    return assess_quality(synthetic, real, Projection(), seed)


@pytest.fixture(scope="module")
def quality(real: RealImages) -> Quality:
    """Quality of good images."""
    return assess(cells(N + 5, 9), real)


def test_good_images_are_close_to_real_images(quality: Quality, real: RealImages) -> None:
    assert quality.n == N
    assert list(quality.rows) == ["synthetic", "real", "other_class", "black", "mean_image"]
    assert quality.warnings == []
    rows = {name: value(figures["frechet_distance"]) for name, figures in quality.rows.items()}
    assert rows["synthetic"] < 2 * rows["real"] < rows["other_class"] < rows["black"]
    assert abs(value(quality.rows["synthetic"]["two_sample_auroc"]) - 0.5) < 0.25
    assert value(quality.rows["other_class"]["two_sample_auroc"]) > 0.8
    assert value(quality.usefulness["synthetic"]) > 0.8
    json.dumps(dataclasses.asdict(quality), allow_nan=False)
    assert assess(cells(N + 5, 9), real) == quality
    assert assess(cells(N + 5, 9), real, seed=1).rows != quality.rows


def test_patients_of_real_images_affect_every_metric(quality: Quality, real: RealImages) -> None:
    few = {name: np.arange(len(images)) % 2 for name, images in real.sets.items()}
    assert list(few) == ["train", "train_other", "reference", "reference_other"]
    by_few = assess(cells(N + 5, 9), dataclasses.replace(real, patients=few))
    assert set(by_few.patients) == set(few)
    assert by_few.patients["reference"] == pytest.approx(2, abs=0.1)
    for row in ("synthetic", "real", "other_class"):
        assert by_few.rows[row]["kernel_distance_spread"] is None
        assert quality.rows[row]["kernel_distance_spread"] is not None
        assert by_few.rows[row]["kernel_distance"] == quality.rows[row]["kernel_distance"]
    alone = dataclasses.replace(real, patients={"train": np.zeros(N)})
    rows = assess(cells(N + 5, 9), alone).rows
    assert rows["real"]["two_sample_auroc"] is None
    assert rows["synthetic"]["two_sample_auroc"] is not None


SICK = {
    "black": (np.zeros((N, 32, 32, 3), np.uint8), ["are black", "all alike", "coverage"]),
    "few": (cells(3, 9).repeat(14, 0)[:N], ["only 8% of the synthetic images are distinct"]),
    "copies": (np.rot90(cells(N, 0), 1, (1, 2)).copy(), ["in pixels", "40 synthetic images are"]),
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
    """One image of the other class, below any share that warns."""
    synthetic = cells(60, 9)
    synthetic[40] = real.train_other[3]
    quality = assess(synthetic, real)
    assert quality.memorization["pixels"]["copies"] == 1
    assert quality.warnings == [
        "1 synthetic image is a copy of a training image, exact to about one gray level"
    ]


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


def flat_cells(seed: int, bright: int) -> npt.NDArray[np.uint8]:
    generator = np.random.default_rng(seed)
    images = np.zeros((14, 32, 32, 3), np.uint8)
    for image in images:
        side = generator.integers(8, 14)
        image[6 : 6 + side, 8 : 8 + side] = generator.normal(bright, 8, (side, side, 3)).clip(20)
    return images


def test_each_row_and_probe_is_of_its_own_images() -> None:
    """All sets differ, so rows cannot be confused; held-out images, as synthetic images, are bright
    where training images are dark."""
    real = RealImages(
        flat_cells(0, 100), flat_cells(1, 180), flat_cells(2, 230), flat_cells(3, 170)
    )
    synthetic = flat_cells(5, 180)
    color = Network("color", lambda images: images.flatten(2).mean(dim=2))
    found = assess_quality(synthetic, real, color, 0, synthetic_other=flat_cells(6, 100))
    train, other, reference, reference_other = (color(images) for images in real.sets.values())
    own, own_other, held_out = color(synthetic), color(flat_cells(6, 100)), reference
    of_own = usefulness(own, own_other, held_out, reference_other)
    of_real = usefulness(train, other, held_out, reference_other)
    assert found.usefulness == pytest.approx({"synthetic": of_own, "real": of_real}, abs=0.02)
    assert of_real < 0.5 < of_own
    of_train = nearest_in_features(train, train, itself=False)
    near = (nearest_in_features(images, train) for images in (own, held_out))
    assert found.memorization["features"] == pytest.approx(compare(*near, of_train))
    sets = {"synthetic": synthetic, "real": real.train, "other_class": real.reference_other}
    reference = measure_each(real.reference)
    for name, images in sets.items():
        assert found.rows[name]["spread"] == pytest.approx(images.std(axis=0).mean(), rel=1e-5)
        expected = morphology_distance(measure_each(images), reference)
        assert found.rows[name]["morphology"] == pytest.approx(expected["mean"])
    assert found.rows["black"]["empty"] == 1
    assert found.rows["black"]["diversity"] == pytest.approx(0, abs=1e-5)
    assert value(found.rows["synthetic"]["diversity"]) > 0.05


def test_unsuitable_images_are_refused(real: RealImages) -> None:
    with pytest.raises(
        ValueError, match="train images have 32 pixels per side, synthetic images 64"
    ):
        assess(cells(N, 9, side=64), real)
    with pytest.raises(ValueError, match="uint8"):
        assess(cells(N, 9).astype(np.float32), real)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 10 images"):
        assess(cells(5, 9), real)
    small = RealImages(*(np.zeros((12, 8, 8, 3), np.uint8) for _ in range(4)))
    with pytest.raises(ValueError, match="SSIM needs 16 pixels per side, found 8"):
        assess(np.zeros((12, 8, 8, 3), np.uint8), small)
