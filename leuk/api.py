"""leuk in a notebook: finished runs, results of a sweep, data modules and GANs, by name.

Every function calls what the command line calls; ``import leuk`` re-exports them.

Example::

    import leuk

    run = leuk.load_run("outputs/runs/demo/cnn-none-folds-s0")
    run.predict("my/images")                 # DataFrame: image, score, decision, refer, ...
    run.explain(pixels, ["gradcam"])         # {"gradcam": Attribution}
    leuk.report_table("outputs/runs/demo")   # DataFrame: a row per run, configuration, baseline
    data = leuk.data_module("phantom", resolution=32)
    leuk.gan("dcgan", "gan.latent=64").sample(8, label=1, seed=0)
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig

from leuk.config.preflight import CommandLine, compose_runs
from leuk.config.schema import register
from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.data.pixels import to_float
from leuk.errors import ConfigError
from leuk.explain.base import Attribution, Explainer
from leuk.explain.cohort import choose_background
from leuk.gans.base import Adversarial
from leuk.metrics.arrays import Images
from leuk.report.load import read_results
from leuk.report.page import build_report
from leuk.runs.evaluate import Scorer
from leuk.runs.finished import FinishedRun
from leuk.runs.predict import predict
from leuk.runs.run import register_resolvers
from leuk.runs.trainer import build_named

_BATCH = 64


def _compose(command: str, *overrides: str) -> DictConfig:
    register()
    register_resolvers()
    return compose_runs(command, CommandLine([*overrides], multirun=False, runs=True))[0]


class LoadedRun:
    """Classifier of a finished run, with the decision rule chosen on its validation images.

    Args:
        path: folder of the run, such as ``outputs/runs/demo/cnn-none-folds-s0``.
        overrides: of ``leuk predict``, such as ``trainer=gpu`` or ``threshold=0.5``.

    Attributes:
        finished: record, config and folder of the run.
    """

    def __init__(self, path: str | Path, *overrides: str) -> None:
        self._overrides = (f"run={Path(path).expanduser().resolve()}", *overrides)
        self.finished = FinishedRun.read(str(path))

    @cached_property
    def _cfg(self) -> DictConfig:
        return _compose("predict", *self._overrides, "images=.")

    @cached_property
    def _scorer(self) -> Scorer:
        return self.finished.scorer(self._cfg, _BATCH)

    @property
    def metrics(self) -> dict[str, float | None]:
        """Metrics of the run on its test images, by name."""
        return {
            name: entry["value"] for name, entry in self.finished.record.metrics["test"].items()
        }

    def predict(self, images: Images | str | Path) -> pd.DataFrame:
        """Predict images by the run's frozen decision rule.

        Args:
            images: pixels ``uint8 (N, R, R, 3)`` at the run's resolution and framing, or a folder,
                which is read as by ``leuk predict``.

        Returns:
            For a folder the columns of ``predictions.csv`` of ``leuk predict``; for pixels
            ``score`` and ``calibrated`` (probabilities of leukemia in [0, 1]), ``decision``
            (``ALL`` or ``HEM``) and ``refer`` (True if an expert should decide).

        Raises:
            ConfigError: pixels of another resolution.
            DataError: no image of the folder can be read.
        """
        if isinstance(images, str | Path):
            cfg = _compose("predict", *self._overrides, f"images={Path(images).resolve()}")
            with tempfile.TemporaryDirectory() as folder:
                rows = predict(cfg, Path(folder)).rows
            return pd.DataFrame([asdict(row) for row in rows])
        frozen = self.finished.frozen(str(self._cfg.threshold), self._cfg.aim)
        scores = self._scorer.scores(self._checked(images))
        return pd.DataFrame(
            {
                "score": scores,
                "calibrated": frozen.calibrated(scores),
                "decision": np.where(frozen.leukemic(scores), "ALL", "HEM"),
                "refer": frozen.refers(scores),
            }
        )

    def explain(
        self, images: Images, methods: Sequence[str] = ("gradcam",), target: int = 1
    ) -> dict[str, Attribution]:
        """Attribute the decisions on images to their regions.

        Args:
            images: pixels ``uint8 (N, R, R, 3)`` at the run's resolution and framing.
            methods: options of the config group ``explain``.
            target: class whose evidence is positive in the maps, 1 for leukemia.

        Raises:
            ConfigError: pixels of another resolution, or a method that does not exist or does not
                support the classifier.
        """
        cfg = _compose("explain", self._overrides[0], f"explain=[{','.join(methods)}]")
        explainers: dict[str, Explainer] = build_named(cfg.explain)
        scorer = self._scorer
        device = scorer.device
        given = to_float(torch.from_numpy(self._checked(images)).to(device))
        background = None
        if any(explainer.needs_background for explainer in explainers.values()):
            data = self.finished.data()
            rows = choose_background(data.stage("train"), cfg.explain_background, data.seed)
            background = data.bank.gather(torch.tensor(rows), device)["images"]
        return {
            name: explainer.attribute(scorer.classifier, given, target, background)
            for name, explainer in explainers.items()
        }

    def _checked(self, images: Images) -> Images:
        side = int(self.finished.cfg.data.resolution)
        if images.dtype != np.uint8 or images.shape[1:] != (side, side, 3):
            raise ConfigError(
                f"images={images.dtype} {images.shape}: this run reads uint8 (N, {side}, {side}, 3)"
                "; pass a folder to have images decoded and framed"
            )
        return np.ascontiguousarray(images)


def load_run(path: str | Path, *overrides: str) -> LoadedRun:
    """Open a finished run for predictions and explanations, see :class:`LoadedRun`.

    Raises:
        ConfigError: the folder has no finished run, or an override is wrong.
        StoreError: its record or weights cannot be read.
    """
    return LoadedRun(path, *overrides)


def report_table(sweep: str | Path) -> pd.DataFrame:
    """Return the metrics of every configuration, run and baseline of a sweep.

    Args:
        sweep: folder of the sweep, such as ``outputs/runs/demo``.

    Returns:
        The table that ``leuk report`` writes as ``report/table.csv``.

    Raises:
        StoreError: no readable record in the folder.
    """
    folder = Path(sweep).expanduser()
    return build_report(folder, read_results(folder)).sections["table"].table


def data_module(name: str = "phantom", *overrides: str, **keys: Any) -> CNMCDataModule:
    """Set up a data module by its name in the config group ``data``.

    Args:
        name: option of the group, such as ``phantom`` or ``cnmc``.
        overrides: of ``leuk train``, such as ``split=subject_kfold``.
        keys: settings of the data, such as ``root="DIR"`` and ``resolution=32``.

    Raises:
        ConfigError: an unknown name or key.
        DataError: no readable images.
    """
    settings = [f"data.{key}={value}" for key, value in keys.items()]
    cfg = _compose("train", f"data={name}", *settings, *overrides)
    data: CNMCDataModule = instantiate(cfg.data, split=instantiate(cfg.split))
    data.prepare_data()
    data.setup()
    return data


def gan(name: str = "dcgan", *overrides: str) -> Adversarial:
    """Build an untrained GAN by its name in the config group ``gan``.

    Args:
        name: option of the group: ``dcgan``, ``wgan`` or ``cgan``.
        overrides: of ``leuk synthesize``, such as ``recipe=strong`` or ``data.resolution=32``.

    Raises:
        ConfigError: an unknown name or key.
    """
    cfg = _compose("synthesize", f"gan={name}", *overrides)
    built: Adversarial = instantiate(cfg.gan)
    return built
