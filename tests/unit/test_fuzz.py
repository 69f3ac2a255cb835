"""Fuzzing of files and names: each is accepted or refused with an error of leuk."""

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzzing import many, nothing_but
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from leuk.data.decode import Frame, UnusableError, decode
from leuk.data.layouts import find_images, is_plain, printable, read_cnmc
from leuk.errors import DataError, StoreError
from leuk.report.load import read_predictions, stages_of
from leuk.runs.trainer import read_checkpoint
from leuk.store import inert, read_arrays, restored


def encoded(kind: str, side: int = 12) -> bytes:
    """Return a valid file."""
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    file = io.BytesIO()
    if kind == "npz":
        np.savez(file, kept=pixels)
    elif kind == "ckpt":
        torch.save({"state_dict": {"a": torch.zeros(3)}, "epoch": 1, "stamp": {}}, file)
    else:
        Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@st.composite
def damaged(draw: st.DrawFn, kind: str) -> bytes:
    """A file with a few bytes changed, cut or put in, most of them near its head."""
    raw = bytearray(encoded(kind))
    for _ in range(draw(st.integers(1, 6))):
        position = draw(st.integers(0, 64) | st.integers(0, len(raw)))
        how = draw(st.sampled_from(["change", "number", "cut", "put in", "end"]))
        some = draw(st.binary(min_size=1, max_size=8))
        if how == "change":
            raw[position : position + len(some)] = some
        elif how == "number":
            raw[position : position + 4] = draw(st.integers(0, 2**32 - 1)).to_bytes(4, "little")
        elif how == "cut":
            del raw[position : position + len(some)]
        elif how == "put in":
            raw[position:position] = some
        else:
            del raw[max(position, 1) :]
    return bytes(raw)


FILES = {kind: damaged(kind) | st.binary(max_size=200) for kind in ("bmp", "png", "npz", "ckpt")}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["bmp", "png"])
@many
@given(data=st.data())
def test_image_files(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    path = tmp_path / f"cell.{kind}"
    path.write_bytes(data.draw(FILES[kind]))
    frame = Frame(8, data.draw(st.sampled_from(["full", "centered", "crop300", "cell"])))
    with nothing_but(UnusableError, naming=path):
        found = decode(path, frame)
        assert found.pixels.shape == (8, 8, 3)
        assert 0 < found.area <= 1


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("kind", "read", "errors"),
    [
        ("npz", read_arrays, (OSError, ValueError)),
        ("ckpt", lambda path: read_checkpoint(path, {"form": "CNN"}), (StoreError,)),
    ],
)
@many
@given(data=st.data())
def test_files_of_arrays_and_weights(
    tmp_path: Path,
    kind: str,
    read: Callable[[Path], object],
    errors: tuple[type[Exception], ...],
    data: st.DataObject,
) -> None:
    path = tmp_path / f"file.{kind}"
    path.write_bytes(data.draw(FILES[kind]))
    with nothing_but(*errors):
        read(path)


CELLS = st.sampled_from(["UID_1_1_1_all", "UID_H2_1_1_hem.bmp", "1.bmp", "2", "0", "1", "", "=1"])
WORDS = CELLS | st.text(max_size=12) | st.integers(0, 10**30).map(lambda n: f"UID_{n}_1_1_all")
TABLES = st.lists(st.lists(WORDS, min_size=1, max_size=4).map(",".join), max_size=5).map("\n".join)


@many
@given(table=TABLES, head=st.sampled_from(["Patient_ID,new_names,labels\n", ""]), more=st.binary())
@example(
    table=f"UID_{'9' * 5000}_1_1_all.bmp,1.bmp,1", head="Patient_ID,new_names,labels\n", more=b""
)
def test_tables_of_labels(tmp_path: Path, table: str, head: str, more: bytes) -> None:
    folder = tmp_path / "prelim_phase"
    folder.mkdir(exist_ok=True)
    (folder / "1.bmp").touch()
    path = tmp_path / "C-NMC_test_prelim_phase_data_labels.csv"
    path.write_bytes((head + table).encode("utf-8", "surrogatepass") + more)
    with nothing_but(DataError, naming=path):
        index = read_cnmc(tmp_path)
        assert len(index.table) <= 1
        assert all(is_plain(str(problem)) for problem in index.problems)


@many
@given(table=TABLES, head=st.sampled_from(["stage,path,patient,label,score,calibrated\n", ""]))
def test_tables_of_predictions(tmp_path: Path, table: str, head: str) -> None:
    rows = [f"{stage},a,b,1,0.5,0.5" for stage in ("val", "test")] if len(table) % 2 else []
    path = tmp_path / "predictions.csv"
    path.write_bytes("\n".join([head + table, *rows]).encode("utf-8", "surrogatepass"))
    with nothing_but(StoreError, naming=path):
        stages_of(read_predictions(path.parent, path.name), path)


NAMES = (
    st.binary(min_size=1, max_size=40)
    .map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda raw: raw not in (b".", b".."))
)
PARTS = st.sampled_from(
    [b"fold_0", b"all", b"hem", b"FOLD_1", b"prelim_phase", b"final_phase_data"]
)
ENDS = st.sampled_from(
    [b"UID_1_1_1_all.bmp", b"UID_h3_2_1_hem.PNG", b"1.bmp", b"labels_prelim_phase"]
)


@many
@given(
    names=st.lists(
        st.tuples(
            st.lists(PARTS | NAMES, max_size=2), ENDS | NAMES | NAMES.map(lambda n: n + b".bmp")
        ),
        min_size=1,
        max_size=5,
    )
)
def test_names_of_files(tmp_path: Path, names: list[tuple[list[bytes], bytes]]) -> None:
    root = tmp_path / "root"
    files = set()
    for folders, name in names:
        folder = os.path.join(os.fsencode(root), *folders)
        try:
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, name), "wb"):
                pass
        except OSError:  # where one name is the file and the folder of another
            continue
        if not any(part.startswith(b".") for part in folders):
            files.add(os.path.join(folder, name))
    with nothing_but(DataError, naming=root):
        index = read_cnmc(root)
        texts = [*index.strays, *map(str, index.problems), *index.table["path"]]
        assert all(map(is_plain, texts))
        # An empty label table is in no list; a file can have a problem besides that of its folder.
        assert len(files) - 1 <= len(texts) <= len(files) + 1
        assert all(is_plain(image.name) for image in find_images(str(root)).images)
    shutil.rmtree(root)


@many
@given(st.binary(max_size=60))
def test_lists_of_images(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(raw)
    with nothing_but(DataError, naming=path):
        for image in find_images(str(path)).images:
            assert is_plain(image.name)
            with nothing_but(UnusableError, naming=image.path):
                decode(image.path, Frame(8))


@many
@given(st.text() | st.text("=+-@\t\r\n;'ab\uff1d"))
def test_texts_in_tables(text: str) -> None:
    assert restored(inert(text)) == text
    assert inert(text)[:1] not in tuple("=+-@\t\r\n")
    assert not printable(text).strip("\0") or is_plain(printable(text))
