import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from torch import Tensor

from leuk.metrics.area import auroc_within_area_bins, cell_areas, scaled_to_one_size
from leuk.metrics.bootstrap import bootstrap_intervals
from leuk.metrics.classification import Sample, patient_metrics


def areas_and_scores(skill: float, images: int = 40) -> tuple[Sample, np.ndarray]:
    """Leukemic cells are larger; scores depend on the area and, by ``skill``, on the class."""
    generator = np.random.default_rng(0)
    subjects = np.repeat(np.arange(40), images)
    labels = (subjects >= 15).astype(np.int64)
    areas = 0.2 + 0.05 * labels + generator.normal(0, 0.04, len(labels))
    seen = 60 * (areas - areas.mean()) + skill * (labels - 0.5)
    scores = norm.cdf(seen + generator.normal(0, 0.3, len(labels)))
    return Sample(scores, labels, subjects), areas


@pytest.mark.parametrize(("skill", "value"), [(0.0, 0.58), (2.0, 0.98)])
def test_skill_beyond_area_is_what_remains_within_bins(skill: float, value: float) -> None:
    sample, areas = areas_and_scores(skill)
    assert roc_auc_score(sample.labels, sample.scores) > 0.78
    found = auroc_within_area_bins(sample, areas, draws=100)
    assert found["low"] < found["value"] < found["high"] < 1
    assert found["value"] == pytest.approx(value, abs=0.06)


def test_bins_have_equal_sizes_and_their_own_auroc() -> None:
    sample, areas = areas_and_scores(skill=1.0)
    found = auroc_within_area_bins(sample, areas, bins=4, draws=10)
    bins = found["bins"]
    edges = [one[end] for one in bins for end in ("low", "high")]
    assert [one["hem"] + one["all"] for one in bins] == [400] * 4
    assert edges == sorted(edges)
    values, pairs = [], []
    for one in bins:
        inside = (areas >= one["low"]) & (areas <= one["high"])
        values.append(roc_auc_score(sample.labels[inside], sample.scores[inside]))
        pairs.append(one["hem"] * one["all"])
    assert [one["auroc"] for one in bins] == pytest.approx(values)
    assert found["value"] == pytest.approx(np.average(values, weights=pairs))


def test_patients_weigh_the_same_within_bins() -> None:
    """By hand, two bins. Healthy patient a has two images in each bin, healthy b one in the first,
    leukemic c one in the first and two in the second.

    An image of a weighs 1/4, of b 1, of c 1/3. First bin: pairs weigh (2/4 + 1) * 1/3 = 1/2; that
    of c at 0.5 exceeds those of a, 2/4 * 1/3 = 1/6, not that of b at 0.6. Second bin: pairs weigh
    2/4 * 2/3 = 1/3, and 3 of 4 are won.
    """
    patients = np.array([*"aabcaacc"])
    labels = (patients == "c").astype(np.int64)
    scores = np.array([0.1, 0.2, 0.6, 0.5, 0.8, 0.3, 0.4, 0.9])
    areas = np.repeat([0.1, 0.2], 4)
    found = auroc_within_area_bins(Sample(scores, labels, patients), areas, bins=2, draws=10)
    assert [one["auroc"] for one in found["bins"]] == [pytest.approx(2 / 3), 3 / 4]
    assert [one["auroc_patients"] for one in found["bins"]] == pytest.approx([1 / 3, 3 / 4])
    by_patient = (1 / 6 + 1 / 4) / (1 / 2 + 1 / 3)
    # A single leukemic patient does not show how patients differ.
    assert found["patients"] == {"value": pytest.approx(by_patient), "low": None, "high": None}
    assert (found["value"], found["low"], found["high"]) == (pytest.approx(5 / 7), None, None)


