"""Quality metrics on drawn images, with random projections for features."""

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from drawn_images import Images, cells
from torch import Tensor
from torch.nn import functional as F
from torch_fidelity import metric_kid

from leuk.metrics.baselines import _folds, two_sample_auroc, usefulness
from leuk.metrics.synthetic.distances import (
    Metrics,
    distances,
    equal_sizes,
    frechet_distance,
    kernel_distance,
)
from leuk.metrics.synthetic.features import Features, Network
from leuk.metrics.synthetic.memorization import (
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


# Distances between features


def test_distance_of_a_set_from_itself_is_zero() -> None:
    found = distances(points(cloud(80, 0)), points(cloud(80, 0)), seed=0)
    assert value(found["frechet_distance"]) == pytest.approx(0, abs=1e-3)
    assert abs(value(found["kernel_distance"])) < 3 * value(found["kernel_distance_spread"])
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)
    assert found["density"] == pytest.approx(1, abs=0.2)


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


def test_kernel_distance_agrees_with_torch_fidelity() -> None:
    synthetic, real = (torch.from_numpy(cloud(50, seed)) for seed in (0, 1))
    oracle = metric_kid.kid_features_to_metric(
        synthetic, real, kid_subsets=1, kid_subset_size=50, verbose=False
    )
    found, spread = kernel_distance(synthetic, real, seed=0)
    assert found == pytest.approx(oracle["kernel_inception_distance_mean"], rel=1e-6)
    assert value(spread) > 0


def test_spread_is_that_of_new_samples() -> None:
    pairs = [[torch.from_numpy(cloud(100, 2 * i + j)) for j in (0, 1)] for i in range(30)]
    found, spreads = zip(*(kernel_distance(*pair, seed=0) for pair in pairs), strict=True)
    assert np.mean(list(map(value, spreads))) == pytest.approx(np.std(found), rel=0.5)


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


def test_four_independent_images_have_halves() -> None:
    few, many = torch.from_numpy(cloud(4, 0)), torch.from_numpy(cloud(12, 1))
    assert value(kernel_distance(few, many, 0)[1]) > 0


def test_precision_and_recall_have_the_right_direction() -> None:
    two_modes = np.concatenate([cloud(50, 0), cloud(50, 1, at=30)])
    one_mode = cloud(100, 2)
    found = distances(points(one_mode), points(two_modes), seed=0)
    assert value(found["precision"]) > 0.8 > 0.6 > value(found["recall"])
    assert value(found["coverage"]) < 0.6
    found = distances(points(two_modes), points(one_mode), seed=0)
    assert value(found["precision"]) < 0.6 < 0.8 < value(found["recall"])


def test_order_of_features_does_not_matter() -> None:
    synthetic, real = points(cloud(60, 0, at=0.3)), points(cloud(60, 1))
    generator = np.random.default_rng(0)
    shuffled = [cells.take(generator.permutation(60)) for cells in (synthetic, real)]
    before, after = distances(synthetic, real, 0), distances(*shuffled, 0)
    spread = value(before.pop("kernel_distance_spread"))
    assert after.pop("kernel_distance_spread") == pytest.approx(spread, rel=0.4)
    assert after == pytest.approx(before, rel=1e-5)


def test_sets_must_share_size_and_extractor() -> None:
    with pytest.raises(ValueError, match=r"same size, found 30 and 20 images.*equal_sizes"):
        distances(points(cloud(30, 0)), points(cloud(20, 1)), 0)
    with pytest.raises(ValueError, match="different extractors: points and other"):
        distances(points(cloud(20, 0)), Features("other", False, points(cloud(20, 0)).pooled), 0)
    with pytest.raises(ValueError, match="at least 10 images"):
        distances(points(cloud(9, 0)), points(cloud(9, 1)), 0)
    with pytest.raises(ValueError, match="not finite"):
        distances(points(cloud(20, 0) * np.nan), points(cloud(20, 1)), 0)


def test_equal_sizes_are_the_smallest_size() -> None:
    sets = [points(cloud(n, n)) for n in (40, 25, 60)]
    cut, again, other = (equal_sizes(sets, seed) for seed in (0, 0, 1))
    assert [len(features) for features in cut] == [25, 25, 25]
    np.testing.assert_array_equal(cut[0].pooled, again[0].pooled)
    assert not np.array_equal(cut[0].pooled, other[0].pooled)
    with pytest.raises(ValueError, match="at least 10 images per set are needed, found 3"):
        equal_sizes([*sets, points(cloud(3, 0))], 0)


# Memorization


def test_rotated_copies_are_found_and_new_images_are_not() -> None:
    train, held_out, new = cells(N, 0), cells(N, 1), cells(N, 2)
    usual = nearest_in_pixels(held_out, train), nearest_in_pixels(train, train, itself=False)
    rows = np.random.default_rng(0).permutation(N)
    for copies in (train[rows], np.rot90(train[rows], 1, (1, 2)), train[rows][:, :, ::-1]):
        noisy = np.clip(copies + np.random.default_rng(0).normal(0, 3, copies.shape), 0, 255)
        found = nearest_in_pixels(noisy.astype(np.uint8), train)
        assert (found.rows == rows).mean() > 0.95
        assert value(compare(found, *usual)["closer_share"]) > 0.95
        assert value(compare(found, *usual)["median_ratio"]) < 0.6
    figures = compare(nearest_in_pixels(new, train), *usual)
    assert value(figures["closer_share"]) < 0.1
    assert value(figures["median_ratio"]) == pytest.approx(1, abs=0.2)
    assert value(figures["train_median_ratio"]) == pytest.approx(1, abs=0.2)


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
@pytest.mark.parametrize("side", [32, 64])
def test_a_single_copy_is_found(name: str, side: int) -> None:
    train, synthetic = cells(N, 0, side=side), cells(100, 1, side=side)
    assert not copied(synthetic, train).any()
    synthetic[17] = PLANTED[name](train[5:6])[0]
    assert np.flatnonzero(copied(synthetic, train)).tolist() == [17]


