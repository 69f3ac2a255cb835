"""Performance that cell area cannot explain.

Cell area alone reaches an AUROC of 0.84 on one fold of C-NMC and 0.87 on another, so a network can
score well by measuring area. Two controls: AUROC among cells of similar area, and scores after
every cell has been scaled to the same area.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from leuk.data.augment import warp
from leuk.data.decode import cell_mask
from leuk.data.labels import Label
from leuk.metrics.arrays import Floats
from leuk.metrics.bootstrap import Bootstrap, Fold, Sample
from leuk.metrics.classification import pairs_won

_ROUNDS = 3
"""Rounds of scaling: interpolation blurs the rim, so the first leaves areas up to 20 % off."""


@dataclass(frozen=True)
class AreaBin:
    """Images of cells with areas from ``low`` to ``high``, as shares of the image.

    Attributes:
        hem: number of healthy images.
        all: number of leukemic images.
        auroc: AUROC of these images; None if a class is missing.
        auroc_patients: AUROC with the weights of :attr:`WithinBins.patients`.
    """

    low: float
    high: float
    hem: int
    all: int
    auroc: float | None
    auroc_patients: float | None


@dataclass(frozen=True)
class WithinBins:
    """AUROC among cells of similar area.

    Attributes:
        value: share of the pairs of a leukemic and a healthy image of the same bin in which the
            leukemic image has the higher score: the mean of the bins' AUROCs, weighted by their
            pairs. None if no bin has both classes.
        low: lower end of the confidence interval; like the upper end ``high`` None if a class has
            a single patient.
        bins: the bins, smallest cells first.
        patients: ``value``, ``low`` and ``high`` with equal weight for every patient of a class:
            each image counts 1 / (the patient's images of its class, in all bins), as in
            ``auroc_patients`` of :func:`leuk.metrics.classification.patient_metrics`.
    """

    value: float | None
    low: float | None
    high: float | None
    bins: list[AreaBin]
    patients: dict[str, float | None]


@dataclass(frozen=True)
class _Pairs:
    """Pairs of images by patient ``(S, S)``: those in which the leukemic image wins, and all."""

    won: Floats
    all: Floats

    @property
    def share(self) -> float | None:
        """Share of pairs in the right order; None without pairs."""
        total = self.all.sum()
        return float(self.won.sum() / total) if total else None

    def by_patient(self, sample: Sample) -> "_Pairs":
        """Pairs weighted so that every patient of a class weighs the same."""
        count = len(self.won)
        images = [np.bincount(sample.codes[sample.labels == c], minlength=count) for c in (1, 0)]
        total = np.maximum(np.outer(*images), 1)
        return _Pairs(self.won / total, self.all / total)

    def auroc(self, weights: Floats) -> Floats:
        """AUROC ``(D,)`` for weights of the patients ``(D, S)``."""
        won, total = (((weights @ pairs) * weights).sum(axis=1) for pairs in (self.won, self.all))
        # A resample without a pair of similar area is no evidence either way.
        share: Floats = np.divide(won, total, out=np.full_like(won, 0.5), where=total > 0)
        return share


def auroc_within_area_bins(
    sample: Sample,
    areas: Floats,
    bins: int = 5,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> WithinBins:
    """Compute AUROC among cells of similar area.

    Args:
        sample: the images of a stage with their scores.
        areas: ``(N,)`` cell areas of these images, such as shares of the image.
        bins: number of bins, with equally many images in each.
        draws: bootstrap resamples of the patients, for the interval.
        seed: seed of the resamples.
        level: confidence level, in (0, 1).

    Raises:
        ValueError: the number of areas differs from the number of images.
    """
    if areas.shape != sample.labels.shape:
        raise ValueError(f"{len(sample)} images but {len(areas)} areas")
    labels, codes = sample.labels == 1, sample.codes
    edges = np.quantile(areas, np.linspace(0, 1, bins + 1)[1:-1])
    bin_of = np.searchsorted(edges, areas, side="right")
    count = int(codes.max()) + 1
    described, found = [], []
    for number in np.unique(bin_of):
        rows = np.flatnonzero(bin_of == number)
        won = pairs_won(sample.scores[rows], labels[rows], codes[rows], count)
        leukemic, healthy = (
            np.bincount(codes[rows[of_class]], minlength=count)
            for of_class in (labels[rows], ~labels[rows])
        )
        own = _Pairs(won, np.outer(leukemic, healthy).astype(np.float64))
        found.append(own)
        described.append(
            AreaBin(
                low=float(areas[rows].min()),
                high=float(areas[rows].max()),
                hem=int(healthy.sum()),
                all=int(leukemic.sum()),
                auroc=own.share,
                auroc_patients=own.by_patient(sample).share,
            )
        )
    pairs = _Pairs(np.sum([p.won for p in found], 0), np.sum([p.all for p in found], 0))
    if not pairs.all.any():
        undefined = dict.fromkeys(("value", "low", "high"))
        return WithinBins(None, None, None, described, undefined)
    both = pairs, pairs.by_patient(sample)
    bootstrap = Bootstrap([Fold([both], sample.strata, count, sample.images)], draws, seed)
    estimates = bootstrap.estimates(
        lambda run, weights: np.stack([pairs.auroc(weights) for pairs in run]),
        np.array([False, True]),
    )
    patients = min(map(sample.subjects_of, Label))
    effective = min(map(sample.effective_subjects_of, Label)), patients
    (value, low, high), by_patient = (
        # A single patient does not show how patients differ.
        (found.value, *(found.interval_within(level, 0, 1, n) if patients > 1 else (None, None)))
        for found, n in zip(estimates, effective, strict=True)
    )
    named = dict(zip(("value", "low", "high"), by_patient, strict=True))
    return WithinBins(value, low, high, described, named)


def cell_areas(images: Tensor) -> Tensor:
    """Share of each image ``(B, 3, R, R)`` in [0, 1] that the cell covers, ``(B,)``."""
    return cell_mask(images).float().mean(dim=(1, 2))


def scaled_to_one_size(images: Tensor, target_area: float) -> Tensor:
    """Scale every cell to the same area and center it.

    A cell too long to fit its image at that area is enlarged only as far as it fits, and stays
    smaller. An image without a cell is returned unchanged. A trace of the size remains: an enlarged
    cell is less sharp than a shrunk cell.

    Args:
        images: ``(B, 3, R, R)`` in [0, 1], on any device; the background is black.
        target_area: share of the image, in (0, 1), such as the mean cell area of the train stage.

    Raises:
        ValueError: the area is outside (0, 1).
    """
    if not 0 < target_area < 1:
        raise ValueError(f"target_area={target_area}: a cell's share of the image is in (0, 1)")
    lit = cell_mask(images)
    has_cell = lit.any(dim=2).any(dim=1)
    left, width = _extent(lit.any(dim=1))
    upper, height = _extent(lit.any(dim=2))
    # The coordinates of a warp run from -1 to 1.
    x, y = (2 * start + size - 1 for start, size in ((left, width), (upper, height)))
    shrink, zero, scaled = torch.ones_like(x), torch.zeros_like(x), images
    for _ in range(_ROUNDS):
        shrink = shrink * torch.sqrt(cell_areas(scaled) / target_area)
        shrink = shrink.clamp(min=torch.maximum(width, height))
        rows = [torch.stack([shrink, zero, x], dim=1), torch.stack([zero, shrink, y], dim=1)]
        scaled = warp(images, torch.stack(rows, dim=1))
    return torch.where(has_cell[:, None, None, None], scaled, images)


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First occupied column of ``(B, R)`` and number of columns to the last, as shares of R."""
    side = occupied.shape[1]
    start = occupied.float().argmax(dim=1)
    end = side - occupied.flip(1).float().argmax(dim=1)
    return start / side, (end - start) / side
