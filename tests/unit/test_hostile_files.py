"""Untrusted image folders: problems are reported; nothing is followed, waited for or executed."""

import os
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_cell
from PIL import Image

from leuk.data import decode as decoding
from leuk.data.audit import Audit, Link, Pair, audit
from leuk.data.decode import LARGEST, Frame, UnusableError, decode
from leuk.data.layouts import Problem, find_images, index_images, read_cnmc
from leuk.errors import DataError
from leuk.explain.base import Attribution
from leuk.explain.figures import drawn_of, save_overlays
from leuk.report import html
from leuk.report.audit_page import audit_page
from leuk.report.page import missing_page
from leuk.report.table import Picture

CELL = "fold_0/all/UID_1_1_1_all.bmp"
EVIL = '<script>alert(1)</script>"onload=x'


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [pipe, device, folder])
def test_only_plain_files_are_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    write_cell(tmp_path / CELL)
    path = tmp_path / "fold_0/all/UID_1_2_1_all.bmp"
    make(path)
    with pytest.raises(UnusableError, match="a pipe, device or socket, not a file"):
        decode(path, Frame(16))
    assert len(read_cnmc(tmp_path).table) == 1
    messages = [str(problem) for problem in read_cnmc(tmp_path).problems]
    assert make is folder or messages[0].startswith("fold_0/all/UID_1_2_1_all.bmp: ")
    images = find_images(str(tmp_path)).images
    assert [image.name for image in images if not image.problem] == [CELL]


def test_a_table_of_labels_is_not_waited_for(tmp_path: Path) -> None:
    write_cell(tmp_path / "prelim_phase/1.bmp")
    os.mkfifo(tmp_path / "C-NMC_test_prelim_phase_data_labels.csv")
    kinds = [problem.kind for problem in read_cnmc(tmp_path).problems]
    assert kinds == ["unusable file", "no table"]


@pytest.mark.parametrize("linked", ["file", "folder", "everything", "dots"])
def test_links_stay_below_the_folder(tmp_path: Path, linked: str) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    write_cell(root / CELL)
    write_cell(secret / "all/UID_9_9_1_all.bmp")
    link, target = {
        "file": ("fold_0/all/UID_9_9_1_all.bmp", secret / "all/UID_9_9_1_all.bmp"),
        "folder": ("fold_1", secret),
        "everything": ("fold_1", Path("/")),
        "dots": ("fold_0/hem", Path("../../secret")),
    }[linked]
    (root / link).symlink_to(target)
    index = read_cnmc(root)
    assert index.table["path"].tolist() == [CELL]
    (problem,) = index.problems
    assert (problem.path, problem.kind) == (link, "unusable file")
    assert "leads out of the folder, to /" in problem.text
    if linked == "file":
        assert problem in audit(root, Frame(16), tmp_path / "cache").problems
    with pytest.raises(DataError, match=f"{link}: a link that leads out"):
        index_images(root)
    named = {image.name: image.problem for image in find_images(str(root)).images}
    assert named[CELL] == ""
    assert "leads out" in named[link]
    assert len(named) == 2


def test_folders_that_may_not_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cell(tmp_path / CELL)
    write_cell(tmp_path / "fold_1/all/UID_2_1_1_all.bmp")
    scan = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("fold_1"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="fold_1: Permission denied; make it readable"):
        index_images(tmp_path)


def test_names_that_differ_only_in_case_are_equal(tmp_path: Path) -> None:
    for name in ("UID_H3_1_1_hem.bmp", "UID_h3_1_1_hem.bmp", "UID_H3_1_1_hem.BMP"):
        write_cell(tmp_path / "hem" / name)
    if len(list((tmp_path / "hem").iterdir())) < 3:
        pytest.skip("this file system does not tell case apart")
    index = read_cnmc(tmp_path)
    assert len(index.table) == 1
    assert [problem.kind for problem in index.problems] == ["name twice"] * 2


@pytest.mark.parametrize("letters", [b"\x1b[2J", b"\xe9", b"\n", "\u202e".encode()])
def test_names_that_are_no_plain_text(tmp_path: Path, letters: bytes) -> None:
    write_cell(tmp_path / CELL)
    here = os.fsencode(tmp_path / "fold_0/all") + b"/a" + letters
    os.mkdir(here)
    os.rename(tmp_path / CELL, here + b"/UID_1_1_1_all.bmp")
    write_cell(tmp_path / CELL, value=80)
    with pytest.raises(DataError, match=r"a\\.*: its name has control characters") as caught:
        index_images(tmp_path)
    names = [image.name for image in find_images(str(tmp_path)).images]
    for text in (*names, str(caught.value)):
        assert text.isprintable()
        text.encode()


