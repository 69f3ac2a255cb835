import json
import multiprocessing
import os
from pathlib import Path

import pytest

from leuk.errors import StoreError
from leuk.store import (
    MANIFEST,
    digest,
    ensure_writable,
    is_whole,
    make_once,
    whole_folder,
    write_json,
    write_text,
)


def test_digest_does_not_depend_on_order() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_digest_refuses_values_that_are_not_json_like() -> None:
    with pytest.raises(TypeError):
        digest({"a": object()})


def test_text_appears_complete_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "before")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "after")
    assert path.read_text() == "before"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_folder_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    def write_half() -> None:
        with whole_folder(tmp_path / "folder") as folder:
            (folder / "half").write_text("x")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_half()
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/below: cannot be written .*outputs=DIR"):
        ensure_writable(tmp_path / "file" / "below", "outputs")


def test_artifact_is_built_once(tmp_path: Path) -> None:
    calls: list[Path] = []

    def build(folder: Path) -> None:
        calls.append(folder)
        (folder / "content").write_text("built")

    folders = {make_once(tmp_path, "thing", {"a": 1}, build) for _ in range(3)}
    (folder,) = folders
    assert len(calls) == 1
    assert (folder / "content").read_text() == "built"
    assert json.loads((folder / MANIFEST).read_text())["key"] == {"a": 1}
    assert make_once(tmp_path, "thing", {"a": 2}, build) != folder


@pytest.mark.parametrize("damage", ["remove", "truncate", "manifest"])
def test_damaged_artifact_is_built_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    def build(folder: Path) -> None:
        (folder / "content").write_text("built")

    folder = make_once(tmp_path, "thing", {}, build)
    if damage == "remove":
        (folder / "content").unlink()
    elif damage == "truncate":
        (folder / "content").write_text("b")
    else:
        (folder / MANIFEST).write_text("{")
    assert not is_whole(folder)
    assert make_once(tmp_path, "thing", {}, build) == folder
    assert (folder / "content").read_text() == "built"
    assert "damaged" in caplog.text


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        make_once(tmp_path, "thing", {}, build)
    assert not [path for path in (tmp_path / "thing").iterdir() if path.suffix != ".lock"]


def _count(folder: Path) -> None:
    with (folder.parent / "builds").open("a") as file:
        file.write("x")
    (folder / "content").write_text("built")


def _build(root: Path, barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    make_once(root, "thing", {}, _count)


def test_concurrent_processes_build_an_artifact_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    workers = [context.Process(target=_build, args=(tmp_path, barrier)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "thing" / "builds").read_text() == "x"
