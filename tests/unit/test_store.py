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


def test_digest_is_of_the_values_alone() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 2, "b": [2]})
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
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})


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


def build(folder: Path) -> None:
    with (folder.parent / "builds").open("a") as file:
        file.write("x")
    (folder / "content").write_text("built")


@pytest.mark.parametrize("damage", ["none", "remove", "truncate", "manifest"])
def test_artifact_is_built_once_unless_damaged(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_once(tmp_path, "thing", {"a": 1}, build)
    assert json.loads((folder / MANIFEST).read_text())["key"] == {"a": 1}
    if damage == "remove":
        (folder / "content").unlink()
    elif damage != "none":
        (folder / {"truncate": "content", "manifest": MANIFEST}[damage]).write_text("{")
    assert is_whole(folder) == (damage == "none")
    assert make_once(tmp_path, "thing", {"a": 1}, build) == folder
    assert (folder / "content").read_text() == "built"
    assert ("damaged" in caplog.text) == (damage != "none")
    assert (folder.parent / "builds").read_text() == ("x" if damage == "none" else "xx")
    assert make_once(tmp_path, "thing", {"a": 2}, build) != folder


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        make_once(tmp_path, "thing", {}, fail)
    assert not [path for path in (tmp_path / "thing").iterdir() if path.suffix != ".lock"]


def _build(root: Path, barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    make_once(root, "thing", {}, build)


def test_concurrent_processes_build_an_artifact_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    workers = [context.Process(target=_build, args=(tmp_path, barrier)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "thing" / "builds").read_text() == "x"
