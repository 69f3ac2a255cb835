"""Checkpoints that a stopped fit goes on from, and what tells whose they are."""

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from leuk.errors import StoreError

log = logging.getLogger(__name__)

_SAID = {
    "form": "of another model",
    "settings": "fitted with other settings",
    "data": "fitted on other data",
}
"""What each key of a stamp says where it differs, the first that does."""


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint of a folder that can be read; None where there is none."""
    for path in sorted(folder.glob("*.ckpt"), reverse=True):
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
    for key, said in _SAID.items():
        if key in stamp and found.get(key) != stamp[key]:
            raise StoreError(
                f"{path}: {said} ({key} {found.get(key, 'unknown')}, not {stamp[key]}); remove it, "
                "or give this sweep a name of its own: name=NAME"
            )
    return values


def _load(path: Path) -> dict[str, Any]:
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        first = str(error).strip().partition("\n")[0]
        raise StoreError(f"{path}: no readable checkpoint ({first})") from error
    if not isinstance(values, dict) or "state_dict" not in values:
        raise StoreError(f"{path}: no readable checkpoint (no weights in it)")
    return values
