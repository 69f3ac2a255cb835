"""Projection of a classifier's prototypes to training patches, with a figure and a table."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from leuk.classifiers.base import Classifier
from leuk.classifiers.prototypes import Prototyped
from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.data.pixels import Batch
from leuk.errors import StoreError, TrainingError
from leuk.explain.figures import save_prototypes
from leuk.runs.gan import class_weights
from leuk.runs.record import RESUMED, Record
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

_BATCH = 64


def project_prototypes(
    classifier: Prototyped, data: CNMCDataModule, device: torch.device, folder: Path, title: str
) -> dict[str, Any]:
    """Replace prototypes by the nearest patches of real training images, refit the head, draw them.

    The best checkpoint is updated, so that it has the weights of the evaluated model.

    Args:
        classifier: trained classifier with prototypes.
        data: data module; only real training images are used.
        device: device of the computation.
        folder: folder of the run.
        title: title of the figure.

    Returns:
        For the record: ``picture``, and ``table`` with an entry per prototype.
    """
    train = data.stage("train")
    rows = torch.tensor(train.index.to_numpy())
    classifier.to(device)

    def batches() -> Iterator[Batch]:
        return (data.bank.gather(batch, device) for batch in rows.split(_BATCH))

    projected = classifier.project(batches())
    classifier.refit_head(batches())
    sources = torch.tensor([prototype.row for prototype in projected])
    images = data.bank.gather(sources, torch.device("cpu"))
    picture = "explanations/prototypes.png"
    save_prototypes(folder / picture, images["images"], projected, title)
    best = folder / "checkpoints/best.ckpt"
    if best.is_file():
        values = torch.load(best, map_location="cpu", weights_only=True)
        values["state_dict"] = classifier.state_dict()
        with whole_file(best) as temporary:
            torch.save(values, temporary)
    paths = data.dataset.index["path"]
    table = [asdict(item) | {"path": str(paths.iloc[item.row])} for item in projected]
    return {"picture": picture, "table": table}


# --- Training of a run's classifier: resumed after a stop, finished with its best weights

log = logging.getLogger(__name__)

RESUME = "checkpoints/resume"
"""Folder of a run's checkpoints for resuming."""

FITTED = "checkpoints/fitted.ckpt"
"""Best weights after training, kept until the run is complete, so that a stop during testing or
explaining does not repeat the training."""


def fitted_classifier(
    cfg: DictConfig, folder: Path, data: CNMCDataModule, record: Record
) -> Classifier:
    """Train a run's classifier and load the weights with the best validation metric.

    Args:
        cfg: config of the run.
        folder: folder of the run.
        data: data module, with the augmentation's images.
        record: record of the run; device and warnings are added.

    Raises:
        StoreError: a checkpoint in the folder belongs to another run.
        TrainingError: the loss is not finite, a batch does not fit into memory, or training ends
            without a checkpoint.
    """
    # Seed again, so that results do not depend on whether the GAN was trained in this process.
    seed_everything(cfg.seed, workers=True, verbose=False)
    classifier = _new(cfg, data, record)
    callbacks = build_named(cfg.callbacks)
    channels_last = getattr(callbacks.get("channels_last"), "enabled", False)
    if _fitted_before(folder, classifier, record):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return classifier.to(memory_format=layout)
    stopped = last_readable(folder / RESUME)
    if stopped is not None:
        read_checkpoint(stopped, classifier.stamp)
        record.warnings.append(RESUMED)
    with open_loggers(cfg) as loggers:
        trainer = _trainer(cfg, folder, [*callbacks.values()], loggers)
        record.device = describe(trainer, channels_last)
        log.info("%s: training on %s", record.run.folder, _device(record))
        with memory_errors("data.batch_size", cfg.data.batch_size), _compiled(classifier, cfg):
            trainer.fit(classifier, datamodule=data, ckpt_path=stopped, weights_only=True)
    best = callbacks.get("checkpoint")
    if not isinstance(best, ModelCheckpoint) or not best.best_model_path:
        raise TrainingError(
            "training ended without a checkpoint, because no validation epoch was reached; use the "
            "default callbacks.checkpoint and validation settings of trainer"
        )
    weights = read_checkpoint(Path(best.best_model_path), classifier.stamp)["state_dict"]
    classifier.load_state_dict(weights)
    kept = {"state_dict": weights, "stamp": classifier.stamp, "device": record.device}
    with whole_file(folder / FITTED) as temporary:
        torch.save(kept, temporary)
    shutil.rmtree(folder / RESUME, ignore_errors=True)
    return classifier


def remove_fitted_weights(folder: Path) -> None:
    """Remove the weights that only an incomplete run needs."""
    (folder / FITTED).unlink(missing_ok=True)


def _fitted_before(folder: Path, classifier: Classifier, record: Record) -> bool:
    """Load the weights if training had finished before the run was stopped."""
    path = folder / FITTED
    if not path.is_file():
        return False
    try:
        values = read_checkpoint(path, classifier.stamp)
    except StoreError as error:
        log.warning("%s; training again", error)
        return False
    classifier.load_state_dict(values["state_dict"])
    record.device = values["device"]
    record.warnings.append(RESUMED)
    log.info("%s: training already finished, resuming with the test", record.run.folder)
    return True


def _new(cfg: DictConfig, data: CNMCDataModule, record: Record) -> Classifier:
    """Build the untrained classifier with the statistics and weights of the training images."""
    classifier: Classifier = instantiate(cfg.model)
    classifier.stamp |= {"settings": record.fingerprint, "data": data.listing()}
    if cfg.fit.standardize:
        classifier.normalize_by(*data.channel_statistics())
    if cfg.augmentation.name == "class_weights":
        classifier.weigh_by(class_weights(data))
    return classifier


@contextmanager
def _compiled(classifier: Classifier, cfg: DictConfig) -> Iterator[None]:
    """Compile the classifier if set, but only for training: explanations need hooks on layers."""
    if cfg.fit.compile:
        classifier.compile()
    try:
        yield
    finally:
        classifier._compiled_call_impl = None


def _trainer(
    cfg: DictConfig, folder: Path, callbacks: list[Callback], loggers: list[Logger]
) -> Trainer:
    resume = ModelCheckpoint(
        folder / RESUME,
        filename="{epoch:05d}",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    return build_trainer(cfg, folder, [*callbacks, resume], logger=loggers)


def _device(record: Record) -> str:
    layout = "channels-last" if record.device["channels_last"] else "channels-first"
    return f"{record.device['name']}, {record.device['precision']}, {layout}"
