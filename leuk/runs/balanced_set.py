"""Balanced training set as image files: real images as used in training, and synthetic images."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.runs.synthesis import Synthetic
from leuk.store.atomic import whole_folder, write_text
from leuk.store.spreadsheet import csv_text

SUBFOLDER = "C-NMC_training_data/fold_0"
"""Subfolder of the images, so that ``data=cnmc data.root=FOLDER`` reads them."""

MANIFEST = "manifest.csv"
ARRAY = "synthetic.npy"

_SYNTHETIC = 9_000_000
"""Subject number of synthetic images for seed 0, beyond C-NMC's own; the seed is added."""


def manifest_of(data: CNMCDataModule, synthetic: Synthetic) -> pd.DataFrame:
    """Table of the images of a balanced set, a row per image.

    Columns: ``file``, ``label``, ``origin`` (``real`` or ``synthetic``); for real images ``source``
    (the file under the data's root) and ``subject``; for synthetic images ``gan`` (the artifact),
    ``seed`` and ``position`` (of the draw, and the row of ``synthetic.npy``).
    """
    return pd.concat([_real_rows(data), _synthetic_rows(synthetic)], ignore_index=True)


def write_balanced_set(
    target: Path, data: CNMCDataModule, synthetic: Synthetic, manifest: pd.DataFrame
) -> None:
    """Write the training images and the synthetic images as one folder, atomically.

    The folder also gets ``manifest.csv``, see :func:`manifest_of`, and ``synthetic.npy``, the
    synthetic images as ``uint8 (N, R, R, 3)``.
    """
    rows = data.stage("train").index.to_numpy()
    with whole_folder(target) as folder:
        for label in Label:
            (folder / SUBFOLDER / label.folder).mkdir(parents=True)
        real = len(rows)
        _write(folder, manifest["file"].tolist()[:real], data.dataset.data[rows])
        _write(folder, manifest["file"].tolist()[real:], synthetic.pixels)
        np.save(folder / ARRAY, synthetic.pixels)
        write_text(folder / MANIFEST, csv_text(manifest))


def _real_rows(data: CNMCDataModule) -> pd.DataFrame:
    images = data.stage("train")
    files = [
        f"{SUBFOLDER}/{Label(label).folder}/{Path(name).stem}.png"
        for name, label in zip(images["name"], images["label"], strict=True)
    ]
    return pd.DataFrame(
        {
            "file": files,
            "label": images["label"].to_numpy(),
            "origin": "real",
            "source": images["path"].to_numpy(),
            "subject": images["subject"].to_numpy(),
        }
    )


def _synthetic_rows(synthetic: Synthetic) -> pd.DataFrame:
    table = synthetic.origin.assign(origin="synthetic")
    names = []
    for label, seed, position in table[["label", "seed", "position"]].itertuples(index=False):
        folder = Label(label).folder
        subject = f"{'H' if label == Label.HEM else ''}{_SYNTHETIC + seed}"
        names.append(f"{SUBFOLDER}/{folder}/UID_{subject}_{position + 1}_1_{folder}.png")
    table.insert(0, "file", names)
    return table


def _write(folder: Path, files: Sequence[str], pixels: npt.NDArray[np.uint8]) -> None:
    """Write a PNG per image, in parallel on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        writes = [
            pool.submit(Image.fromarray(image).save, folder / file)
            for file, image in zip(files, pixels, strict=True)
        ]
        for write in writes:
            write.result()
