import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import write_cell
from PIL import Image

from leuk.data import pixels
from leuk.data.audit import Cut, count_cuts, framing_warning
from leuk.data.decode import Frame, UnusableError, decode
from leuk.data.layouts import CNMC, index_images
from leuk.data.pixels import PixelStore
from leuk.errors import DataError, StoreError


def open_store(root: Path, cache: Path, on_corrupt: str = "raise", **frame: object) -> PixelStore:
    chosen = Frame(**{"resolution": 16, **frame})  # type: ignore[arg-type]
    return PixelStore.open(index_images(root), root, chosen, cache, on_corrupt)


def test_a_crop_is_resized_without_ringing(tmp_path: Path) -> None:
    """A filter with negative lobes would be brighter than 200 beside the edge of the square."""
    picture = np.zeros((450, 450, 3), np.uint8)
    picture[150:300, 150:300] = 200
    Image.fromarray(picture).save(tmp_path / "cell.bmp")
    small = decode(tmp_path / "cell.bmp", Frame(64, "crop300")).pixels
    assert small.max() == 200
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


def test_rows_follow_the_table(tiny_folds: Path, tmp_path: Path) -> None:
    store = open_store(tiny_folds, tmp_path / "cache", resolution=32)
    for row, path in enumerate(index_images(tiny_folds)["path"]):
        np.testing.assert_array_equal(store.pixels[row], np.asarray(Image.open(tiny_folds / path)))


