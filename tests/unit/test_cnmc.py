from pathlib import Path

import numpy as np
import pytest
from conftest import write_cell
from PIL import Image
from torchvision.datasets import CIFAR10

from leuk.data.labels import Label
from leuk.data.layouts import CNMC, index_images
from leuk.errors import DataError


def test_leukemia_is_the_positive_class() -> None:
    assert int(Label.ALL) == 1
    assert int(Label.HEM) == 0


def test_index_has_label_subject_and_source_fold(tiny_folds: Path) -> None:
    images = index_images(tiny_folds)
    assert len(images) == 16
    first = images.set_index("path").loc["fold_1/hem/UID_H3_1_1_hem.bmp"]
    assert (first["label"], first["subject"], first["source_fold"]) == (0, "HEM-3", "fold_1")


def test_equal_numbers_of_two_classes_are_two_subjects(tiny_folds: Path) -> None:
    assert {"ALL-1", "HEM-1"} <= set(index_images(tiny_folds)["subject"])


def test_small_h_is_a_healthy_subject(tmp_path: Path) -> None:
    write_cell(tmp_path / "fold_0/hem/UID_h3_1_1_hem.bmp")
    assert index_images(tmp_path)["subject"].tolist() == ["HEM-3"]


def test_root_may_be_any_folder_above_the_folds(tmp_path: Path) -> None:
    write_cell(tmp_path / "PKG - C-NMC 2019/C-NMC_training_data/fold_0/all/UID_1_1_1_all.bmp")
    assert len(index_images(tmp_path)) == 1


def test_order_does_not_depend_on_the_file_system(tiny_folds: Path) -> None:
    assert index_images(tiny_folds)["path"].is_monotonic_increasing


def test_stray_files_are_listed(tiny_folds: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tiny_folds / "fold_0/all/Thumbs.db").write_text("")
    assert len(index_images(tiny_folds)) == 16
    assert "Thumbs.db" in caplog.text


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder; set data\.root=DIR"):
        index_images(tmp_path / "nowhere")


def test_root_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no cell images in fold_"):
        index_images(tmp_path)


def test_name_that_contradicts_its_folder(tmp_path: Path) -> None:
    write_cell(tmp_path / "fold_0/all/UID_H1_1_1_hem.bmp")
    with pytest.raises(DataError, match="in folder all, but its name ends in hem"):
        index_images(tmp_path)


def test_used_like_cifar10(tiny_folds: Path, artifacts: Path) -> None:
    data = CNMC(tiny_folds, resolution=32, cache=artifacts)
    image, label = data[3]
    assert isinstance(image, Image.Image)
    assert image.size == (32, 32)
    assert label == data.targets[3]
    assert data.data.shape == (16, 32, 32, 3)
    assert data.data.dtype == np.uint8
    assert data.classes[data.class_to_idx["all"]] == "all"
    for name in ("transform", "target_transform", "root"):
        assert hasattr(data, name)
        assert name in CIFAR10.__init__.__annotations__


def test_transforms_are_applied(tiny_folds: Path, artifacts: Path) -> None:
    data = CNMC(
        tiny_folds,
        transform=lambda image: image.size,
        target_transform=lambda label: label + 10,
        resolution=32,
        cache=artifacts,
    )
    assert data[0] == ((32, 32), 10 + data.targets[0])


def test_selection_of_source_folds(tiny_folds: Path, artifacts: Path) -> None:
    data = CNMC(tiny_folds, parts=["fold_1"], resolution=32, cache=artifacts)
    assert set(data.index["source_fold"]) == {"fold_1"}
    with pytest.raises(DataError, match="no source fold fold_9; choose from fold_0, fold_1"):
        CNMC(tiny_folds, parts=["fold_9"], resolution=32, cache=artifacts)


def test_real_images_have_the_published_counts(cnmc: Path) -> None:
    images = index_images(cnmc / "224")
    counts = images.groupby(["source_fold", "label"]).size().to_dict()
    assert counts == {
        ("fold_0", 0): 1130,
        ("fold_0", 1): 2397,
        ("fold_1", 0): 1163,
        ("fold_1", 1): 2418,
    }
    subjects = images.groupby(["source_fold", "label"])["subject"].nunique().to_dict()
    assert subjects == {
        ("fold_0", 0): 9,
        ("fold_0", 1): 19,
        ("fold_1", 0): 3,
        ("fold_1", 1): 11,
    }
