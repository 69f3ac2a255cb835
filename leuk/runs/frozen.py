"""Decision rule of a finished run, chosen on its validation images."""

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
from leuk.runs.finished import FinishedRun
from leuk.store.foreign import file_in

THRESHOLDS = {"youden": "youden", "0.5": DEFAULT, "sensitivity": "sensitivity95"}
"""Values of ``threshold``, and the name of each in records."""


@dataclass(frozen=True)
class Frozen:
    """Decision rule, chosen on a run's validation images and applied unchanged to others.

    Attributes:
        name: name of the threshold, one of :data:`THRESHOLDS`.
        threshold: lowest score that is called leukemic, in [0, 1].
        temperature: temperature of the calibration of scores.
        band: calibrated scores that are referred to an expert.
        test: performance of the band on the run's test images.
    """

    name: str
    threshold: float
    temperature: float
    band: Band
    test: Achieved

    @classmethod
    def of(cls, finished: FinishedRun, name: str, aim: float) -> "Frozen":
        """Read threshold and temperature of a run, and choose the band on its validation images.

        Args:
            finished: the finished run.
            name: name of the threshold, one of :data:`THRESHOLDS`.
            aim: required share of correct decisions outside the band, in (0.5, 1).

        Raises:
            ConfigError: unknown name, or ``aim`` out of range.
            StoreError: a file of the run, or a value in it, is missing.
        """
        if name not in THRESHOLDS:
            raise ConfigError(f"threshold={name}: choose from {', '.join(THRESHOLDS)}")
        if not 0.5 < aim < 1:
            raise ConfigError(f"aim={aim}: it must be above 0.5 and below 1")
        record = finished.record
        try:
            chosen = record.metrics["thresholds"][THRESHOLDS[name]]
            # Metrics can be null, but not a threshold; this is for the type checker.
            threshold = float(chosen["value"] or 0.0)
            temperature = record.calibration["temperature"]
        except (KeyError, TypeError) as error:
            raise StoreError(
                f"{finished.folder / FILE}: it lacks the threshold {THRESHOLDS[name]} or the "
                "temperature; remove the folder and repeat the run"
            ) from error
        val, test = (_sample(finished, stage, temperature) for stage in ("val", "test"))
        band = choose_band(val, threshold, aim)
        return cls(name, threshold, temperature, band, achieved(test, threshold, band))

    @property
    def calibrated_threshold(self) -> float:
        """Threshold on the scale of calibrated scores."""
        return float(self.calibrated(np.array([self.threshold]))[0])

    def calibrated(self, scores: Floats) -> Floats:
        """Calibrate scores ``(N,)``."""
        return apply_temperature(scores, self.temperature)

    def leukemic(self, scores: Floats) -> Flags:
        """Decide by scores ``(N,)`` which images are called leukemic: ``bool (N,)``."""
        return scores >= self.threshold

    def refers(self, scores: Floats) -> Flags:
        """Decide by scores ``(N,)`` which images are referred to an expert: ``bool (N,)``."""
        return self.band.refers(self.calibrated(scores), self.leukemic(scores))


def _sample(finished: FinishedRun, stage: str, temperature: float) -> Sample:
    """Scores of a stage from the run's predictions file, with labels and patients."""
    name = finished.record.predictions
    path = finished.folder / (name or "predictions.csv")
    try:
        path = file_in(finished.folder, name or "predictions.csv")
        # As text, because pandas may round the last digit and move a score over a threshold.
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
            "folder and repeat the run"
        ) from error
