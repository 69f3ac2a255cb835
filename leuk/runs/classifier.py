"""Training of a run's classifier: resumed after a stop, finished with its best weights."""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig

from leuk.classifiers.base import Classifier
from leuk.classifiers.prototypes import Prototyped
from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.data.pixels import Batch
from leuk.errors import StoreError, TrainingError
from leuk.explain.figures import save_prototypes
from leuk.progress import PASSING
from leuk.runs.gan import class_weights
from leuk.runs.trainer import (
    build_named,
    build_trainer,
    describe,
    last_readable,
    memory_errors,
    open_loggers,
    read_checkpoint,
)
from leuk.store import whole_file

log = logging.getLogger(__name__)

RESUME = "checkpoints/resume"
"""Folder of a run's checkpoints for resuming."""

FITTED = "checkpoints/fitted.ckpt"
"""Best weights after training, kept until the run is complete, so that a stop during testing or
explaining does not repeat the training."""

WEIGHTS = "checkpoints/best.ckpt"
"""Checkpoint with the best weights, which :class:`leuk.runs.finished.FinishedRun` reads."""

_BATCH = 64


@dataclass(frozen=True, eq=False)
class Fitted:
    """Classifier with the weights of the best validation metric."""

    classifier: Classifier
    device: dict[str, Any]  # of the training, see leuk.runs.trainer.describe
    resumed: bool  # an earlier process did a part of the training, or all of it


def fit_classifier(cfg: DictConfig, folder: Path, data: CNMCDataModule, fingerprint: str) -> Fitted:
    """Train a run's classifier and load the weights with the best validation metric.

    ``fingerprint`` is the hash of the run's settings, stored in every checkpoint.
    """
    # Seed again, so that results do not depend on whether the GAN was trained in this process.
    seed_everything(cfg.seed, workers=True, verbose=False)
    classifier = new_classifier(cfg, data, fingerprint)
    if (folder / FITTED).is_file():
        try:
            kept = read_checkpoint(folder / FITTED, classifier.stamp)
            classifier.load_state_dict(kept["state_dict"])
            log.info("%s: training already finished, resuming with the test", folder.name)
            return Fitted(classifier, kept["device"], resumed=True)
        except StoreError as error:
            log.warning("%s; training again", error)
    stopped = last_readable(folder / RESUME)
    if stopped is not None:
        read_checkpoint(stopped, classifier.stamp)
    callbacks = build_named(cfg.callbacks)
    resume = ModelCheckpoint(
        folder / RESUME,
        filename="{epoch:05d}",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    with open_loggers(cfg) as loggers:
        trainer = build_trainer(cfg, folder, [*callbacks.values(), resume], logger=loggers)
        channels_last = getattr(callbacks.get("channels_last"), "enabled", False)
        device = describe(trainer, channels_last)
        layout = "channels-last" if channels_last else "channels-first"
        facts = (folder.name, device["name"], device["precision"], layout)
        log.info("%s: training on %s, %s, %s", *facts, extra=PASSING)
        if cfg.fit.compile:
            classifier.compile()
        with memory_errors("data.batch_size", cfg.data.batch_size):
            trainer.fit(classifier, datamodule=data, ckpt_path=stopped, weights_only=True)
        # Compiled for training only: explanations need hooks on layers.
        classifier._compiled_call_impl = None
    best = callbacks.get("checkpoint")
    if not isinstance(best, ModelCheckpoint) or not best.best_model_path:
        raise TrainingError(
            "training ended without a checkpoint, because no validation epoch was reached; use the "
            "default callbacks.checkpoint and validation settings of trainer"
        )
    weights = read_checkpoint(Path(best.best_model_path), classifier.stamp)["state_dict"]
    classifier.load_state_dict(weights)
    with whole_file(folder / FITTED) as temporary:
        kept = {"state_dict": weights, "stamp": classifier.stamp, "device": device}
        torch.save(kept, temporary)
    shutil.rmtree(folder / RESUME, ignore_errors=True)
    return Fitted(classifier, device, resumed=stopped is not None)


def new_classifier(cfg: DictConfig, data: CNMCDataModule, fingerprint: str) -> Classifier:
    """Build the untrained classifier with the statistics and weights of the training images."""
    classifier: Classifier = instantiate(cfg.model)
    classifier.stamp |= {"settings": fingerprint, "data": data.listing()}
    if cfg.fit.standardize:
        classifier.normalize_by(*data.channel_statistics())
    if cfg.augmentation.name == "class_weights":
        classifier.weigh_by(class_weights(data))
    return classifier


def project_prototypes(
    classifier: Prototyped, data: CNMCDataModule, device: torch.device, folder: Path
) -> dict[str, Any]:
    """Replace prototypes by the nearest patches of real training images, refit the head, draw them.

    The best checkpoint is updated, so that it has the weights of the evaluated model. Only real
    training images are used.

    Returns:
        For the record: ``picture``, and ``table`` with an entry per prototype.
    """
    rows = torch.tensor(data.stage("train").index.to_numpy())

    def batches() -> Iterator[Batch]:
        return (data.bank.gather(batch, device) for batch in rows.split(_BATCH))

    projected = classifier.project(batches())
    classifier.refit_head(batches())
    sources = torch.tensor([prototype.row for prototype in projected])
    images = data.bank.gather(sources, torch.device("cpu"))["images"]
    picture = "explanations/prototypes.png"
    save_prototypes(folder / picture, images, projected, folder.name)
    if (folder / WEIGHTS).is_file():
        values = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
        values["state_dict"] = classifier.state_dict()
        with whole_file(folder / WEIGHTS) as temporary:
            torch.save(values, temporary)
    paths = data.dataset.index["path"]
    table = [asdict(item) | {"path": str(paths.iloc[item.row])} for item in projected]
    return {"picture": picture, "table": table}
