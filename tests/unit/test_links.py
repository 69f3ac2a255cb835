"""Search of linked subjects: copies planted in phantom and real images, and nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_cell
from PIL import Image

from leuk.data.datamodule import CNMCDataModule, LabeledImages
from leuk.data.decode import THUMB
from leuk.data.labels import Label
from leuk.data.links import find_pairs, merge_subjects, perceptual_hash
from leuk.data.phantom import Subject, draw_cell, rephotograph
from leuk.data.rules import Folds


def load(root: Path, cache: Path) -> LabeledImages:
    rule = Folds()
    return CNMCDataModule(str(root), rule, 16, cache=str(cache), on_corrupt="skip").dataset


def recoded(quality: int) -> Callable[[Image.Image, Path], Image.Image]:
    def change(image: Image.Image, scratch: Path) -> Image.Image:
        image.save(scratch / "cell.jpg", quality=quality)
        return Image.open(scratch / "cell.jpg").convert("RGB")

    return change


def turned(turn: Image.Transpose) -> Callable[[Image.Image, Path], Image.Image]:
    return lambda image, _: image.transpose(turn)


def smaller(image: Image.Image, _: Path) -> Image.Image:
    return image.resize((image.width * 2 // 3, image.height * 2 // 3), Image.Resampling.LANCZOS)


def photographed(image: Image.Image, _: Path) -> Image.Image:
    return Image.fromarray(rephotograph(np.asarray(image), np.random.default_rng(2)))


CHANGES = {
    "renamed": lambda image, _: image,
    "quarter turn": turned(Image.Transpose.ROTATE_90),
    "half turn": turned(Image.Transpose.ROTATE_180),
    "mirrored": turned(Image.Transpose.FLIP_LEFT_RIGHT),
    "transposed": turned(Image.Transpose.TRANSPOSE),
    "JPEG quality 75": recoded(75),
    "JPEG quality 30": recoded(30),
    "smaller": smaller,
}


def subjects_linked(root: Path, cache: Path) -> set[tuple[str, str]]:
    images = load(root, cache)
    subjects = images.index["subject"].to_numpy()
    ends = subjects[find_pairs(images.store)[["first", "second"]].to_numpy()]
    return {(min(pair), max(pair)) for pair in ends.tolist() if pair[0] != pair[1]}


def test_planted_copies_among_phantom_images(tmp_path: Path) -> None:
    """Each of nine cells is linked to its altered copy, and no other cell to any."""
    generator = np.random.default_rng(1)
    folder = tmp_path / "cells/fold_0/all"
    folder.mkdir(parents=True)
    for number in range(1, 31):
        subject = Subject.draw(Label.ALL, str(number), generator)
        Image.fromarray(draw_cell(subject, 200, generator)).save(
            folder / f"UID_{number}_1_1_all.png"
        )
    changes = [*CHANGES.values(), photographed]
    for number, change in enumerate(changes, 1):
        with Image.open(folder / f"UID_{number}_1_1_all.png") as original:
            change(original, tmp_path).save(folder / f"UID_{number + 90}_1_1_all.png")
    expected = {(f"ALL-{number}", f"ALL-{number + 90}") for number in range(1, len(changes) + 1)}
    assert subjects_linked(tmp_path / "cells", tmp_path / "cache") == expected


def test_perceptual_hash_is_invariant_to_rotation_and_reflection() -> None:
    thumbs = np.random.default_rng(0).integers(0, 255, (3, THUMB, THUMB), np.uint8)
    expected = perceptual_hash(thumbs)
    for quarter in range(4):
        for image in (thumbs, thumbs[:, :, ::-1]):
            turned = np.ascontiguousarray(np.rot90(image, quarter, axes=(1, 2)))
            np.testing.assert_allclose(perceptual_hash(turned), expected, atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 0.001


def test_patients_follow_chains_of_links() -> None:
    subjects = pd.Series(["A", "A", "B", "C", "D", "D"])
    pairs = pd.DataFrame({"first": [1, 2], "second": [2, 3]})
    assert merge_subjects(subjects, pairs).tolist() == ["A+B+C"] * 4 + ["D"] * 2
    assert merge_subjects(subjects, pairs.iloc[:0]).tolist() == subjects.tolist()


def test_identical_images_point_to_the_first(phantom: Path, artifacts: Path) -> None:
    table = load(phantom, artifacts).index
    copies = table[table["original"] != table.index]
    assert len(copies) == 2
    for row, original in copies["original"].items():
        first, second = ((phantom / table["path"][one]).read_bytes() for one in (original, row))
        assert first == second
    patients = set(table["patient"])
    assert {one for one in patients if "+" in one} == {"ALL-10+ALL-11", "HEM-8+HEM-9"}


def test_identical_images_of_two_labels_are_conflicts(tmp_path: Path) -> None:
    """By path: two leukemic images and a copy of the second, then a healthy copy of the first."""
    root = tmp_path / "cells/fold_0"
    names = ["all/UID_1_1_1_all.bmp", "all/UID_2_1_1_all.bmp"]
    for name in names:
        write_cell(root / name, size=64)
    (root / "hem").mkdir()
    shutil.copy(root / names[1], root / "all/UID_3_1_1_all.bmp")
    shutil.copy(root / names[0], root / "hem/UID_H4_1_1_hem.bmp")
    found = load(tmp_path / "cells", tmp_path / "cache").index
    assert found["original"].tolist() == [0, 1, 1, 0]
    assert found["conflict"].tolist() == [True, False, False, True]


def test_copies_planted_among_real_images_are_found_and_no_others(
    cnmc: Path, tmp_path: Path
) -> None:
    before = subjects_linked(cnmc / "original", tmp_path / "cache")
    root = tmp_path / "planted"
    shutil.copytree(cnmc / "original", root)
    folder = root / "C-NMC_training_data/fold_0/all"
    originals = sorted((root / "C-NMC_training_data/fold_1/all").glob("*.bmp"))[: len(CHANGES)]
    planted = set()
    for number, (original, change) in enumerate(zip(originals, CHANGES.values(), strict=True), 900):
        change(Image.open(original), tmp_path).save(folder / f"UID_{number}_1_1_all.bmp")
        planted.add((f"ALL-{original.stem.split('_')[1]}", f"ALL-{number}"))
    linked = subjects_linked(root, tmp_path / "cache")
    assert planted <= linked
    # A copy can also be linked to earlier links of its original.
    for one, other in linked - before - planted:
        assert int(one.split("-")[1]) >= 900 or int(other.split("-")[1]) >= 900


@pytest.mark.slow
def test_patients_with_several_numbers_in_the_real_folds(cnmc: Path, tmp_path: Path) -> None:
    """Links beyond byte-identical copies; all pairs were checked by eye."""
    index = load(cnmc / "224", tmp_path / "cache").index
    patients = set(index["patient"])
    assert {patient for patient in patients if "+" in patient} == {
        *("ALL-1+ALL-15+ALL-16+ALL-17+ALL-20", "ALL-43+ALL-44", "HEM-14+HEM-24")
    }
    split = Folds()(index)
    train, test = (index.iloc[rows] for rows in (split.train, split.test))
    assert not set(train["patient"]) & set(test["patient"])
    assert split.dropped["train: same patient in test"] > 600