def bomb(path: Path, side: int) -> None:
    """Write a PNG of a few kilobytes that claims ``side`` by ``side`` pixels."""
    Image.new("1", (1, 1)).save(path)
    raw = path.read_bytes()
    head = raw[12:16] + side.to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    body = zlib.compress(b"\0" * (1 + 3 * min(side, 5000)) * min(side, 5000), 9)
    chunks = [head, b"IDAT" + body, b"IEND"]
    path.write_bytes(
        raw[:8]
        + b"".join(
            (len(c) - 4).to_bytes(4, "big") + c + zlib.crc32(c).to_bytes(4, "big") for c in chunks
        )
    )


@pytest.mark.parametrize("side", [LARGEST + 1, 10**4, 10**9])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, side: int) -> None:
    bomb(tmp_path / "cell.png", side)
    assert (tmp_path / "cell.png").stat().st_size < 200_000
    refused_in_little_memory(tmp_path / "cell.png")


def refused_in_little_memory(path: Path) -> None:
    tracemalloc.start()
    with pytest.raises(UnusableError, match=r"pixels, limit 4096|cannot be read"):
        decode(path, Frame(16))
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


def test_a_huge_file_is_not_read_to_report_it(tmp_path: Path) -> None:
    with (tmp_path / "cell.bmp").open("wb") as file:
        file.write(b"no image")
        file.truncate(2**28)
    refused_in_little_memory(tmp_path / "cell.bmp")


@pytest.mark.parametrize("kind", ["eps", "jpeg", "tiff", "gif"])
def test_no_reader_but_those_of_bmp_and_png_is_started(tmp_path: Path, kind: str) -> None:
    """Pillow starts Ghostscript for EPS files, whatever their suffix."""
    Image.new("RGB", (8, 8), (9, 99, 9)).save(tmp_path / "cell.bmp", kind)
    with pytest.raises(UnusableError, match="cannot be read"):
        decode(tmp_path / "cell.bmp", Frame(16))


@pytest.mark.parametrize("count", [1000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_files_are_listed_without_opening_or_querying_any(
    tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(count):
        label, prefix = (("hem", "H"), ("all", ""))[number % 3 > 0]
        folder = tmp_path / f"fold_{number % 3}" / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"UID_{prefix}{number % 50}_{number}_1_{label}.bmp").touch()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    queried: list[object] = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda *a, **k: (queried.append(a), stat(*a, **k))[1])
    monkeypatch.setattr(decoding.Image, "open", refuse)
    index = read_cnmc(tmp_path)
    assert (len(index.table), index.problems, index.strays) == (count, [], [])
    assert len(queried) < 100


def audited() -> Audit:
    """Build an audit in which all texts are HTML."""
    pair = Pair(f"{EVIL}/a.bmp", f"b{EVIL}", "near", 0.9)
    problem = Problem(EVIL, EVIL, EVIL)
    link = Link((EVIL, EVIL), (EVIL, EVIL), [pair])
    return Audit(EVIL, [], {EVIL: 1}, [problem], [EVIL], [link], [EVIL], {EVIL: 2})


def test_all_pages_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "leuk.report.audit_page._picture", lambda *_: Picture("data:,", EVIL, (EVIL,))
    )
    split = {"name": EVIL, "error": EVIL}
    pages = [audit_page(audited(), Path(), split, EVIL, {}), missing_page(EVIL, [EVIL])]
    for page in pages:
        assert "&lt;script&gt;" in page
        assert "<script" not in page
        assert '"onload' not in page
        assert page.index("Content-Security-Policy") < page.index("<title>")
        assert "default-src &#39;none&#39;" in page
    templates = Path(html.__file__).parent / "templates"
    for path in templates.glob("*.html"):
        assert "safe" not in path.read_text()
    sources = [
        path for path in templates.parents[1].rglob("*.py") if "<!doctype" in path.read_text()
    ]
    assert not sources


@pytest.mark.parametrize("name", ["$\\frac$", "$x", "a_$b$", "<b>&"])
def test_names_on_pictures_are_no_formulas(tmp_path: Path, name: str) -> None:
    maps = drawn_of(Attribution(torch.rand(1, 8, 8) - 0.5, "pixel"))
    save_overlays(tmp_path / "a.png", torch.rand(1, 3, 8, 8), maps, [name], name)
    assert np.asarray(Image.open(tmp_path / "a.png")).std() > 1
