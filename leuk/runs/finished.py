"""Finished run, opened from its folder: settings, classifier, data, scores and decision rule.

Used by ``leuk explain``, ``predict`` and ``export``, and as an extractor of ``leuk synthesize``.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from hydra.utils import get_class
from omegaconf import DictConfig

from leuk.classifiers.base import Classifier
from leuk.config.schema import Count
from leuk.config.stored import check_complete, read_stored
from leuk.config.targets import check_targets, instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.data.decode import Frame
from leuk.data.scale import Scale, View
from leuk.errors import ConfigError, DataError, StoreError
from leuk.metrics.arrays import Flags, Floats
from leuk.metrics.calibration import apply_temperature
from leuk.metrics.classification import DEFAULT, Sample
from leuk.metrics.patients import by_patient, patient_threshold
from leuk.metrics.referral import Achieved, Band, achieved, choose_band
from leuk.metrics.synthetic.features import Network
from leuk.runs.classifier import WEIGHTS
from leuk.runs.evaluate import Scorer
from leuk.runs.record import FILE, Record, folders_of
from leuk.runs.run import resolved
from leuk.runs.trainer import older_arguments, read_checkpoint
from leuk.store import file_in

CONFIG = ".hydra/config.yaml"

THRESHOLDS = {"youden": "youden", "0.5": DEFAULT, "sensitivity": "sensitivity95"}
"""Values of ``threshold``, and the name of each in records."""


@dataclass(frozen=True)
class Frozen:
    """Decision rule, chosen on a run's validation images and applied unchanged to others."""

    name: str  # one of THRESHOLDS
    threshold: float  # lowest score that is called leukemic, in [0, 1]
    temperature: float
    band: Band  # calibrated scores that are referred to an expert
    test: Achieved  # performance of the band on the run's test images

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


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """Complete run of a sweep: its folder, its results and its config."""

    folder: Path
    record: Record
    cfg: DictConfig

    @classmethod
    def read(cls, run: str, key: str = "run") -> "FinishedRun":
        """Open the run in a folder under ``outputs/runs/<name>``; ``key`` is for error messages.

        Raises:
            ConfigError: the folder has no finished run.
            StoreError: the record or the config cannot be read.
        """
        folder = resolved(run)
        advice = "name the folder of a finished run, under outputs/runs/NAME"
        if not folder.is_dir():
            raise ConfigError(f"{key}={run}: no such folder; {advice}")
        if not (folder / FILE).is_file():
            runs = ", ".join(path.name for path in folders_of(folder))
            remedy = f"it has several runs, choose one: {runs}" if runs else advice
            raise ConfigError(f"{key}={run}: no {FILE} in it; {remedy}")
        record = Record.read(folder)
        if record.status != "complete":
            raise ConfigError(
                f"{key}={run}: not finished ({record.state}); repeat its leuk train command"
            )
        for file in (CONFIG, WEIGHTS):
            if not (folder / file).is_file():
                raise ConfigError(f"{key}={run}: no {file} in it; {advice}")
        cfg = read_stored(folder / CONFIG)
        check_complete(folder / CONFIG, cfg)
        # The folder may have moved, and its artifacts with it. A separate data.cache stays.
        if folder.parent.parent.name == "runs":
            cfg.outputs = str(folder.parents[2])
        return cls(folder, record, cfg)

    @property
    def scale(self) -> Scale:
        """Field of view of the training images."""
        if not (recorded := self.record.data.get("scale")):
            raise StoreError(
                f"{self.folder / FILE}: it lacks data.scale; remove the folder and repeat the run"
            )
        return Scale.of_record(recorded)

    @property
    def frame(self) -> Frame:
        """Framing and resolution of the classifier's input."""
        return Frame(int(self.cfg.data.resolution), self.cfg.data.framing, self.scale.canvas)

    def view(self, cfg: DictConfig) -> View:
        """Frame that brings new images to the training images' scale, see :meth:`Scale.view`."""
        return self.scale.view(self.frame, cfg.frame, cfg.pixel_size)

    @property
    def weights_digest(self) -> str:
        """Hash of the file with the best weights."""
        with (self.folder / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def classifier(self) -> Classifier:
        """Load the classifier with its best weights, on the CPU, in evaluation mode.

        Raises:
            ConfigError: ``model._target_`` is not a classifier.
            StoreError: the checkpoint cannot be read, or belongs to another run.
        """
        target = str(self.cfg.model._target_)
        check_targets({"model": {"_target_": target}})
        form = get_class(target)
        if not issubclass(form, Classifier):
            raise ConfigError(f"{self.folder / CONFIG}: {target} is not a classifier")
        stamp = {"form": form.__name__, "settings": self.record.fingerprint}
        if files := self.record.data.get("files"):
            stamp["data"] = files
        path = self.folder / WEIGHTS
        older = older_arguments(form, read_checkpoint(path, stamp))
        try:
            loaded = form.load_from_checkpoint(path, map_location="cpu", weights_only=True, **older)
        except (RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise StoreError(
                f"{path}: weights of another leuk version's {form.__name__} ({reason}); use the "
                f"version of the run ({self.record.versions.get('leuk')}), or repeat the run"
            ) from error
        assert isinstance(loaded, Classifier)
        return loaded.eval()

    def data(self, root: str | None = None) -> CNMCDataModule:
        """Set up the data module of the run; ``root`` is the new folder of images that have moved.

        Raises:
            ConfigError: ``root`` is set for phantom data, which has no image folder.
            DataError: the image folder does not exist.
            StoreError: the data differ from those of the run.
        """
        if root is not None:
            if "root" not in self.cfg.data:
                raise ConfigError(
                    f"root={root}: {self.folder.name} has phantom data, not a folder; remove root"
                )
            self.cfg.data.root = root
        images = self.cfg.data.get("root")
        if images is not None and not Path(images).expanduser().is_dir():
            raise DataError(f"{images}: no such folder; set the images' new folder with root=DIR")
        data: CNMCDataModule = instantiate(self.cfg.data, split=instantiate(self.cfg.split))
        if self.record.data.get("files") not in (None, data.listing()):
            raise StoreError(
                f"{data.root}: not the data that {self.folder.name} was trained on; set "
                "the folder of its data with root=DIR"
            )
        data.prepare_data()
        data.setup()
        return data

    def scorer(self, cfg: DictConfig, batch_size: int) -> Scorer:
        """Move the classifier to one device, by default with the precision of its training."""
        changes = {}
        if cfg.trainer.precision is None:
            changes["precision"] = self.record.device["precision"]
        return Scorer.build(cfg, self.folder, self.classifier(), batch_size, **changes)

    def frozen(self, name: str, aim: float) -> Frozen:
        """Read threshold and temperature, and choose the band on the validation images.

        ``name`` is one of :data:`THRESHOLDS`, ``aim`` the required share of correct decisions
        outside the band, in (0.5, 1).

        Raises:
            ConfigError: unknown name, or ``aim`` out of range.
            StoreError: a file of the run, or a value in it, is missing.
        """
        if name not in THRESHOLDS:
            raise ConfigError(f"threshold={name}: choose from {', '.join(THRESHOLDS)}")
        if not 0.5 < aim < 1:
            raise ConfigError(f"aim={aim}: it must be above 0.5 and below 1")
        try:
            chosen = self.record.metrics["thresholds"][THRESHOLDS[name]]
            # Metrics can be null, but not a threshold; this is for the type checker.
            threshold = float(chosen["value"] or 0.0)
            temperature = self.record.calibration["temperature"]
        except (KeyError, TypeError) as error:
            raise StoreError(
                f"{self.folder / FILE}: it lacks the threshold {THRESHOLDS[name]} or the "
                "temperature; remove the folder and repeat the run"
            ) from error
        band = choose_band(self._sample("val", temperature), threshold, aim)
        test = achieved(self._sample("test", temperature), threshold, band)
        return Frozen(name, threshold, temperature, band, test)

    def frozen_for_patients(self, aim: float) -> Frozen:
        """Choose threshold and band of patients' scores on the validation patients.

        Scores are mean log odds of calibrated scores, so their temperature is 1.

        Raises:
            StoreError: a file of the run, or a value in it, is missing.
        """
        temperature = self.record.calibration["temperature"]
        val, test = (by_patient(self._sample(stage, temperature)) for stage in ("val", "test"))
        threshold = patient_threshold(val.scores, val.labels)
        val, test = (replace(one, calibrated=one.scores) for one in (val, test))
        band = choose_band(val, threshold, aim)
        return Frozen("patients", threshold, 1.0, band, achieved(test, threshold, band))

    def _sample(self, stage: str, temperature: float) -> Sample:
        name = self.record.predictions or "predictions.csv"
        try:
            # As text, because pandas may round the last digit and move a score over a threshold.
            texts = {"score": str, "patient": str}
            path, columns = file_in(self.folder, name), ["stage", "label", *texts]
            table = pd.read_csv(path, usecols=columns, dtype=texts, keep_default_na=False)
            table = table[table["stage"] == stage]
            scores = table["score"].to_numpy().astype(np.float64)
            return Sample(
                scores,
                table["label"].to_numpy(np.int64),
                table["patient"].to_numpy().astype(str),
                apply_temperature(scores, temperature),
            )
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(
                f"{self.folder / name}: the run's scores of {stage} images cannot be read "
                f"({error}); remove the folder and repeat the run"
            ) from error


def from_run(run: str, batch_size: Count = 64, device: str = "cpu") -> Network:
    """Build an extractor from the classifier of a finished run, on ``cpu`` or ``cuda``."""
    finished = FinishedRun.read(run, key="extractor.run")
    classifier = finished.classifier().to(device)
    name = f"classifier {finished.folder.name}"
    return Network(name, classifier.features, classifier, batch_size, device)


def check_own_folders(folders: Sequence[Path]) -> None:
    """Refuse jobs of a command that would write to the same folder."""
    for folder in folders:
        if folders.count(folder) > 1:
            raise StoreError(f"{folder}: two jobs have this folder; give each its own name=NAME")