def test_a_single_bin_equals_the_metric() -> None:
    sample, areas = areas_and_scores(skill=1.0)
    kept = np.flatnonzero((sample.codes > 2) | (np.arange(len(sample)) % 7 == 0))
    uneven = Sample(sample.scores[kept], sample.labels[kept], sample.subjects[kept])
    found = auroc_within_area_bins(uneven, areas[kept], bins=1, draws=100)
    by_patient = found["patients"]
    expected = patient_metrics(uneven, {"default": 0.5})["auroc_patients"]
    assert by_patient["value"] == pytest.approx(expected)
    assert found["value"] != pytest.approx(expected, abs=1e-4)
    intervals = bootstrap_intervals(uneven, {"default": 0.5}, draws=100)
    assert (by_patient["low"], by_patient["high"]) == pytest.approx(intervals["auroc_patients"])
    assert (found["low"], found["high"]) == pytest.approx(intervals["auroc"])


def test_classes_without_common_areas_have_no_value() -> None:
    labels = np.array([0, 0, 1, 1])
    sample = Sample(np.array([0.1, 0.2, 0.8, 0.9]), labels, np.arange(4))
    found = auroc_within_area_bins(sample, labels + 0.5, bins=2, draws=10)
    nothing = {"value": None, "low": None, "high": None}
    bins = found.pop("bins")
    assert found == {**nothing, "patients": nothing}
    assert [(one["hem"], one["all"], one["auroc"]) for one in bins] == [(2, 0, None), (0, 2, None)]


def discs(*cells: tuple[float, float, float], side: int = 64) -> Tensor:
    """Images of a disc each, given by radius and center in pixels."""
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    shapes = [((x - cx).square() + (y - cy).square()).sqrt() < r for r, cx, cy in cells]
    return torch.stack(shapes)[:, None].float() * torch.tensor([0.8, 0.4, 0.6]).view(1, 3, 1, 1)


def centers(images: Tensor) -> Tensor:
    """Mean position of the lit pixels, ``(B, 2)``, in pixels."""
    lit = (images.amax(dim=1) > 0.2).float()
    places = torch.arange(images.shape[-1]) + 0.5
    total = lit.sum(dim=(1, 2))
    x, y = ((lit.sum(dim=d) * places).sum(dim=1) / total for d in (1, 2))
    return torch.stack([x, y], dim=1)


def test_cells_are_scaled_to_equal_area_and_centered() -> None:
    images = discs((8, 32, 32), (12, 30, 36), (20, 28, 33), (26, 32, 32))
    target = float(np.pi * 16**2 / 64**2)
    scaled = scaled_to_one_size(images, target)
    assert scaled.shape == images.shape
    torch.testing.assert_close(cell_areas(scaled), torch.full((4,), target), rtol=0.05, atol=0)
    torch.testing.assert_close(centers(scaled), torch.full((4, 2), 32.0), rtol=0, atol=0.5)
    # Its color is unchanged.
    torch.testing.assert_close(
        scaled[:, :, 32, 32], torch.tensor([0.8, 0.4, 0.6]).expand(4, 3), rtol=0, atol=1e-4
    )


def test_long_cell_is_enlarged_only_as_far_as_it_fits() -> None:
    images = torch.zeros(1, 3, 64, 64)
    images[:, :, 30:34, 12:44] = 0.7
    scaled = scaled_to_one_size(images, 0.5)
    lit = scaled[0, 0] > 0.2
    assert lit.any(dim=0).sum() == 64
    assert int(lit.any(dim=1).sum()) == pytest.approx(8, abs=1)
    assert float(cell_areas(scaled)) < 0.2


def test_empty_image_is_unchanged() -> None:
    images = torch.cat([torch.zeros(1, 3, 64, 64), discs((8, 32, 32))])
    scaled = scaled_to_one_size(images, 0.2)
    assert not scaled[0].any()
    assert torch.isfinite(scaled).all()


@pytest.mark.parametrize("target", [0.0, 1.0, -0.2])
def test_target_area_must_be_a_share(target: float) -> None:
    with pytest.raises(ValueError, match=r"is in \(0, 1\)"):
        scaled_to_one_size(discs((8, 32, 32)), target)
