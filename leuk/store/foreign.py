"""Safe reading of files in folders that may come from an untrusted source."""

import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_PACKED, _SMALL = 64, 2**20
"""Largest allowed ratio of unpacked to packed size, and unpacked bytes allowed in any case."""


def file_in(folder: Path, name: str) -> Path:
    """Path of a regular file in a folder, checked before use.

    Args:
        folder: folder that must contain the file.
        name: path relative to the folder.

    Raises:
        OSError: no such file, or it is a pipe or device, on which reading could block forever.
        ValueError: the name, or a link in it, leads out of the folder.
    """
    base = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(base, name))
    if os.path.commonpath([base, path]) != base:
        raise ValueError(f"{name!a} leads out of {folder}")
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path}: not a regular file")
    return folder / name


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an ``.npz`` file into memory; object arrays are refused.

    Args:
        path: file written by ``np.savez`` or ``np.savez_compressed``.

    Raises:
        OSError: no such file.
        ValueError: the file is damaged, or unpacks to far more than images or features would.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > _PACKED * os.path.getsize(path) + _SMALL:
            raise ValueError(f"unpacks from {os.path.getsize(path)} to {unpacked} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    except OSError:
        raise
    except Exception as error:  # a damaged file can raise any kind
        raise ValueError(f"{type(error).__name__}: {error}") from error
