"""What a finished run chose on its validation cells, to be used on others as it is."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from leuk.errors import ConfigError, StoreError
from leuk.evaluate.calibration import apply_temperature
from leuk.evaluate.referral import Achieved, Band, achieved, choose_band
from leuk.evaluate.sample import Sample
from leuk.evaluate.thresholds import DEFAULT
from leuk.evaluate.vectors import Flags, Floats
from leuk.grid.record import FILE
from leuk.runs.finished import Finished
from leuk.store.foreign import file_in

THRESHOLDS = {"youden": "youden", "0.5": DEFAULT, "sensitivity": "sensitivity95"}
"""What can be asked for, and what a record calls it."""


@dataclass(frozen=True)
class Frozen:
    """How scores become decisions.

    Attributes:
        name: of the threshold, one of :data:`THRESHOLDS`.
        threshold: a cell is called leukemic from this score on.
        temperature: that calibrates scores.
        band: of calibrated scores whose cells are left to an expert.
        test: what the band achieved on the run's test images.
    """

    name: str
    threshold: float
    temperature: float
    band: Band
    test: Achieved

    @classmethod
    def of(cls, finished: Finished, name: str, aim: float) -> "Frozen":
        """Read what a run chose, and choose the band on the same validation cells.

        Args:
            finished: the run.
            name: one of :data:`THRESHOLDS`.
            aim: share of right decisions outside the band.

        Raises:
            ConfigError: another name, or an aim out of range.
            StoreError: the run's folder lacks one of the files, or something in it.
        """
        if name not in THRESHOLDS:
            raise ConfigError(f"threshold={name}: choose from {', '.join(THRESHOLDS)}")
        if not 0.5 < aim < 1:
            raise ConfigError(f"aim={aim}: it lies between 0.5 and 1")
        record = finished.record
        try:
            chosen = record.metrics["thresholds"][THRESHOLDS[name]]
            # Of a threshold there is always a value, but its type is that of every figure.
            threshold = float(chosen["value"] or 0.0)
            temperature = record.calibration["temperature"]
        except (KeyError, TypeError) as error:
            raise StoreError(
                f"{finished.folder / FILE}: it lacks the threshold {THRESHOLDS[name]} or the "
                "temperature; remove the folder and run the cell again"
            ) from error
        val, test = (_sample(finished, stage, temperature) for stage in ("val", "test"))
        band = choose_band(val, threshold, aim)
        return cls(name, threshold, temperature, band, achieved(test, threshold, band))

    @property
    def calibrated_threshold(self) -> float:
        """The threshold at the temperature."""
        return float(self.calibrated(np.array([self.threshold]))[0])

    def calibrated(self, scores: Floats) -> Floats:
        """Scores ``(N,)`` at the temperature."""
        return apply_temperature(scores, self.temperature)

    def leukemic(self, scores: Floats) -> Flags:
        """Whether each of ``(N,)`` cells is called leukemic."""
        return scores >= self.threshold

    def refers(self, scores: Floats) -> Flags:
        """Whether each of ``(N,)`` cells is left to an expert by its score."""
        return self.band.refers(self.calibrated(scores), self.leukemic(scores))


def _sample(finished: Finished, stage: str, temperature: float) -> Sample:
    """Scores of a stage, calibrated, and whose images they are of."""
    name = finished.record.predictions
    path = finished.folder / (name or "predictions.csv")
    try:
        path = file_in(finished.folder, name or "predictions.csv")
        # As text, since pandas may miss a number by its last digit, and with it a threshold.
        texts = {"score": str, "patient": str}
        columns = ["stage", "label", *texts]
        table = pd.read_csv(path, usecols=columns, dtype=texts, keep_default_na=False)
        table = table[table["stage"] == stage]
        scores = table["score"].to_numpy().astype(np.float64)
        calibrated = apply_temperature(scores, temperature)
        labels, patients = (
            table["label"].to_numpy(np.int64),
            table["patient"].to_numpy().astype(str),
        )
        return Sample(scores, labels, patients, calibrated)
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(
            f"{path}: the run's scores of {stage} images cannot be read ({error}); remove the "
            "folder and run the cell again"
        ) from error
