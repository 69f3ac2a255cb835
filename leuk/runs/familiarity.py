"""What a run's training cells look like to its classifier: worked out once, kept in its folder."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leuk.data.datamodule import CNMCDataModule
from leuk.errors import DataError
from leuk.evaluate.novelty import Familiar, largest_parts
from leuk.evaluate.vectors import Floats
from leuk.runs.finished import Finished
from leuk.runs.predictor import Predictor
from leuk.store.atomic import whole_file
from leuk.store.foreign import read_arrays

log = logging.getLogger(__name__)

FILE = "familiar.npz"
"""In the folder of a run."""

FORMAT = 2
"""Part of the key: raise it when what is kept changes its meaning."""

_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What tells a new image from training cells.

    Attributes:
        images: distances to them, and the limit that validation cells gave.
        smallest: share of the frame that the smallest training cell covers.
    """

    images: Familiar
    smallest: float


def load_familiarity(finished: Finished, predictor: Predictor, root: str | None) -> Familiarity:
    """Read what is kept in the run's folder, or work it out from its data and keep it.

    Real training cells alone count, not made ones.

    Args:
        finished: the run.
        predictor: of its classifier.
        root: where the images of the data set lie now, if they have moved.

    Raises:
        DataError: nothing is kept, and the data is not there.
        StoreError: the data is not what it was.
    """
    path = finished.folder / FILE
    key = f"{FORMAT} {finished.weights_digest}"
    if (kept := _read(path, key)) is not None:
        return kept
    try:
        data = finished.data(root)
    except DataError as error:
        raise DataError(f"{error}; or leave this out: familiarity=false") from error
    log.info("%s: looking at its training cells, once", finished.folder.name)
    made = _work_out(data, predictor)
    try:
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                key=np.array(key),
                features=made.images.features,
                limit=np.array(made.images.limit),
                smallest=np.array(made.smallest),
            )
    except OSError as error:
        log.warning("%s: cannot be kept (%s); it is worked out anew each time", path, error)
    return made


def _work_out(data: CNMCDataModule, predictor: Predictor) -> Familiarity:
    train, smallest = _seen(data, predictor, "train")
    held_out, _ = _seen(data, predictor, "val")
    patients = data.stage("val")["patient"].to_numpy().astype(str)
    return Familiarity(Familiar.fitted(train, held_out, patients), float(smallest.min()))


def _seen(
    data: CNMCDataModule, predictor: Predictor, stage: str
) -> tuple[npt.NDArray[np.float32], Floats]:
    """Features of a stage's cells, and the share of the frame that each covers."""
    rows = data.stage(stage).index.to_numpy()
    features, shares = [], []
    for start in range(0, len(rows), _CHUNK):
        pixels = data.dataset.data[rows[start : start + _CHUNK]]
        features.append(predictor.ask(pixels).features)
        shares.append(largest_parts(pixels))
    return np.concatenate(features), np.concatenate(shares)


def _read(path: Path, key: str) -> Familiarity | None:
    """What is kept, if it is of these weights and whole."""
    if not path.exists():
        return None
    try:
        kept = read_arrays(path)
        if str(kept["key"]) != key:
            log.info("%s: of other weights; worked out anew", path)
            return None
        cells = Familiar(kept["features"], float(kept["limit"]))
        return Familiarity(cells, float(kept["smallest"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s: cannot be read (%s); worked out anew", path, error)
        return None
