"""Distances between synthetic and real images: of features, of cell measures, and structural.

The usual metrics, computed by torch-fidelity where it has them. All are biased below a few thousand
images, so both sets must have the same size, and every value must be compared with that of real
images: see :func:`leuk.metrics.synthetic.quality.assess_quality`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import wasserstein_distance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from leuk.data.decode import cell_mask
from leuk.data.pixels import to_float
from leuk.data.splits import FEWEST as FEWEST_PATIENTS
from leuk.data.splits import effective_patients
from leuk.metrics.arrays import Floats, Images, Integers
from leuk.metrics.baselines import MEASURES
from leuk.metrics.synthetic.features import Features

Metrics = dict[str, float | None]
"""Name to value; None for an undefined metric, never NaN."""

Patients = npt.NDArray[Any]
"""The patient of each image, ``(N,)``."""

FEWEST = 10
"""Smallest number of images for which the metrics are meaningful."""

_HALVES = 50
_KERNEL = {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}


def equal_rows(sizes: Sequence[int], seed: int) -> list[Integers]:
    """Draw random rows that cut sets of at least 10 images down to the smallest."""
    smallest = min(sizes)
    if smallest < FEWEST:
        raise ValueError(f"at least {FEWEST} images per set are needed, found {smallest}")
    generator = np.random.default_rng(seed)
    return [generator.permutation(size)[:smallest] for size in sizes]


def patient_numbers(patients: Patients | None, count: int) -> Integers:
    """Return the patient number ``(N,)`` of each image; without patients images are independent."""
    return np.arange(count) if patients is None else np.unique(patients, return_inverse=True)[1]


# --- Distances between features


def distances(
    synthetic: Features,
    real: Features,
    seed: int,
    synthetic_patients: Patients | None = None,
    real_patients: Patients | None = None,
) -> Metrics:
    """Compute all distances between ``synthetic`` images, or real images in their place, and real.

    Both sets have the same size and extractor. The patient of each image matters to the spread,
    that of random halves; without patients images are independent, such as those of a GAN.

    Returns:
        ``fid`` (0 is best; Heusel et al. 2017), ``kid`` with ``kid_spread`` (0 is best, may be
        slightly negative; Binkowski et al. 2018), ``inception_score`` (1 to the number of classes;
        Salimans et al. 2016, in a single split), ``precision`` and ``recall`` (0 to 1, k = 3;
        Kynkaanniemi et al. 2019), ``density`` (0 and up, 1 for real images) and ``coverage`` (0
        to 1, both k = 5; Naeem et al. 2020). For any extractor but Inception the first three are
        called ``frechet_distance``, ``kernel_distance`` and ``class_score``: the same formulas, but
        values that cannot be compared with published ones.

    Raises:
        ValueError: features that are not finite.
    """
    for features in (synthetic, real):
        if not np.isfinite(features.pooled).all():
            raise ValueError(f"features of {features.name} are not finite")
    x, y = (torch.from_numpy(features.pooled).double() for features in (synthetic, real))
    kernel, spread = kernel_distance(x, y, seed, synthetic_patients, real_patients)
    names = "frechet_distance", "kernel_distance", "class_score"
    if synthetic.inception:
        names = "fid", "kid", "inception_score"
    logits = synthetic.logits
    return {
        names[0]: frechet_distance(x, y),
        names[1]: kernel,
        f"{names[1]}_spread": spread,
        names[2]: None if logits is None else class_score(torch.from_numpy(logits)),
        **precision_recall(x, y),
        **density_coverage(x, y),
    }


def frechet_distance(synthetic: Tensor, real: Tensor) -> float:
    """Squared Frechet distance of two Gaussians, each fitted to features ``float64 (N, D)``."""
    fitted = [metric_fid.fid_features_to_statistics(features) for features in (synthetic, real)]
    (distance,) = metric_fid.fid_statistics_to_metric(*fitted, verbose=False).values()
    return float(distance)


def kernel_distance(
    synthetic: Tensor,
    real: Tensor,
    seed: int,
    synthetic_patients: Patients | None = None,
    real_patients: Patients | None = None,
) -> tuple[float, float | None]:
    """Unbiased squared maximum mean discrepancy of ``float64 (N, D)`` with a cubic kernel.

    Returns:
        The distance over all images, and its standard deviation over 50 random halves of both
        sets, an estimate of its standard error (the delete-half jackknife, Shao & Wu 1989; with
        an odd number of patients the smaller half counts, so that it errs on the large side).
        Halves hold whole patients, as images of the same patient are alike. The standard deviation
        is None with fewer than three effective patients in either set.
    """
    x, y = synthetic.numpy(), real.numpy()
    kernels = [metric_kid.kernel_poly(a, b, **_KERNEL) for a, b in ((x, x), (x, y), (y, y))]
    distance = _mmd2(*kernels)
    patients = [patient_numbers(synthetic_patients, len(x)), patient_numbers(real_patients, len(y))]
    if min(effective_patients(codes.tolist()) for codes in patients) < FEWEST_PATIENTS:
        return distance, None
    # Of ten images of three effective patients or more, any half of the patients has a pair.
    generator = np.random.default_rng(seed)
    halves: list[float] = []
    for _ in range(_HALVES):
        i, j = (_half(codes, generator) for codes in patients)
        chosen = (np.ix_(i, i), np.ix_(i, j), np.ix_(j, j))
        halves.append(_mmd2(*(kernel[rows] for kernel, rows in zip(kernels, chosen, strict=True))))
    return distance, float(np.std(halves))


def _mmd2(within: Floats, across: Floats, other: Floats) -> float:
    """Unbiased squared discrepancy from kernels ``(M, M)``, ``(M, N)`` and ``(N, N)``."""
    # Torch-fidelity needs sets of equal size, but halves of patients differ in size.
    own = [
        (kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1))
        for kernel in (within, other)
    ]
    return float(sum(own) - 2 * across.mean())


def _half(patients: Integers, generator: np.random.Generator) -> Integers:
    """Rows of the images of half the patients, drawn without replacement."""
    count = int(patients.max()) + 1
    drawn = generator.choice(count, count // 2, replace=False)
    return np.flatnonzero(np.isin(patients, drawn))


def class_score(logits: Tensor) -> float:
    """Exponential of the mutual information between image and predicted class, from ``(N, K)``.

    A single split: ten splits of a few hundred images would only add bias.
    """
    score = metric_isc.isc_features_to_metric(logits, splits=1, shuffle=False)
    return float(score[metric_isc.KEY_METRIC_ISC_MEAN])


def precision_recall(synthetic: Tensor, real: Tensor) -> Metrics:
    """Improved precision and recall of two sets of features ``float64 (N, D)``, k = 3.

    Precision is the share of synthetic images within the reach of a real image (the distance to its
    k-th neighbor), recall the share of real images within the reach of a synthetic image.
    """
    found = metric_prc.prc_features_to_metric(
        synthetic,
        real,
        prc_neighborhood=3,
        prc_batch_size=10_000,
        save_cpu_ram=False,
        verbose=False,
    )
    return {name: float(found[name]) for name in ("precision", "recall")}


def density_coverage(synthetic: Tensor, real: Tensor) -> Metrics:
    """Density and coverage of two sets of features ``float64 (N, D)``, k = 5.

    Density is the mean number of real images whose reach (the distance to the k-th neighbor)
    includes a synthetic image, divided by k; coverage is the share of real images with a synthetic
    image within reach. Torch-fidelity lacks both.
    """
    k = 5
    # The nearest neighbor of an image is the image itself.
    reach = torch.cdist(real, real).kthvalue(k + 1).values
    inside = torch.cdist(synthetic, real) <= reach
    return {
        "density": float(inside.double().sum(dim=1).mean() / k),
        "coverage": float(inside.any(dim=0).double().mean()),
    }


# --- Probes of features: separability from real images, and usefulness for training

_FOLDS = 5


def two_sample_auroc(
    synthetic: Features,
    real: Features,
    seed: int,
    synthetic_patients: Patients | None = None,
    real_patients: Patients | None = None,
) -> float | None:
    """Separate synthetic from real images: the classifier two-sample test.

    The stain alone separates real images of different patients, so the value must be compared with
    that of training images (Lopez-Paz & Oquab 2017). All images of a patient are in the same fold,
    since a probe that has seen other images of a patient recognizes the patient, not the set.

    Returns:
        AUROC of cross-validation in five folds, or in as many as the set with the fewest patients
        has: 0.5 for sets that cannot be separated, 1 for perfect separation. None if a set has a
        single patient.
    """
    features, labels = _stacked(synthetic, real)
    codes = [
        patient_numbers(synthetic_patients, len(synthetic)),
        patient_numbers(real_patients, len(real)),
    ]
    count = min(_FOLDS, *(int(patients.max()) + 1 for patients in codes))
    if count < 2:
        return None
    generator = np.random.default_rng(seed)
    folds = np.concatenate([_folds(patients, count, generator) for patients in codes])
    scores = cross_val_predict(
        _probe(), features, labels, cv=PredefinedSplit(folds), method="decision_function"
    )
    return float(roc_auc_score(labels, scores))


def _folds(patients: Integers, count: int, generator: np.random.Generator) -> Integers:
    """Assign whole patients to folds, the largest first, each to the smallest fold so far."""
    images = np.bincount(patients)
    order = generator.permutation(len(images))
    filled = np.zeros(count)
    fold_of = np.zeros(len(images), np.int64)
    for patient in order[np.argsort(-images[order], kind="stable")]:
        fold_of[patient] = np.argmin(filled)
        filled[fold_of[patient]] += images[patient]
    return fold_of[patients]


def usefulness(
    train: Features, train_other: Features, test: Features, test_other: Features
) -> float:
    """Train a probe on images of a class and of the other, and classify held-out real images.

    With synthetic training images this is "train on synthetic, test on real" (Esteban et al. 2017),
    to be compared with as many real training images. If a single class is synthetic, the probe may
    learn the look of synthetic images instead of the class; the AUROC then falls, as it should.

    Returns:
        AUROC on the test sets: 0.5 for no information, below 0.5 for a misleading probe.
    """
    probe = _probe().fit(*_stacked(train, train_other))
    features, labels = _stacked(test, test_other)
    return float(roc_auc_score(labels, probe.decision_function(features)))


def _probe() -> Pipeline:
    # A strong penalty, as features outnumber images.
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))


def _stacked(one: Features, other: Features) -> tuple[Floats, Integers]:
    features = np.concatenate([one.pooled, other.pooled]).astype(np.float64)
    return features, np.repeat([1, 0], [len(one), len(other)])


# --- Distances between cell measures, and structural similarity


def morphology_distance(synthetic: Floats, real: Floats) -> Metrics:
    """Distance of two sets in each of the measures ``float64 (N, 8)`` of their cells.

    Returns:
        For each of :data:`.baselines.MEASURES` the Wasserstein-1 distance of the two sets over the
        standard deviation of the real set (0 is best), and their ``mean``. Images without a lit
        pixel are left out; None if those are all images of a set.
    """
    one, other = (rows[rows[:, 0] > 0] for rows in (synthetic, real))
    if not len(one) or not len(other):
        return dict.fromkeys((*MEASURES, "mean"))
    found = [
        float(wasserstein_distance(a, b) / (b.std() or 1.0))
        for a, b in zip(one.T, other.T, strict=True)
    ]
    return {**dict(zip(MEASURES, found, strict=True)), "mean": float(np.mean(found))}


_BATCH = 64
_PAIRS = 200
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the scales, finest first (Wang et al. 2003)."""

