"""Checkpoints: atomic writing, safe reading, and the stamp that identifies their run."""

import inspect
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from leuk.errors import StoreError
from leuk.store.atomic import whole_file

log = logging.getLogger(__name__)

_ARGUMENTS = ("hyper_parameters", "hparams", "module_arguments")
"""Keys under which Lightning stores the arguments of a module."""

_CALLED = {"_instantiator", "_class_path"}
"""Keys whose values Lightning imports and calls, in some versions without any check."""

_MISMATCHES = {
    "form": "of another model",
    "settings": "trained with other settings",
    "data": "trained on other data",
}
"""Message for each key of a stamp that can differ; the first difference is reported."""


class WholeCheckpoints(TorchCheckpointIO):
    """Atomic checkpoint writer: writes a temporary file in the same folder, then renames it.

    Lightning writes to the system's temporary folder, which may be small and on another disk, and
    copies the file, so that a process killed meanwhile leaves a truncated checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        with whole_file(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def last_readable(folder: Path) -> Path | None:
    """Return the newest readable checkpoint of a folder, or None."""
    for path in sorted(folder.glob("[!.]*.ckpt"), reverse=True):
        try:
            epoch = _load(path)["epoch"]
        except (StoreError, KeyError) as error:
            log.warning("%s; trying an older checkpoint", error)
            continue
        log.info("resuming after epoch %d from %s", epoch + 1, path)
        return path
    return None


def read_checkpoint(path: Path, stamp: Mapping[str, str]) -> dict[str, Any]:
    """Read the weights and plain values of a checkpoint.

    Args:
        path: the file.
        stamp: required values of the checkpoint's stamp, see :attr:`Classifier.stamp`; missing keys
            are not compared.

    Raises:
        StoreError: the file cannot be read, or belongs to another model, other settings or other
            data.
    """
    values = _load(path)
    found = values.get("stamp", {})
    if not isinstance(found, dict):
        raise StoreError(f"{path}: no readable checkpoint (no stamp in it)")
    for key, mismatch in _MISMATCHES.items():
        if key in stamp and found.get(key) != stamp[key]:
            raise StoreError(
                f"{path}: {mismatch} ({key} {found.get(key, 'unknown')}, not {stamp[key]}); remove "
                "it, or choose another name for this sweep: name=NAME"
            )
    return values


def older_arguments(form: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return constructor arguments for checkpoints from before the argument ``stack`` existed.

    Args:
        form: class of the classifier or GAN.
        values: the checkpoint, from :func:`read_checkpoint`.
    """
    known = "stack" in values.get("hyper_parameters", {})
    takes = "stack" in inspect.signature(form).parameters
    return {"stack": "torch"} if takes and not known else {}


def _load(path: Path) -> dict[str, Any]:
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Replace torch's message, which advises to load with arbitrary code execution enabled.
        raise StoreError(
            f"{path}: no readable checkpoint (damaged, or more than weights and plain values)"
        ) from error
    except Exception as error:  # a damaged file can raise anything
        first = str(error).strip().partition("\n")[0]
        raise StoreError(f"{path}: no readable checkpoint ({first})") from error
    if not isinstance(values, dict) or not isinstance(values.get("state_dict"), dict):
        raise StoreError(f"{path}: no readable checkpoint (no weights in it)")
    for key in _ARGUMENTS:
        found = values.get(key, {})
        if not isinstance(found, dict) or _CALLED & set(map(str, found)):
            raise StoreError(f"{path}: its {key} refer to code to call; do not use this file")
    return values
