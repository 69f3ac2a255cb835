"""Rank agreement between maps of the same images, independent of method and scale."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor

from leuk.evaluate.vectors import Floats


def rank_correlation(one: Tensor, other: Tensor, masks: Tensor) -> Floats:
    """Spearman's rank correlation of two maps of each image within its mask.

    Args:
        one: ``(B, R, R)`` on the CPU.
        other: ``(B, R, R)`` on the CPU.
        masks: ``bool (B, R, R)``, the pixels to compare.

    Returns:
        ``float64 (B,)`` in [-1, 1]; NaN if a map is constant or not finite within the mask.
    """
    pairs = zip(one, other, masks, strict=True)
    return np.array([_spearman([a, b], mask)[0, 1] for a, b, mask in pairs], dtype=np.float64)


def agreement(maps: Mapping[str, Tensor], masks: Tensor) -> pd.DataFrame:
    """Mean Spearman rank correlation between methods, within the masks of the images.

    Args:
        maps: maps by method, ``(B, R, R)`` on the CPU, all for the same target classes.
        masks: ``bool (B, R, R)``, the pixels to compare.

    Returns:
        Methods by methods; NaN for a pair whose maps do not both vary on any image.
    """
    found = np.stack(
        [_spearman([batch[i] for batch in maps.values()], mask) for i, mask in enumerate(masks)]
    )
    seen = np.isfinite(found)
    with np.errstate(invalid="ignore"):
        mean = np.where(seen, found, 0).sum(axis=0) / seen.sum(axis=0)
    return pd.DataFrame(mean, index=list(maps), columns=list(maps))


def _spearman(maps: list[Tensor], mask: Tensor) -> Floats:
    """Rank correlations ``(M, M)`` of M maps within a mask."""
    if int(mask.sum()) < 2:
        return np.full((len(maps), len(maps)), np.nan)
    values = torch.stack([one[mask] for one in maps]).numpy()
    ranks = rankdata(values, axis=1)
    # rankdata ranks NaN too.
    ranks[~np.isfinite(values).all(axis=1)] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.corrcoef(ranks))
