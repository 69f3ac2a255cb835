"""Checkpoints that a stopped fit goes on from, and what tells whose they are."""

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
"""Where Lightning looks for what a module is built with."""

_CALLED = {"_instantiator", "_class_path"}
"""What Lightning would import and call by its name, some versions of it whatever it is."""

_SAID = {
    "form": "of another model",
    "settings": "fitted with other settings",
    "data": "fitted on other data",
}
"""What each key of a stamp says where it differs, the first that does."""


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints beside their place and renames them when whole.

    Lightning's own writes them to the system's temporary folder, which may be small and on another
    disk, and copies them: a process that is killed meanwhile leaves part of one in its place.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        with whole_file(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint of a folder that can be read; None where there is none."""
    for path in sorted(folder.glob("[!.]*.ckpt"), reverse=True):
        try:
            epoch = _load(path)["epoch"]
        except (StoreError, KeyError) as error:
            log.warning("%s; an older one is tried", error)
            continue
        log.info("going on after epoch %d, from %s", epoch + 1, path)
        return path
    return None


def read_checkpoint(path: Path, stamp: Mapping[str, str]) -> dict[str, Any]:
    """The plain values of a checkpoint of a classifier.

    Args:
        path: the file.
        stamp: what it must be stamped with, see :attr:`Classifier.stamp`; keys that are left out
            may be anything.

    Raises:
        StoreError: it cannot be read, or is of another model, of other settings or of other data.
    """
    values = _load(path)
    found = values.get("stamp", {})
    if not isinstance(found, dict):
        raise StoreError(f"{path}: no readable checkpoint (no stamp in it)")
    for key, said in _SAID.items():
        if key in stamp and found.get(key) != stamp[key]:
            raise StoreError(
                f"{path}: {said} ({key} {found.get(key, 'unknown')}, not {stamp[key]}); remove it, "
                "or give this sweep a name of its own: name=NAME"
            )
    return values


def older_arguments(form: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments that a checkpoint was built with before they had a name.

    Args:
        form: class of the classifier or GAN.
        values: of the checkpoint, as :func:`read_checkpoint` returns them.
    """
    known = "stack" in values.get("hyper_parameters", {})
    takes = "stack" in inspect.signature(form).parameters
    return {"stack": "torch"} if takes and not known else {}


def _load(path: Path) -> dict[str, Any]:
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Not torch's own words, which advise to run whatever code the file holds.
        raise StoreError(
            f"{path}: no readable checkpoint (damaged, or more than weights and plain values)"
        ) from error
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        first = str(error).strip().partition("\n")[0]
        raise StoreError(f"{path}: no readable checkpoint ({first})") from error
    if not isinstance(values, dict) or not isinstance(values.get("state_dict"), dict):
        raise StoreError(f"{path}: no readable checkpoint (no weights in it)")
    for key in _ARGUMENTS:
        found = values.get(key, {})
        if not isinstance(found, dict) or _CALLED & set(map(str, found)):
            raise StoreError(f"{path}: its {key} name something to be called; do not use the file")
    return values