def test_second_start_decodes_nothing_and_writes_do_not_reach_the_file(
    tiny_folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_store(tiny_folds, tmp_path / "cache")
    before = first.pixels.copy()
    first.pixels[:] = 1
    monkeypatch.setattr(pixels, "decode", None)
    np.testing.assert_array_equal(open_store(tiny_folds, tmp_path / "cache").pixels, before)


@pytest.mark.parametrize(
    "change",
    [{"resolution": 8}, {"framing": "crop300"}, {"framing": "cell"}, {"framing": "centered"}],
)
def test_another_frame_is_another_store(
    tiny_folds: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    first = open_store(tiny_folds, tmp_path / "cache")
    assert open_store(tiny_folds, tmp_path / "cache", **change).fingerprint != first.fingerprint


def test_changed_file_is_decoded_again(tiny_folds: Path, tmp_path: Path) -> None:
    first = open_store(tiny_folds, tmp_path / "cache")
    path = tiny_folds / "fold_0/all/UID_1_1_1_all.bmp"
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(path)
    os.utime(path, ns=(1, 1))
    second = open_store(tiny_folds, tmp_path / "cache")
    assert second.fingerprint != first.fingerprint
    assert second.pixels[0].max() == 90


def test_fingerprint_depends_on_content_not_location(tiny_folds: Path, tmp_path: Path) -> None:
    first = open_store(tiny_folds, tmp_path / "one")
    moved = tiny_folds.rename(tmp_path / "elsewhere")
    assert open_store(moved, tmp_path / "two").fingerprint == first.fingerprint


def truncate(root: Path) -> Path:
    path = root / "fold_0/hem/UID_H1_1_1_hem.bmp"
    path.write_bytes(path.read_bytes()[:1024])
    return path


def test_truncated_bmp_is_reported_with_its_sizes(tiny_folds: Path, tmp_path: Path) -> None:
    truncate(tiny_folds)
    expected = r"UID_H1_1_1_hem\.bmp: truncated BMP \(expected 3126 bytes, found 1024\)"
    with pytest.raises(DataError, match=expected):
        open_store(tiny_folds, tmp_path / "cache")


def test_corrupt_images_can_be_skipped(
    tiny_folds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = truncate(tiny_folds)
    data = CNMC(tiny_folds, resolution=32, cache=tmp_path / "cache", on_corrupt="skip")
    assert len(data) == 15
    assert path.name not in " ".join(data.index["path"])
    assert path.name in caplog.text
    for row, name in enumerate(data.index["path"]):
        np.testing.assert_array_equal(data.data[row], np.asarray(Image.open(tiny_folds / name)))


def test_nothing_readable(tiny_folds: Path, tmp_path: Path) -> None:
    for path in tiny_folds.rglob("*.bmp"):
        path.write_text("no image")
    with pytest.raises(DataError, match="none of the 16 images can be read"):
        open_store(tiny_folds, tmp_path / "cache", on_corrupt="skip")


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


def test_text_named_bmp(tmp_path: Path) -> None:
    (tmp_path / "cell.bmp").write_text("no image at all")
    with pytest.raises(DataError, match=r"cell\.bmp: cannot be read .*data\.on_corrupt=skip"):
        decode(tmp_path / "cell.bmp", Frame(16))


def picture(size: int, left: int, upper: int, side: int) -> Image.Image:
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[upper : upper + side, left : left + side] = 100
    return Image.fromarray(pixels)


def test_final_images_are_cropped_to_the_size_of_the_others(tmp_path: Path) -> None:
    picture(600, 175, 175, 250).save(tmp_path / "final.bmp")
    picture(450, 100, 100, 250).save(tmp_path / "train.bmp")
    final, train = (decode(tmp_path / f"{name}.bmp", Frame(64)) for name in ("final", "train"))
    np.testing.assert_array_equal(final.pixels, train.pixels)
    assert (final.digest, final.area) == (train.digest, train.area)
    assert final.size == (600, 600)


def test_cell_framing_fills_the_frame_wherever_the_cell_is(tmp_path: Path) -> None:
    picture(450, 10, 300, 100).save(tmp_path / "cell.png")
    decoded = decode(tmp_path / "cell.png", Frame(110, "cell"))
    assert (decoded.pixels.max(axis=2) > 0).mean() == pytest.approx((100 / 110) ** 2, abs=0.02)
    assert decoded.area == pytest.approx((100 / 450) ** 2)


@pytest.mark.parametrize(("left", "upper"), [(125, 125), (0, 250), (250, 0)])
def test_centered_framing_keeps_scale_and_cell_wherever_the_cell_is(
    tmp_path: Path, left: int, upper: int
) -> None:
    picture(450, left, upper, 200).save(tmp_path / "cell.png")
    decoded = decode(tmp_path / "cell.png", Frame(360, "centered"))
    expected = np.zeros((360, 360), np.uint8)
    expected[80:280, 80:280] = 100
    np.testing.assert_array_equal(decoded.pixels[..., 0], expected)
    assert decoded.outside == 0
    assert decoded.at_border == (left != 125)


def test_centered_framing_grows_for_a_cell_that_would_not_fit(tmp_path: Path) -> None:
    picture(450, 10, 20, 400).save(tmp_path / "cell.png")
    decoded = decode(tmp_path / "cell.png", Frame(416, "centered"))
    assert decoded.outside == 0
    lit = decoded.pixels[..., 0] > 0
    assert (lit.sum(), lit[8:408, 8:408].all()) == (400**2, True)


def test_share_of_the_cell_that_a_crop_cuts_off(tmp_path: Path) -> None:
    picture(450, 55, 100, 100).save(tmp_path / "cell.png")
    found = {
        framing: decode(tmp_path / "cell.png", Frame(64, framing)).outside  # type: ignore[arg-type]
        for framing in ("full", "centered", "crop300", "cell")
    }
    assert found == {"full": 0, "centered": 0, "crop300": pytest.approx(0.2), "cell": 0}


def test_cells_that_a_framing_cuts_are_counted_per_class(tmp_path: Path) -> None:
    corners = {
        "fold_0/all/UID_1_1_1_all.png": (75, 75),
        "fold_0/all/UID_1_2_1_all.png": (70, 75),
        "fold_0/all/UID_1_3_1_all.png": (0, 75),
        "fold_0/hem/UID_H1_1_1_hem.png": (100, 100),
        "fold_0/hem/UID_H1_2_1_hem.png": (300, 75),
    }
    for path, corner in corners.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        picture(450, *corner, 100).save(tmp_path / path)
    counted = {}
    for framing in ("crop300", "centered"):
        store = open_store(tmp_path, tmp_path / "cache", framing=framing)
        counted[framing] = count_cuts(index_images(tmp_path), store)
    assert counted["crop300"] == [Cut("all", 3, 2, 1), Cut("hem", 2, 1, 0)]
    assert framing_warning("crop300", counted["crop300"]).startswith(
        "data.framing=crop300: more than 0.5% of the cell is outside the frame in 2 of 3 all "
        "images (66.7%), 1 of 2 hem images (50.0%)"
    )
    assert framing_warning("centered", counted["centered"]) == ""


def test_no_real_cell_is_cut(cnmc: Path, tmp_path: Path) -> None:
    data = CNMC(cnmc / "original", resolution=16, framing="centered", cache=tmp_path)
    assert len(data) == 180
    assert data.store.outside.max() == 0


def test_black_image_is_refused(tmp_path: Path) -> None:
    """Interrupted downloads leave a header and zeros; such files would link their subjects."""
    Image.new("RGB", (32, 32)).save(tmp_path / "cell.bmp")
    with pytest.raises(DataError, match=r"cell\.bmp: no cell, all pixels are black; replace"):
        decode(tmp_path / "cell.bmp", Frame(16))


def test_broken_link_is_a_bad_file_like_others(tiny_folds: Path, tmp_path: Path) -> None:
    path = tiny_folds / "fold_0/all/UID_1_1_1_all.bmp"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere.bmp")
    with pytest.raises(DataError, match=r"UID_1_1_1_all\.bmp: No such file"):
        open_store(tiny_folds, tmp_path / "cache")
    assert len(open_store(tiny_folds, tmp_path / "cache", "skip").pixels) == 15


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


def test_lack_of_space_is_reported_before_decoding(
    tiny_folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match=r"needs .* GB, .* GB are free; make room or"):
        open_store(tiny_folds, tmp_path / "cache", resolution=2_000_000)


def test_full_disk_while_decoding_leaves_nothing(tiny_folds: Path, tmp_path: Path) -> None:
    """Failed writes in a process whose files are limited to 20 kB."""
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "from leuk.data.layouts import CNMC\n"
        f"CNMC({str(tiny_folds)!r}, resolution=64, cache={str(tmp_path / 'cache')!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "StoreError" in done.stderr
    assert "no partial file is left; make room or choose another disk" in done.stderr
    assert [p.suffix for p in (tmp_path / "cache/pixels").iterdir()] == [".lock"]
    assert len(open_store(tiny_folds, tmp_path / "cache", resolution=64).pixels) == 16


def test_half_written_store_is_rebuilt(tiny_folds: Path, tmp_path: Path) -> None:
    store = open_store(tiny_folds, tmp_path / "cache")
    raw = store.folder / "pixels.raw"
    raw.write_bytes(raw.read_bytes()[:-100])
    again = open_store(tiny_folds, tmp_path / "cache")
    np.testing.assert_array_equal(again.pixels, store.pixels[:])
    assert raw.stat().st_size == again.pixels.size


def test_killed_while_decoding_leaves_no_store(tiny_folds: Path, tmp_path: Path) -> None:
    script = (
        "import os, signal\nfrom leuk.data import pixels\nfrom leuk.data.layouts import CNMC\n"
        "pixels.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"CNMC({str(tiny_folds)!r}, resolution=16, cache={str(tmp_path / 'cache')!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not list((tmp_path / "cache/pixels").glob("[!.]*"))
    assert len(open_store(tiny_folds, tmp_path / "cache").pixels) == 16


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    for cell in range(600):
        write_cell(tmp_path / f"fold_0/all/UID_1_{cell}_1_all.png", size=16)
    tracemalloc.start()
    open_store(tmp_path, tmp_path / "cache", resolution=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole = 600 * 256 * 256 * 3
    assert peak < 0.7 * whole
