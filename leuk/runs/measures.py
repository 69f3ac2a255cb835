"""Morphology of every image of a pixel store, computed once, for the baselines."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from leuk.data.datamodule import CNMCDataModule
from leuk.evaluate.morphology import MEASURES, measure_each
from leuk.evaluate.vectors import Images
from leuk.store.artifacts import make_once

log = logging.getLogger(__name__)

FORMAT = 1
"""Version in the cache key; increase it when a measure changes."""

_FILE = "measures.npy"
_CHUNK = 512


def measure_images(data: CNMCDataModule) -> pd.DataFrame:
    """Morphology of all images, indexed by row of the bank.

    Measures are of the pixels at the data's resolution and framing, except the area, which is of
    the published image. An image without a lit pixel has 0 in all.

    Args:
        data: data module with its pixel store.
    """
    store = data.dataset.store
    key = {"format": FORMAT, "pixels": store.fingerprint, "measures": list(MEASURES)}
    folder = make_once(
        data.cache, "measures", key, lambda target: _measure_all(store.pixels, target)
    )
    table = pd.DataFrame(np.load(folder / _FILE), columns=list(MEASURES))
    return table.assign(area=store.areas.astype(np.float64))


def _measure_all(pixels: Images, target: Path) -> None:
    log.info("measuring %d images", len(pixels))
    starts = range(0, len(pixels), _CHUNK)
    rows = [measure_each(np.asarray(pixels[start : start + _CHUNK])) for start in starts]
    np.save(target / _FILE, np.concatenate(rows))
