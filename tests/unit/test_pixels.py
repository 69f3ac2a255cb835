import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leuk.data import pixels
from leuk.data.cnmc import CNMC, index_cells
from leuk.data.pixels import Frame, PixelStore, decode
from leuk.errors import DataError


def open_store(root: Path, cache: Path, on_corrupt: str = "raise", **frame: object) -> PixelStore:
    chosen = Frame(**{"resolution": 16, **frame})  # type: ignore[arg-type]
    return PixelStore.open(index_cells(root), root, chosen, cache, on_corrupt)


def test_decoding_at_the_same_size_changes_nothing(tiny_folds: Path) -> None:
    path = tiny_folds / "fold_0/all/UID_1_1_1_all.bmp"
    np.testing.assert_array_equal(decode(path, Frame(32)), np.asarray(Image.open(path)))


def test_resizing_leaves_the_background_black(tiny_folds: Path) -> None:
    small = decode(tiny_folds / "fold_0/all/UID_1_1_1_all.bmp", Frame(16))
    assert small[0].max() == 0
    assert small.max() > 50


def test_crop_keeps_the_central_two_thirds(tmp_path: Path) -> None:
    picture = np.zeros((450, 450, 3), np.uint8)
    picture[75:375, 75:375] = 200
    Image.fromarray(picture).save(tmp_path / "cell.bmp")
    assert decode(tmp_path / "cell.bmp", Frame(300, "crop300")).min() == 200


def test_rows_follow_the_table(tiny_folds: Path, tmp_path: Path) -> None:
    store = open_store(tiny_folds, tmp_path / "cache", resolution=32)
    for row, path in enumerate(index_cells(tiny_folds)["path"]):
        np.testing.assert_array_equal(store.pixels[row], np.asarray(Image.open(tiny_folds / path)))


def test_second_start_decodes_nothing(
    tiny_folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_store(tiny_folds, tmp_path / "cache")

    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(pixels, "decode", refuse)
    second = open_store(tiny_folds, tmp_path / "cache")
    np.testing.assert_array_equal(first.pixels, second.pixels)


@pytest.mark.parametrize("change", [{"resolution": 8}, {"framing": "crop300"}])
def test_another_frame_is_another_store(
    tiny_folds: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    first = open_store(tiny_folds, tmp_path / "cache")
    assert open_store(tiny_folds, tmp_path / "cache", **change).fingerprint != first.fingerprint


def test_changed_file_is_decoded_again(tiny_folds: Path, tmp_path: Path) -> None:
    first = open_store(tiny_folds, tmp_path / "cache")
    path = tiny_folds / "fold_0/all/UID_1_1_1_all.bmp"
    Image.fromarray(np.full((32, 32, 3), 9, np.uint8)).save(path)
    os.utime(path, ns=(1, 1))
    second = open_store(tiny_folds, tmp_path / "cache")
    assert second.fingerprint != first.fingerprint
    assert second.pixels[0].max() == 9


def test_fingerprint_is_of_the_content_not_the_place(tiny_folds: Path, tmp_path: Path) -> None:
    first = open_store(tiny_folds, tmp_path / "one")
    moved = tiny_folds.rename(tmp_path / "elsewhere")
    assert open_store(moved, tmp_path / "two").fingerprint == first.fingerprint


def test_writing_to_the_pixels_does_not_reach_the_file(tiny_folds: Path, tmp_path: Path) -> None:
    store = open_store(tiny_folds, tmp_path / "cache")
    before = store.pixels.copy()
    store.pixels[:] = 1
    np.testing.assert_array_equal(open_store(tiny_folds, tmp_path / "cache").pixels, before)


def truncate(root: Path) -> Path:
    path = root / "fold_0/hem/UID_H1_1_1_hem.bmp"
    path.write_bytes(path.read_bytes()[:1024])
    return path


def test_truncated_bmp_is_named_with_its_sizes(tiny_folds: Path, tmp_path: Path) -> None:
    truncate(tiny_folds)
    expected = r"UID_H1_1_1_hem\.bmp: truncated BMP \(expected 3126 bytes, found 1024\)"
    with pytest.raises(DataError, match=expected):
        open_store(tiny_folds, tmp_path / "cache")
    left = [path for path in (tmp_path / "cache/pixels").iterdir() if path.suffix != ".lock"]
    assert not left


def test_corrupt_images_can_be_skipped(
    tiny_folds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = truncate(tiny_folds)
    data = CNMC(tiny_folds, resolution=32, cache=tmp_path / "cache", on_corrupt="skip")
    assert len(data) == 15
    assert path.name not in " ".join(data.cells["path"])
    assert path.name in caplog.text
    for row, name in enumerate(data.cells["path"]):
        np.testing.assert_array_equal(data.data[row], np.asarray(Image.open(tiny_folds / name)))


def test_nothing_readable(tiny_folds: Path, tmp_path: Path) -> None:
    for path in tiny_folds.rglob("*.bmp"):
        path.write_text("no image")
    with pytest.raises(DataError, match="none of the 16 images can be read"):
        open_store(tiny_folds, tmp_path / "cache", on_corrupt="skip")


def test_grey_image_is_refused(tiny_folds: Path, tmp_path: Path) -> None:
    path = tiny_folds / "fold_0/all/UID_1_1_1_all.bmp"
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(path)
    with pytest.raises(DataError, match="L image where 8-bit RGB was expected"):
        open_store(tiny_folds, tmp_path / "cache")
