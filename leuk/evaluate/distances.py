"""How far one set of made cells lies from real ones, from features of both.

The figures of the field, computed by torch-fidelity where it has them. All are biased below a few
thousand images, so both sets must have the same size and every figure belongs beside the same
figure of real cells: see :func:`leuk.evaluate.image_quality.judge`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

from leuk.data.effective import FEWEST as FEWEST_PATIENTS
from leuk.data.effective import effective_patients
from leuk.evaluate.features import Features

Metrics = dict[str, float | None]
"""Names to plain numbers; None where a figure is not defined. Never NaN."""

Floats = npt.NDArray[np.float64]

Patients = npt.NDArray[Any]
"""The patient of each image, ``(N,)``."""

FEWEST = 10
"""Cells in a set below which its figures would mean nothing."""

_HALVES = 50
_KERNEL = {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
_PRECISION_NEIGHBORS = 3
_COVERAGE_NEIGHBORS = 5


def equal_rows(sizes: Sequence[int], seed: int) -> list[npt.NDArray[np.int64]]:
    """Rows, in random order, that cut sets of these sizes down to the smallest of them.

    Raises:
        ValueError: the smallest set has fewer than 10 cells.
    """
    smallest = min(sizes)
    if smallest < FEWEST:
        raise ValueError(f"at least {FEWEST} cells in each set are needed, found {smallest}")
    generator = np.random.default_rng(seed)
    return [generator.permutation(size)[:smallest] for size in sizes]


def equal_sizes(sets: Sequence[Features], seed: int) -> list[Features]:
    """Every set cut down, at random, to the size of the smallest.

    Raises:
        ValueError: the smallest set has fewer than 10 cells.
    """
    rows = equal_rows([len(cells) for cells in sets], seed)
    return [cells.take(kept) for cells, kept in zip(sets, rows, strict=True)]


def distances(
    made: Features,
    real: Features,
    seed: int,
    synthetic_patients: Patients | None = None,
    real_patients: Patients | None = None,
) -> Metrics:
    """All figures of ``made`` against ``real``.

    Args:
        made: features of the set that is judged.
        real: features of as many real cells, by the same extractor.
        seed: of the random halves behind a spread.
        synthetic_patients: ``(N,)`` of ``made`` where that is of real cells; None where its images are
            independent, such as those of a GAN.
        real_patients: ``(N,)`` of ``real``; likewise.

    Returns:
        ``fid`` (0 is best; Heusel et al. 2017), ``kid`` with ``kid_spread`` (0 is best, may be
        slightly negative; Binkowski et al. 2018), ``inception_score`` (1 to the number of classes;
        Salimans et al. 2016, in one split), ``precision`` and ``recall`` (0 to 1, k = 3;
        Kynkaanniemi et al. 2019), ``density`` (0 and up, 1 for real cells) and ``coverage`` (0 to
        1, both k = 5; Naeem et al. 2020). Of any other extractor than Inception the first three
        are ``frechet_distance``, ``kernel_distance`` and ``class_score``: the same formulas, but
        numbers that compare with nobody else's.

    Raises:
        ValueError: sets of different sizes or extractors, fewer than 10 cells, or features that
            are not finite.
    """
    _check(made, real)
    here, there = (torch.from_numpy(cells.pooled).double() for cells in (made, real))
    kernel, spread = kernel_distance(here, there, seed, synthetic_patients, real_patients)
    frechet_name, kernel_name, score_name = _names(made.inception)
    return {
        frechet_name: frechet_distance(here, there),
        kernel_name: kernel,
        f"{kernel_name}_spread": spread,
        score_name: None if made.logits is None else class_score(torch.from_numpy(made.logits)),
        **precision_recall(here, there),
        **density_coverage(here, there),
    }


def _names(inception: bool) -> tuple[str, str, str]:
    if inception:
        return "fid", "kid", "inception_score"
    return "frechet_distance", "kernel_distance", "class_score"


def frechet_distance(made: Tensor, real: Tensor) -> float:
    """Squared Frechet distance of two Gaussians fitted to ``float64 (N, D)`` each."""
    fitted = [metric_fid.fid_features_to_statistics(features) for features in (made, real)]
    (distance,) = metric_fid.fid_statistics_to_metric(*fitted, verbose=False).values()
    return float(distance)


def kernel_distance(
    made: Tensor,
    real: Tensor,
    seed: int,
    synthetic_patients: Patients | None = None,
    real_patients: Patients | None = None,
) -> tuple[float, float | None]:
    """Squared maximum mean discrepancy, cubic kernel, unbiased, of ``float64 (N, D)`` each.

    Args:
        made: features of one set.
        real: features of the other.
        seed: of the random halves.
        synthetic_patients: ``(N,)`` of ``made``; None where its images are independent.
        real_patients: ``(N,)`` of ``real``; likewise.

    Returns:
        The distance over all cells, and its standard deviation over 50 random halves of both sets,
        which estimates the standard error of the former (the jackknife that leaves out half, Shao &
        Wu 1989; of an odd number of patients the smaller half, so that it errs on the large side).
        Halves are of whole patients, as images of one patient are alike. None with fewer than three
        effective patients in either set.

    Raises:
        ValueError: a set of one image, or of so few that no half of its patients has two.
    """
    x, y = made.numpy(), real.numpy()
    for name, features in (("made", x), ("real", y)):
        if len(features) < 2:
            raise ValueError(f"{name}={len(features)} images: a distance needs pairs; add images")
    kernels = [metric_kid.kernel_poly(a, b, **_KERNEL) for a, b in ((x, x), (x, y), (y, y))]
    distance = _mmd2(*kernels)
    patients = [patient_numbers(synthetic_patients, len(x)), patient_numbers(real_patients, len(y))]
    if min(effective_patients(codes.tolist()) for codes in patients) < FEWEST_PATIENTS:
        return distance, None
    for name, codes in zip(("made", "real"), patients, strict=True):
        largest = np.sort(np.bincount(codes))[::-1]
        if largest[: len(largest) // 2].sum() < 2:
            raise ValueError(
                f"{name}={len(codes)} images of {len(largest)} patients: no half of the patients "
                "has two images, which the unbiased estimate needs; add images"
            )
    generator = np.random.default_rng(seed)
    halves: list[float] = []
    while len(halves) < _HALVES:
        i, j = (_half(codes, generator) for codes in patients)
        if min(len(i), len(j)) < 2:  # the unbiased estimate needs pairs
            continue
        chosen = (np.ix_(i, i), np.ix_(i, j), np.ix_(j, j))
        halves.append(_mmd2(*(kernel[rows] for kernel, rows in zip(kernels, chosen, strict=True))))
    return distance, float(np.std(halves))


def patient_numbers(patients: Patients | None, count: int) -> npt.NDArray[np.int64]:
    """Number of each image's patient ``(N,)``, from 0.

    Args:
        patients: ``(N,)``; None where each of the images is independent.
        count: N.
    """
    return np.arange(count) if patients is None else np.unique(patients, return_inverse=True)[1]


def _mmd2(within: Floats, across: Floats, other: Floats) -> float:
    """Unbiased squared discrepancy from kernels ``(M, M)``, ``(M, N)`` and ``(N, N)``.

    Torch-fidelity's takes sets of one size only, and halves of patients are not of one size.
    """
    own = [
        (kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1))
        for kernel in (within, other)
    ]
    return float(sum(own) - 2 * across.mean())


def _half(patients: npt.NDArray[np.int64], generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rows of the images of half the patients, drawn without replacement."""
    count = int(patients.max()) + 1
    drawn = generator.choice(count, count // 2, replace=False)
    return np.flatnonzero(np.isin(patients, drawn))


def class_score(logits: Tensor) -> float:
    """Exponential of the mutual information between cell and predicted class, from ``(N, K)``.

    One split: ten splits of a few hundred cells would only add bias.
    """
    score = metric_isc.isc_features_to_metric(logits, splits=1, shuffle=False)
    return float(score[metric_isc.KEY_METRIC_ISC_MEAN])


def precision_recall(made: Tensor, real: Tensor) -> Metrics:
    """Share of made cells within the real ones' reach, and of real within the made ones'."""
    found = metric_prc.prc_features_to_metric(
        made,
        real,
        prc_neighborhood=_PRECISION_NEIGHBORS,
        prc_batch_size=10_000,
        save_cpu_ram=False,
        verbose=False,
    )
    return {name: float(found[name]) for name in ("precision", "recall")}


def density_coverage(made: Tensor, real: Tensor) -> Metrics:
    """Density and coverage of ``float64 (N, D)`` each.

    Density is how many real cells' reach a made cell lies in, over k; coverage is the share of real
    cells with a made cell in their reach. Torch-fidelity lacks both.
    """
    k = _COVERAGE_NEIGHBORS
    # The nearest of all is the cell itself.
    reach = torch.cdist(real, real).kthvalue(k + 1).values
    inside = torch.cdist(made, real) <= reach
    return {
        "density": float(inside.double().sum(dim=1).mean() / k),
        "coverage": float(inside.any(dim=0).double().mean()),
    }


def _check(made: Features, real: Features) -> None:
    if made.name != real.name:
        raise ValueError(f"features of different extractors: {made.name} and {real.name}")
    if len(made) != len(real):
        raise ValueError(
            f"sets must have the same size, found {len(made)} and {len(real)} cells;"
            " cut them down with equal_sizes"
        )
    if len(made) < FEWEST:
        raise ValueError(f"at least {FEWEST} cells in each set are needed, found {len(made)}")
    for cells in (made, real):
        if not np.isfinite(cells.pooled).all():
            raise ValueError(f"features of {cells.name} are not finite")
