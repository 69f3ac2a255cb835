"""Detection of unreadable files in a folder of results, by their suffix."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

_LOGS = ("log", "resume")
"""Folders to which Lightning appends, and folders read only on resuming."""


def _whole_table(path: Path) -> None:
    if not path.read_text().endswith("\n"):
        raise ValueError("its last row is cut off")
    pd.read_csv(path)


def _whole_arrays(path: Path) -> None:
    loaded = np.load(path)
    for name in getattr(loaded, "files", ()):
        loaded[name]


def _whole_picture(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: json.loads(path.read_text()),
    ".csv": _whole_table,
    ".npz": _whole_arrays,
    ".npy": _whole_arrays,
    ".png": _whole_picture,
    ".ckpt": lambda path: torch.load(path, weights_only=True),
    ".yaml": lambda path: path.read_text().endswith("\n") or _refuse(),
    ".html": lambda path: path.read_text().rstrip().endswith("</html>") or _refuse(),
}


def _refuse() -> None:
    raise ValueError("cut off")


def halves(outputs: Path) -> list[str]:
    """Unreadable files that are not hidden; hidden files are temporary."""
    found = []
    for path in sorted(outputs.rglob("*")):
        parts = path.relative_to(outputs).parts
        hidden = any(part.startswith(".") and part != ".hydra" for part in parts)
        if hidden or path.suffix not in READERS or set(parts) & set(_LOGS):
            continue
        try:
            READERS[path.suffix](path)
        except Exception as error:
            found.append(f"{'/'.join(parts)}: {error}")
    return found
