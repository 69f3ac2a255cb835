"""Features of a run's training images, to find unfamiliar new images; cached in its folder."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leuk.data.datamodule import CNMCDataModule
from leuk.errors import DataError
from leuk.evaluate.novelty import Familiar, largest_parts
from leuk.evaluate.vectors import Floats
from leuk.runs.finished import FinishedRun
from leuk.runs.predictor import Predictor
from leuk.store.atomic import whole_file
from leuk.store.foreign import read_arrays

log = logging.getLogger(__name__)

FILE = "familiar.npz"
"""Cache file in the folder of a run."""

FORMAT = 2
"""Version in the cache key; increase it when the content of the file changes its meaning."""

_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Reference values of the training images, with which new images are compared.

    Attributes:
        images: training features, and the limit of the distance from validation images.
        smallest: share of the frame that the smallest training cell covers, in [0, 1].
    """

    images: Familiar
    smallest: float


def load_familiarity(finished: FinishedRun, predictor: Predictor, root: str | None) -> Familiarity:
    """Read the cache in the run's folder, or compute it from the run's real training images.

    Args:
        finished: the finished run.
        predictor: predictor with the run's classifier.
        root: new location of the data set's images, if they have moved.

    Raises:
        DataError: the cache does not exist, and neither does the image folder.
        StoreError: the data differ from those of the run.
    """
    path = finished.folder / FILE
    key = f"{FORMAT} {finished.weights_digest}"
    if (cached := _read(path, key)) is not None:
        return cached
    try:
        data = finished.data(root)
    except DataError as error:
        raise DataError(f"{error}; or skip the comparison with familiarity=false") from error
    log.info("%s: computing features of its training images, once", finished.folder.name)
    familiarity = _compute(data, predictor)
    try:
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                key=np.array(key),
                features=familiarity.images.features,
                limit=np.array(familiarity.images.limit),
                smallest=np.array(familiarity.smallest),
            )
    except OSError as error:
        log.warning("%s: cannot be written (%s); it will be computed again each time", path, error)
    return familiarity


def _compute(data: CNMCDataModule, predictor: Predictor) -> Familiarity:
    train, shares = _features_and_shares(data, predictor, "train")
    held_out, _ = _features_and_shares(data, predictor, "val")
    patients = data.stage("val")["patient"].to_numpy().astype(str)
    return Familiarity(Familiar.fitted(train, held_out, patients), float(shares.min()))


def _features_and_shares(
    data: CNMCDataModule, predictor: Predictor, stage: str
) -> tuple[npt.NDArray[np.float32], Floats]:
    """Features of a stage's images, and the share of the frame that each cell covers."""
    rows = data.stage(stage).index.to_numpy()
    features, shares = [], []
    for start in range(0, len(rows), _CHUNK):
        pixels = data.dataset.data[rows[start : start + _CHUNK]]
        features.append(predictor.predict(pixels).features)
        shares.append(largest_parts(pixels))
    return np.concatenate(features), np.concatenate(shares)


def _read(path: Path, key: str) -> Familiarity | None:
    """Read the cache; None if it is missing, damaged or of other weights."""
    if not path.exists():
        return None
    try:
        cached = read_arrays(path)
        if str(cached["key"]) != key:
            log.info("%s: belongs to other weights; computing it again", path)
            return None
        images = Familiar(cached["features"], float(cached["limit"]))
        return Familiarity(images, float(cached["smallest"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s: cannot be read (%s); computing it again", path, error)
        return None
