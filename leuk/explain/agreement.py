"""How alike maps of the same cells are, whatever made them and whatever their scale."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor

from leuk.evaluate.vectors import Floats


def rank_correlation(one: Tensor, other: Tensor, cells: Tensor) -> Floats:
    """Spearman's rank correlation of two maps of each cell over its pixels, ``float64 (B,)``.

    Args:
        one: ``(B, R, R)`` on the CPU.
        other: likewise.
        cells: ``bool (B, R, R)``, the pixels that are compared.

    Returns:
        In [-1, 1]; NaN where a map is constant or not finite there.
    """
    pairs = zip(one, other, cells, strict=True)
    return np.array([_spearman([a, b], cell)[0, 1] for a, b, cell in pairs], dtype=np.float64)


def agreement(maps: Mapping[str, Tensor], cells: Tensor) -> pd.DataFrame:
    """Mean Spearman rank correlation of every two methods over the pixels of cells.

    Args:
        maps: by method ``(B, R, R)`` on the CPU, all toward the same classes.
        cells: ``bool (B, R, R)``.

    Returns:
        Methods by methods; NaN where no cell has maps of both that vary.
    """
    found = np.stack(
        [_spearman([of[i] for of in maps.values()], cell) for i, cell in enumerate(cells)]
    )
    seen = np.isfinite(found)
    with np.errstate(invalid="ignore"):
        mean = np.where(seen, found, 0).sum(axis=0) / seen.sum(axis=0)
    return pd.DataFrame(mean, index=list(maps), columns=list(maps))


def _spearman(maps: list[Tensor], cell: Tensor) -> Floats:
    """Correlations ``(M, M)`` of the ranks of maps within a cell."""
    if int(cell.sum()) < 2:
        return np.full((len(maps), len(maps)), np.nan)
    values = torch.stack([of[cell] for of in maps]).numpy()
    ranks = rankdata(values, axis=1)
    # A rank of anything is given to NaN too.
    ranks[~np.isfinite(values).all(axis=1)] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.corrcoef(ranks))