def test_copies_are_found_in_features() -> None:
    train, held_out = points(cloud(N, 0)), points(cloud(N, 1))
    found = nearest_in_features(train.take(np.arange(N)[::-1].copy()), train)
    np.testing.assert_array_equal(found.rows, np.arange(N)[::-1])
    others = nearest_in_features(train, train, itself=False)
    assert not (others.rows == np.arange(N)).any()
    usual = nearest_in_features(held_out, train)
    assert compare(found, usual, others)["closer_share"] == 1
    assert compare(others, found, others)["median_ratio"] is None


def test_closest_pairs_come_first() -> None:
    train = cells(N, 0)
    synthetic = cells(N, 1)
    synthetic[[7, 3]] = train[[20, 50]]
    pairs = closest_pairs(nearest_in_pixels(synthetic, train), 2)
    assert {pair[:2] for pair in pairs} == {(7, 20), (3, 50)}


# Probes


def test_probe_separates_different_sets() -> None:
    one, same, other = (points(cloud(1000, s, at)) for s, at in ((0, 0), (1, 0), (2, 3)))
    assert two_sample_auroc(one, same, 0) == pytest.approx(0.5, abs=0.1)
    assert two_sample_auroc(other, one, 0) > 0.99


def test_probe_does_not_recognize_patients() -> None:
    """Two sets of real images of the same population: the probe knows the patients, not the set."""
    known, images = [], []
    for seed in range(5):
        one, other = points(of_patients(2 * seed, 3)), points(of_patients(2 * seed + 1, 3))
        known.append(value(two_sample_auroc(one, other, 0, PATIENTS, PATIENTS)))
        images.append(value(two_sample_auroc(one, other, 0)))
    assert np.mean(known) < 0.6
    assert np.mean(images) > np.mean(known) + 0.15


def test_folds_of_the_probe_hold_whole_patients_of_both_sets() -> None:
    generator = np.random.default_rng(0)
    patients = np.repeat(np.arange(6), [40, 3, 3, 20, 20, 1])
    folds = _folds(patients, 3, generator)
    assert [len(set(folds[patients == patient])) for patient in range(6)] == [1] * 6
    assert set(folds) == {0, 1, 2}
    one = points(cloud(20, 0)), points(cloud(20, 1))
    assert two_sample_auroc(*one, 0, np.zeros(20), None) is None
    assert two_sample_auroc(*one, 0, None, np.zeros(20)) is None
    assert two_sample_auroc(*one, 0, None, np.arange(20) // 10) is not None


def test_usefulness_has_the_right_direction() -> None:
    one, one_new, other, other_new = (
        points(cloud(100, s, at)) for s, at in ((0, 0), (1, 0), (2, 1), (3, 1))
    )
    assert usefulness(one, other, one_new, other_new) > 0.9
    assert usefulness(other, one, one_new, other_new) < 0.1


# The whole table


@pytest.fixture(scope="module")
def real() -> RealImages:
    return RealImages(cells(N, 0), cells(N, 1, 11), cells(N + 20, 2), cells(N + 10, 3, 11))


def assess(synthetic: Images, real: RealImages) -> Quality:
    return assess_quality(synthetic, real, Projection(), seed=0)


def test_good_images_are_close_to_real_images(real: RealImages) -> None:
    quality = assess(cells(N + 5, 9), real)
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
    alone = dataclasses.replace(real, patients={"train": np.zeros(N)})
    assert assess(synthetic, alone).rows["real"]["two_sample_auroc"] is None
    assert assess(synthetic, alone).rows["synthetic"]["two_sample_auroc"] is not None
    json.dumps(dataclasses.asdict(by_few), allow_nan=False)


def test_each_image_is_extracted_once(real: RealImages) -> None:
    extractor = Projection()
    assess_quality(cells(N, 9), real, extractor, seed=0)
    # Sets searched for copies in full, equal sets of the other class, and two constant images.
    given = N + len(real.train) + len(real.reference) + 2 * N
    assert extractor.images == 2 * (given + 2)  # features and logits


def test_quality_is_reproducible_and_depends_on_the_seed(real: RealImages) -> None:
    one, again = assess(cells(N, 9), real), assess(cells(N, 9), real)
    assert one == again
    assert assess_quality(cells(N, 9), real, Projection(), seed=1).rows != one.rows


def test_synthetic_images_of_the_other_class_train_the_probe(real: RealImages) -> None:
    wrong = assess_quality(cells(N, 9), real, Projection(), 0, synthetic_other=cells(N, 8))
    assert value(wrong.usefulness["synthetic"]) < 0.8 < value(wrong.usefulness["real"])


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
    assert assess(synthetic, real).warnings == []
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


def test_collapse_accepts_sound_metrics() -> None:
    sound: Metrics = {
        "empty": 0.0,
        "spread": 11.0,
        "distinct": 1.0,
        "coverage": 0.8,
        "diversity": 0.4,
    }
    assert collapse(sound, sound) == []
    assert len(collapse({**sound, "coverage": 0.3}, sound)) == 1


def test_images_of_another_resolution_are_refused(real: RealImages) -> None:
    with pytest.raises(
        ValueError, match="train images have 32 pixels per side, synthetic images 64"
    ):
        assess(cells(N, 9, side=64), real)
    with pytest.raises(ValueError, match="uint8"):
        assess(cells(N, 9).astype(np.float32), real)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 10 images"):
        assess(cells(5, 9), real)
