"""Measures of every cell of a pixel store, taken once: what the baselines look at."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from leuk.data.datamodule import CNMCDataModule
from leuk.evaluate.morphology import MEASURES, measure_each
from leuk.evaluate.vectors import Images
from leuk.store.artefacts import make_once

log = logging.getLogger(__name__)

FORMAT = 1
"""Part of the key: raise it when a measure changes."""

_FILE = "measures.npy"
_CHUNK = 512


def measured(data: CNMCDataModule) -> pd.DataFrame:
    """Measures of all cells, one row each; the index is the row of the bank.

    They are taken from the pixels at the data's resolution and framing, all but the area, which is
    that in the image as it was published. A cell that left no lit pixel measures 0 in all.
    """
    store = data.dataset.store
    key = {"format": FORMAT, "pixels": store.fingerprint, "measures": list(MEASURES)}
    folder = make_once(
        data.cache, "measures", key, lambda target: _measure_all(store.pixels, target)
    )
    table = pd.DataFrame(np.load(folder / _FILE), columns=list(MEASURES))
    return table.assign(area=store.areas.astype(np.float64))


def _measure_all(pixels: Images, target: Path) -> None:
    log.info("measuring %d cells", len(pixels))
    starts = range(0, len(pixels), _CHUNK)
    rows = [measure_each(np.asarray(pixels[start : start + _CHUNK])) for start in starts]
    np.save(target / _FILE, np.concatenate(rows))