_WINDOW = 11
SMALLEST = 16
"""Pixels per side that structural similarity needs."""


def nearest_similarity(synthetic: Images, real: Images, nearest: Integers) -> Metrics:
    """Compute the mean SSIM of synthetic images and their nearest real images.

    ``nearest`` holds the row ``(N,)`` in ``real`` of the nearest image of each synthetic image.

    Returns:
        ``ssim`` over whole images (Wang et al. 2004) and ``ssim_mask`` over the union of the two
        cell masks, None if no pair has a lit pixel.
    """
    whole: list[float] = []
    within: list[float] = []
    for start in range(0, len(synthetic), _BATCH):
        one, other = synthetic[start : start + _BATCH], real[nearest[start : start + _BATCH]]
        _, similarity = structural_similarity_index_measure(
            to_float(torch.from_numpy(one)),
            to_float(torch.from_numpy(other)),
            data_range=1.0,
            reduction="none",
            return_full_image=True,
        )
        similarity = similarity.mean(dim=1)  # over channels, (B, R, R)
        whole += similarity.mean(dim=(1, 2)).tolist()
        union = torch.from_numpy(cell_mask(one) | cell_mask(other))
        area = union.sum(dim=(1, 2))
        inside = (similarity * union).sum(dim=(1, 2)) / area
        within += inside[area > 0].tolist()
    return {"ssim": float(np.mean(whole)), "ssim_mask": float(np.mean(within)) if within else None}


def diversity(images: Images, seed: int) -> float:
    """Compute 1 minus the mean multi-scale SSIM of 200 random pairs (Odena et al. 2017).

    It is 0 for identical images. Images of 224 pixels have all five scales, of 64 pixels three
    and of 32 pixels two, so values at different resolutions cannot be compared.
    """
    generator = np.random.default_rng(seed)
    first = generator.integers(len(images), size=_PAIRS)
    # An image is never paired with itself.
    second = (first + generator.integers(1, len(images), size=_PAIRS)) % len(images)
    # The scales that torchmetrics can compute at this resolution, with weights of sum 1.
    scales = len(_WEIGHTS)
    while scales > 1 and images.shape[1] // (scales - 1) ** 2 < _WINDOW:
        scales -= 1
    kept = _WEIGHTS[:scales]
    similar = [
        multiscale_structural_similarity_index_measure(
            to_float(torch.from_numpy(images[first[start : start + _BATCH]])),
            to_float(torch.from_numpy(images[second[start : start + _BATCH]])),
            data_range=1.0,
            betas=tuple(weight / sum(kept) for weight in kept),
            reduction="none",
        )
        for start in range(0, _PAIRS, _BATCH)
    ]
    return 1 - float(torch.cat(similar).mean())
