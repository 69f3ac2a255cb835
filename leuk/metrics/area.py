"""Performance that cell area cannot explain.

Cell area alone reaches an AUROC of 0.84 on one fold of C-NMC and 0.87 on another, so a network can
score well by measuring area. Two controls: AUROC among cells of similar area, and scores after
every cell has been scaled to the same area.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from leuk.data.augment import warp
from leuk.data.decode import cell_mask
from leuk.data.labels import Label
from leuk.metrics.arrays import Floats
from leuk.metrics.bootstrap import LEVEL, Fold, estimates
from leuk.metrics.classification import Sample, pairs_won

_ROUNDS = 3
"""Rounds of scaling: interpolation blurs the rim, so the first leaves areas up to 20 % off."""


def auroc_within_area_bins(
    sample: Sample, areas: Floats, bins: int = 5, draws: int = 1000
) -> dict[str, Any]:
    """Compute AUROC among cells of similar area, from the areas ``(N,)`` of the images.

    Returns:
        ``value``: share of the pairs of a leukemic and a healthy image of the same bin in which the
        leukemic image has the higher score: the mean of the bins' AUROCs, weighted by their pairs;
        None if no bin has both classes. ``low`` and ``high``: its confidence interval, None if a
        class has a single patient. ``patients``: the same three with equal weight for every patient
        of a class: each image counts 1 / (the patient's images of its class, in all bins).
        ``bins``: a dictionary for each of the bins of equally many images, smallest cells first:
        areas ``low`` to ``high``, numbers of images ``hem`` and ``all``, and ``auroc`` and
        ``auroc_patients`` of these images, None if a class is missing.
    """
    labels, codes, count = sample.labels == 1, sample.codes, len(sample.images)
    # Pairs (S, S) of each two patients in all bins: divided by them, patients weigh the same.
    whole = np.maximum(np.outer(sample.images_of(Label.ALL), sample.images_of(Label.HEM)), 1)
    edges = np.quantile(areas, np.linspace(0, 1, bins + 1)[1:-1])
    bin_of = np.searchsorted(edges, areas, side="right")
    described, pairs = [], np.zeros((2, count, count))  # in the right order, and all
    for number in np.unique(bin_of):
        rows = np.flatnonzero(bin_of == number)
        leukemic, healthy = (
            np.bincount(codes[rows[of_class]], minlength=count)
            for of_class in (labels[rows], ~labels[rows])
        )
        won = pairs_won(sample.scores[rows], labels[rows], codes[rows], count)
        own = np.stack([won, np.outer(leukemic, healthy)])
        pairs += own
        described.append(
            {
                "low": float(areas[rows].min()),
                "high": float(areas[rows].max()),
                "hem": int(healthy.sum()),
                "all": int(leukemic.sum()),
                "auroc": _share(own),
                "auroc_patients": _share(own / whole),
            }
        )
    nothing = {"value": None, "low": None, "high": None}
    if not pairs[1].any():
        return {**nothing, "bins": described, "patients": nothing}

    def auroc(run: Floats, weights: Floats) -> Floats:
        """AUROC ``(2, D)``, by image and by patient, from their pairs ``(2, 2, S, S)``."""
        won, every = np.moveaxis(((weights @ run) * weights).sum(axis=-1), 1, 0)
        # A resample without a pair of similar area is no evidence either way.
        return np.asarray(np.divide(won, every, out=np.full_like(won, 0.5), where=every > 0))

    fold = Fold([np.stack([pairs, pairs / whole])], sample.strata, sample.images)
    found = estimates([fold], auroc, draws, [False, True])
    patients = min(map(sample.subjects_of, Label))
    effective = min(map(sample.effective_subjects_of, Label)), patients
    # A single patient does not show how patients differ.
    ends = [
        one.interval_within(LEVEL, 0, 1, n) if patients > 1 else (None, None)
        for one, n in zip(found, effective, strict=True)
    ]
    by_image, by_patient = (
        {"value": one.value, "low": low, "high": high}
        for one, (low, high) in zip(found, ends, strict=True)
    )
    return {**by_image, "bins": described, "patients": by_patient}


def _share(pairs: Floats) -> float | None:
    """Share of the pairs ``(2, S, S)`` in the right order; None without pairs."""
    won, total = (one.sum() for one in pairs)
    return float(won / total) if total else None


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
