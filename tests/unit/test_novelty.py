"""Images unlike the training images, images without a cell, and lists of new images."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import write_cell

from leuk.data.decode import Frame, NoCellError, UnusableError, decode
from leuk.data.layouts import find_images
from leuk.errors import DataError
from leuk.metrics.novelty import Familiar, largest_parts, no_cell
from leuk.store import inert


def directions(mean: int, count: int, seed: int = 0) -> np.ndarray:
    """Features about one axis of a space of eight, of any length."""
    generator = np.random.default_rng(seed)
    features = generator.normal(0, 0.1, (count, 8)) + np.eye(8)[mean]
    return (features * generator.uniform(0.1, 10, (count, 1))).astype(np.float32)


def test_only_distant_features_are_unfamiliar() -> None:
    train = np.concatenate([directions(0, 200), directions(1, 100)])
    known = Familiar.fitted(train, directions(1, 300, seed=1), np.arange(300))
    assert (known.distances(directions(1, 300, seed=1)) > known.limit).sum() == 3
    assert (known.distances(directions(0, 500, seed=2)) > known.limit).mean() < 0.05
    assert (known.distances(directions(2, 500, seed=3)) > known.limit).all()


def test_distance_is_to_the_tenth_nearest_neighbor() -> None:
    train, new = directions(0, 50), directions(0, 7, seed=1)
    known = Familiar.fitted(train, new, np.arange(7))
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (train, new)]
    every = np.linalg.norm(unit[1][:, None] - unit[0][None], axis=2)
    np.testing.assert_allclose(known.distances(new), np.sort(every, axis=1)[:, 9], atol=1e-5)
    few = Familiar.fitted(train[:3], new, np.arange(7))
    np.testing.assert_allclose(few.distances(new), every[:, :3].max(axis=1), atol=1e-5)


def test_limit_weighs_every_patient_the_same() -> None:
    """Patient a has eight images at distances 0.1 to 0.8, b and c one each, at 1.0 and 1.2: below
    0.8 and half of it is 7.5 / 24 of the weight, below 1.0 a half, below 1.2 five sixths."""
    far = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2])
    patients = np.array([*"aaaaaaaa", "b", "c"])
    angles = 2 * np.arcsin(far / 2)  # of chords of the unit circle
    held_out = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    train = np.array([[1.0, 0.0]] * 12, np.float32)
    for share, limit in ((7.5 / 24, 0.8), (9.75 / 24, 0.9), (0.5, 1.0), (5 / 6, 1.2), (0.99, 1.2)):
        found = Familiar.fitted(train, held_out, patients, share)
        assert found.limit == pytest.approx(limit, abs=1e-6), share
    of_images = Familiar.fitted(train, held_out, np.arange(10), 0.5)
    assert of_images.limit == pytest.approx(0.55, abs=1e-6)


def test_largest_region_counts() -> None:
    images = np.zeros((3, 20, 20, 3), np.uint8)
    images[0, 2:6, 2:7, 1] = 200
    images[0, 10:12, 10:12] = 200
    images[1, range(20), range(20)] = 90  # touching at corners
    np.testing.assert_allclose(largest_parts(images), [20 / 400, 20 / 400, 0])


@pytest.mark.parametrize(
    ("area", "largest", "smallest", "message"),
    [
        (0.3, 0.3, 0.2, ""),
        (0.3, 0.1, 0.2, ""),
        (0.785, 0.785, 0.2, ""),
        (0.9, 0.9, 0.2, "no black background: 90% of the image is lit"),
        (0.3, 0.09, 0.2, "nothing as large as a cell"),
        (0.001, 0.001, None, ""),
    ],
)
def test_image_without_a_cell(
    area: float, largest: float, smallest: float | None, message: str
) -> None:
    assert no_cell(area, largest, smallest).startswith(message)
    assert bool(no_cell(area, largest, smallest)) == bool(message)


def test_black_and_damaged_images_raise_different_errors(tmp_path: Path) -> None:
    write_cell(tmp_path / "black.png", value=0)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(NoCellError) as black:
        decode(tmp_path / "black.png", Frame(32))
    assert black.value.problem == "no cell, all pixels are black"
    with pytest.raises(UnusableError) as damaged:
        decode(tmp_path / "text.png", Frame(32))
    assert not isinstance(damaged.value, NoCellError)


def test_images_of_a_folder_a_list_and_a_file(tmp_path: Path) -> None:
    for name in ("b.png", "deep/a.BMP", ".hidden/c.png", ".d.png", "notes.txt", "e.jpg"):
        path = tmp_path / "new" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "new/deep/up").symlink_to(tmp_path / "new")
    found = find_images(str(tmp_path / "new"))
    assert [image.name for image in found.images] == ["b.png", "deep/a.BMP"]
    assert found.others == {".txt": 1, ".jpg": 1}
    (tmp_path / "list.txt").write_text("\ufeff# mine\nnew/b.png\n\n/else/x.bmp\nnew/e.jpg\n")
    listed = find_images(str(tmp_path / "list.txt")).images
    assert [image.path for image in listed] == [
        tmp_path / "new/b.png", Path("/else/x.bmp"), tmp_path / "new/e.jpg"
    ]  # fmt: skip
    assert [image.problem for image in listed] == ["", "", "not a .bmp or .png file"]
    (one,) = find_images(str(tmp_path / "new/b.png")).images
    assert (one.name, one.path) == ("b.png", tmp_path / "new/b.png")


def test_names_that_no_encoding_has(tmp_path: Path) -> None:
    try:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    (image,) = find_images(str(tmp_path)).images
    assert image.name == "caf\\xe9.png"
    assert image.path.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file or folder"),
        (b"", "no paths"),
        (b"# nothing\n", "no paths"),
        (b"\xff\xfe\x00", "neither a .bmp or .png image nor a text file"),
        (b"a\x00b.png", "no paths"),
    ],
)
def test_invalid_lists(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        find_images(str(tmp_path / "list.txt"))


def test_folder_without_images_is_described(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"no .bmp or .png images; found: 1 .jpg in \./"):
        find_images(str(tmp_path))


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\tx", "\rx"])
def test_text_is_never_a_spreadsheet_formula(text: str) -> None:
    assert inert(text) == f"'{text}"
    assert inert(f"a{text}") == f"a{text}"
