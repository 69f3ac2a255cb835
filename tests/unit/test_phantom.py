"""Phantom images: layout, reproducibility, and difficulties like those of C-NMC."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import UNLABELED, Label
from leuk.data.layouts import read_cnmc
from leuk.data.phantom import Subject, draw_cell, make_phantom
from leuk.data.rules import Folds


def test_layout_is_that_of_c_nmc(phantom: Path) -> None:
    index = read_cnmc(phantom)
    assert (index.problems, index.strays) == ([], ["C-NMC_training_data/fold_0/all/Thumbs.db"])
    counts = index.table.groupby(["source_fold", "label"]).size().to_dict()
    for fold in ("fold_0", "fold_1", "fold_2", "prelim"):
        assert (counts[fold, 1], counts[fold, 0]) == (40, 20)
    assert counts["final", UNLABELED] == 3
    assert {"ALL-3", "HEM-3"} <= set(index.table["subject"])
    assert index.table["name"].str.contains("UID_h3").any()


def test_same_seed_gives_the_same_images(tmp_path: Path, phantom: Path) -> None:
    again, other = (make_phantom(tmp_path, 60, 64, seed) for seed in (0, 1))
    paths = [path.relative_to(phantom) for path in sorted(phantom.rglob("*.png"))[::17]]
    assert all((again / path).read_bytes() == (phantom / path).read_bytes() for path in paths)
    assert any((other / path).read_bytes() != (phantom / path).read_bytes() for path in paths)


def test_area_alone_classifies_as_well_as_on_real_images(tmp_path: Path) -> None:
    root = make_phantom(tmp_path, images_per_fold=120, size=64, seed=3)
    data = CNMCDataModule(str(root), Folds(), resolution=16, cache=str(tmp_path)).dataset
    assert 0.7 <= roc_auc_score(data.index["label"], data.store.areas) <= 0.9


@pytest.mark.parametrize("size", [32, 450])
def test_cells_of_any_size_on_black(size: int) -> None:
    generator = np.random.default_rng(0)
    for label in Label:
        picture = draw_cell(Subject.draw(label, "1", generator), size, generator)
        assert picture.shape == (size, size, 3)
        assert picture[: size // 25].max() == 0
        assert 0.07 < (picture.max(axis=2) > 0).mean() < 0.26


@pytest.mark.slow
def test_final_images_are_larger(tmp_path: Path) -> None:
    root = make_phantom(tmp_path, images_per_fold=54, size=450, seed=0)
    assert Image.open(next((root / "C-NMC_test_final_phase_data").iterdir())).size == (600, 600)
    assert Image.open(next((root / "C-NMC_training_data/fold_0/hem").iterdir())).size == (450, 450)
