import errno
import os
import signal
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import write_cell
from PIL import Image

from leuk.data import pixels
from leuk.data.audit import Cut, count_cuts, framing_warning
from leuk.data.decode import Frame, UnusableError, decode
from leuk.data.layouts import index_images
from leuk.data.pixels import PixelStore
from leuk.errors import DataError, StoreError


def open_store(root: Path, cache: Path, on_corrupt: str = "raise", **frame: object) -> PixelStore:
    chosen = Frame(**{"resolution": 16, **frame})  # type: ignore[arg-type]
    return PixelStore.open(index_images(root), root, chosen, cache, on_corrupt)


def square(path: Path, left: int, upper: int, side: int, size: int = 450) -> Path:
    """Write a bright square on black."""
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[upper : upper + side, left : left + side] = 100
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_a_crop_is_resized_without_ringing(tmp_path: Path) -> None:
    """A filter with negative lobes would be brighter than 100 beside the edge of the square."""
    small = decode(square(tmp_path / "cell.bmp", 150, 150, 150), Frame(64, "crop300")).pixels
    assert small.max() == 100
    assert (small > 0).all(axis=2).sum() <= 34**2


def test_digests_differ_wherever_a_pixel_does(tmp_path: Path) -> None:
    """One blue level more of one pixel leaves the gray thumbnail as it is."""
    write_cell(tmp_path / "one.bmp", size=64)
    changed = np.asarray(Image.open(tmp_path / "one.bmp")).copy()
    changed[32, 32, 2] += 1
    Image.fromarray(changed).save(tmp_path / "other.bmp")
    Image.open(tmp_path / "one.bmp").save(tmp_path / "same.png")
    one, other, same = (
        decode(tmp_path / name, Frame(32)) for name in ("one.bmp", "other.bmp", "same.png")
    )
    np.testing.assert_array_equal(one.thumb, other.thumb)
    assert one.digest == same.digest != other.digest


