"""Files of a folder that may come from somebody else, read without trust in what they say."""

import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_PACKED, _SMALL = 64, 2**20
"""How many times its size a file may unpack to, and bytes that are no matter."""


def file_in(folder: Path, name: str) -> Path:
    """A plain file below a folder.

    Args:
        folder: where the file that names it lies.
        name: relative to the folder.

    Raises:
        OSError: there is none, or it is a pipe or device, which would be waited for without end.
        ValueError: the name or a link in it leads out of the folder.
    """
    base = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(base, name))
    if os.path.commonpath([base, path]) != base:
        raise ValueError(f"{name!a} leads out of {folder}")
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path}: no plain file")
    return folder / name


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an ``.npz`` file, in memory; none of them is an object.

    Args:
        path: the file, by ``np.savez`` or ``np.savez_compressed``.

    Raises:
        OSError: no such file.
        ValueError: it is damaged, or unpacks to far more than cells or features do.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > _PACKED * os.path.getsize(path) + _SMALL:
            raise ValueError(f"{os.path.getsize(path)} bytes that unpack to {unpacked}")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    except OSError:
        raise
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise ValueError(f"{type(error).__name__}: {error}") from error