def test_second_start_decodes_nothing_and_writes_do_not_reach_the_file(
    tiny_folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_store(tiny_folds, tmp_path / "cache", resolution=32)
    first.pixels[:] = 1
    monkeypatch.setattr(pixels, "decode", None)
    store = open_store(tiny_folds, tmp_path / "cache", resolution=32)
    for row, path in enumerate(index_images(tiny_folds)["path"]):
        np.testing.assert_array_equal(store.pixels[row], np.asarray(Image.open(tiny_folds / path)))


def test_fingerprint_depends_on_content_and_frame_not_on_location(
    tiny_folds: Path, tmp_path: Path
) -> None:
    first = open_store(tiny_folds, tmp_path / "cache")
    frames = [{"framing": framing} for framing in ("crop300", "cell", "centered")]
    for frame in ({"resolution": 8}, *frames):
        other = open_store(tiny_folds, tmp_path / "cache", **frame)
        assert other.fingerprint != first.fingerprint
    moved = tiny_folds.rename(tmp_path / "elsewhere")
    assert open_store(moved, tmp_path / "two").fingerprint == first.fingerprint
    path = moved / "fold_0/all/UID_1_1_1_all.bmp"
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(path)
    os.utime(path, ns=(1, 1))
    changed = open_store(moved, tmp_path / "two")
    assert changed.fingerprint != first.fingerprint
    assert changed.pixels[0].max() == 90


def test_unreadable_images_are_reported_or_skipped(
    tiny_folds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    link = tiny_folds / "fold_0/all/UID_1_1_1_all.bmp"
    link.unlink()
    link.symlink_to(tmp_path / "nowhere.bmp")
    with pytest.raises(DataError, match=r"UID_1_1_1_all\.bmp: No such file"):
        open_store(tiny_folds, tmp_path / "cache")
    path = tiny_folds / "fold_0/hem/UID_H1_1_1_hem.bmp"
    path.write_bytes(path.read_bytes()[:1024])
    with pytest.raises(DataError, match=r"and 1 more such files"):
        open_store(tiny_folds, tmp_path / "cache")
    store = open_store(tiny_folds, tmp_path / "cache", "skip", resolution=32)
    assert "truncated BMP (expected 3126 bytes, found 1024)" in caplog.text
    kept = index_images(tiny_folds)["path"].iloc[store.kept]
    assert len(kept) == len(store.pixels) == 14
    for row, name in enumerate(kept):
        np.testing.assert_array_equal(store.pixels[row], np.asarray(Image.open(tiny_folds / name)))


@pytest.mark.parametrize(
    ("mode", "remedy"),
    [
        ("L", "color image"),
        ("LA", "color image"),
        ("I;16", "color image"),
        ("P", "convert it to 8-bit RGB"),
    ],
)
def test_other_modes_are_refused(tmp_path: Path, mode: str, remedy: str) -> None:
    image = Image.new("RGB", (32, 32)).convert(mode) if mode != "I;16" else Image.new(mode, (8, 8))
    image.save(tmp_path / "cell.png")
    with pytest.raises(DataError, match=rf"{mode} image, expected 8-bit RGB; .*{remedy}"):
        decode(tmp_path / "cell.png", Frame(16))


def test_an_opaque_alpha_channel_changes_nothing(tmp_path: Path) -> None:
    write_cell(tmp_path / "plain.png")
    with Image.open(tmp_path / "plain.png") as image:
        image.convert("RGBA").save(tmp_path / "opaque.png")
        image.putalpha(Image.new("L", image.size, 255))
        image.putpixel((0, 0), (0, 0, 0, 254))
        image.save(tmp_path / "see_through.png")
    plain, opaque = (decode(tmp_path / f"{n}.png", Frame(16)) for n in ("plain", "opaque"))
    np.testing.assert_array_equal(opaque.pixels, plain.pixels)
    assert opaque.digest == plain.digest
    with pytest.raises(DataError, match=r"0\.10% of its pixels are not opaque; paste it on black"):
        decode(tmp_path / "see_through.png", Frame(16))


def test_text_named_bmp(tiny_folds: Path, tmp_path: Path) -> None:
    for path in tiny_folds.rglob("*.bmp"):
        path.write_text("no image at all")
    with pytest.raises(DataError, match=r"bmp: cannot be read .*data\.on_corrupt=skip"):
        decode(path, Frame(16))
    with pytest.raises(DataError, match="none of the 16 images can be read"):
        open_store(tiny_folds, tmp_path / "cache", on_corrupt="skip")


def test_final_images_are_cropped_to_the_size_of_the_others(tmp_path: Path) -> None:
    final = decode(square(tmp_path / "final.bmp", 175, 175, 250, size=600), Frame(64))
    train = decode(square(tmp_path / "train.bmp", 100, 100, 250), Frame(64))
    np.testing.assert_array_equal(final.pixels, train.pixels)
    assert (final.digest, final.area) == (train.digest, train.area)
    assert final.size == (600, 600)


def test_cell_framing_fills_the_frame_wherever_the_cell_is(tmp_path: Path) -> None:
    decoded = decode(square(tmp_path / "cell.png", 10, 300, 100), Frame(110, "cell"))
    assert (decoded.pixels.max(axis=2) > 0).mean() == pytest.approx((100 / 110) ** 2, abs=0.02)
    assert decoded.area == pytest.approx((100 / 450) ** 2)


@pytest.mark.parametrize(
    ("left", "upper", "side", "start", "at_border"),
    [
        (125, 125, 200, 80, False),
        (0, 250, 200, 80, True),
        (250, 0, 200, 80, True),
        (10, 20, 400, 8, False),  # the frame grows for a cell that would not fit
    ],
)
def test_centered_framing_keeps_scale_and_cell_wherever_the_cell_is(
    tmp_path: Path, left: int, upper: int, side: int, start: int, at_border: bool
) -> None:
    resolution = side + 2 * start
    path = square(tmp_path / "cell.png", left, upper, side)
    decoded = decode(path, Frame(resolution, "centered"))
    expected = np.zeros((resolution, resolution), np.uint8)
    expected[start : start + side, start : start + side] = 100
    np.testing.assert_array_equal(decoded.pixels[..., 0], expected)
    assert (decoded.outside, decoded.at_border) == (0, at_border)


def test_cells_that_a_framing_cuts_are_counted_per_class(tmp_path: Path) -> None:
    corners = {
        "all/UID_1_1_1_all.png": (75, 75),
        "all/UID_1_2_1_all.png": (70, 75),
        "all/UID_1_3_1_all.png": (0, 75),
        "hem/UID_H1_1_1_hem.png": (100, 100),
        "hem/UID_H1_2_1_hem.png": (300, 75),
    }
    for name, corner in corners.items():
        square(tmp_path / name, *corner, 100)
    cuts = {}
    for framing in ("full", "crop300", "centered", "cell"):
        store = open_store(tmp_path, tmp_path / "cache", framing=framing)
        cuts[framing] = count_cuts(index_images(tmp_path), store)
        if framing == "crop300":
            assert store.outside == pytest.approx([0, 0.05, 0.75, 0, 0.25])
            assert framing_warning(framing, cuts[framing]).startswith(
                "data.framing=crop300: more than 0.5% of the cell is outside the frame in 2 of 3 "
                "all images (66.7%), 1 of 2 hem images (50.0%)"
            )
        else:
            assert store.outside.max() == 0
            assert framing_warning(framing, cuts[framing]) == ""
    assert cuts["crop300"] == [Cut("all", 3, 2, 1), Cut("hem", 2, 1, 0)]


def test_a_larger_image_is_cropped_about_its_middle_without_cutting_the_cell(
    tmp_path: Path,
) -> None:
    for left, expected in ((40, 15), (80, 30), (0, 0)):
        path = square(tmp_path / "cell.png", left, 30, 20, size=100)
        decoded = decode(path, Frame(50, canvas=50))
        lit = decoded.pixels[..., 0] > 0
        assert (lit.sum(), int(lit.any(axis=0).argmax())) == (400, expected)
        assert (decoded.area, decoded.outside) == (400 / 2500, 0)
        assert decoded.at_border == (left in (0, 80))


def test_no_real_cell_is_cut(cnmc: Path, tmp_path: Path) -> None:
    store = open_store(cnmc / "original", tmp_path, framing="centered")
    assert len(store.pixels) == 180
    assert store.outside.max() == 0


def test_black_image_is_refused(tmp_path: Path) -> None:
    """Interrupted downloads leave a header and zeros; such files would link their subjects."""
    Image.new("RGB", (32, 32)).save(tmp_path / "cell.bmp")
    with pytest.raises(DataError, match=r"cell\.bmp: no cell, all pixels are black; replace"):
        decode(tmp_path / "cell.bmp", Frame(16))


def test_file_that_becomes_readable_is_decoded(
    tiny_folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A permission error can disappear without a change of size or date."""
    decode_file = pixels.decode

    def refuse(path: Path, frame: Frame) -> object:
        if path.name == "UID_1_1_1_all.bmp":
            raise UnusableError(path, "Permission denied")
        return decode_file(path, frame)

    monkeypatch.setattr(pixels, "decode", refuse)
    assert len(open_store(tiny_folds, tmp_path / "cache", "skip").pixels) == 15
    monkeypatch.undo()
    assert len(open_store(tiny_folds, tmp_path / "cache").pixels) == 16


def test_lack_of_space_is_reported_before_decoding(tiny_folds: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"needs .* GB, .* GB are free; make room or"):
        open_store(tiny_folds, tmp_path / "cache", resolution=2_000_000)


def test_full_disk_while_decoding_leaves_nothing(
    tiny_folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pixels, "write_json", full)
    with pytest.raises(StoreError, match="no partial file is left; make room or choose another"):
        open_store(tiny_folds, tmp_path / "cache")
    assert [p.suffix for p in (tmp_path / "cache/pixels").iterdir()] == [".lock"]
    monkeypatch.undo()
    assert len(open_store(tiny_folds, tmp_path / "cache").pixels) == 16


def test_half_written_store_is_rebuilt(tiny_folds: Path, tmp_path: Path) -> None:
    store = open_store(tiny_folds, tmp_path / "cache")
    raw = store.folder / "pixels.raw"
    raw.write_bytes(raw.read_bytes()[:-100])
    again = open_store(tiny_folds, tmp_path / "cache")
    np.testing.assert_array_equal(again.pixels, store.pixels[:])
    assert raw.stat().st_size == again.pixels.size


def test_killed_while_decoding_leaves_no_store(
    tiny_folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "write_json", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    if not (child := os.fork()):
        try:
            open_store(tiny_folds, tmp_path / "cache")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    monkeypatch.undo()
    assert not list((tmp_path / "cache/pixels").glob("[!.]*"))
    assert len(open_store(tiny_folds, tmp_path / "cache").pixels) == 16


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    write_cell(tmp_path / "all/UID_1_0_1_all.png", size=16)
    for cell in range(1, 600):
        copy = tmp_path / f"all/UID_1_{cell}_1_all.png"
        copy.symlink_to(tmp_path / "all/UID_1_0_1_all.png")
    tracemalloc.start()
    open_store(tmp_path, tmp_path / "cache", resolution=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole = 600 * 256 * 256 * 3
    assert peak < 0.7 * whole
