"""Disks that are full, read-only or of another user: nothing is lost, and errors have a remedy."""

import errno
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from tiny_run import TINY, results, run_folder, train

from leuk.classifiers.base import Classifier
from leuk.cli import main
from leuk.errors import StoreError
from leuk.runs.record import Record
from leuk.runs.state import disk_errors
from leuk.runs.trainer import Progress
from leuk.store import write_text

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, artifacts: Path) -> Path:
    """Outputs of the undisturbed run, for comparison."""
    outputs = tmp_path_factory.mktemp("undisturbed")
    assert train(outputs, artifacts) == 0
    return outputs


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 40 MB."""
    if os.geteuid():
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40M", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def ballast(disk: Path) -> None:
    """Fill the free space of a disk."""
    free = shutil.disk_usage(disk).free
    (disk / "ballast").write_bytes(bytes(free))
    assert not shutil.disk_usage(disk).free


@contextmanager
def unprivileged() -> Iterator[None]:
    """Drop root's permission to write anywhere, in this block."""
    root = not os.geteuid()
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.slow
def test_full_disk_loses_nothing_and_has_a_remedy(
    small_disk: Path, undisturbed: Path, artifacts: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    (small_disk / "plain.json").write_text("kept")
    (small_disk / "whole.json").write_text("kept")

    def fill(callback: Progress, trainer: Trainer, fitted: Any) -> None:
        if trainer.current_epoch == 1 and isinstance(fitted, Classifier):
            ballast(small_disk)

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "on_train_epoch_end", fill)
        assert train(small_disk, artifacts) == 2  # no space for the report either
    printed = capsys.readouterr().out
    assert "No space left on device; free some space (or raise the quota)" in printed
    assert "incomplete: cnn-dcgan" in printed
    with pytest.raises(OSError, match="No space"):
        (small_disk / "plain.json").write_text("new" * 10_000)
    assert (
        small_disk / "plain.json"
    ).read_text() != "kept"  # the danger: the old content is lost too
    with pytest.raises(OSError, match="No space"):
        write_text(small_disk / "whole.json", "new" * 10_000)
    assert (small_disk / "whole.json").read_text() == "kept"
    (small_disk / "ballast").unlink()
    assert train(small_disk, artifacts) == 0
    assert results(small_disk) == results(undisturbed)


@pytest.mark.slow
def test_exceeded_quota_does_not_repeat_training(
    tmp_path: Path, undisturbed: Path, artifacts: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    renamed = os.replace

    def refuse(source: Any, target: Any) -> None:
        if Path(target).name == "predictions.csv":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        renamed(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("leuk.store.os.replace", refuse)
        assert train(tmp_path, artifacts) == 1
    record = Record.read(run_folder(tmp_path))
    assert record.status == "failed"
    assert record.error is not None
    assert "quota exceeded; free some space (or raise the quota)" in record.error["message"]
    assert not list(run_folder(tmp_path).glob("*predictions*"))
    capsys.readouterr()
    assert train(tmp_path, artifacts) == 0
    assert "training already finished" in capsys.readouterr().out
    assert results(tmp_path) == results(undisturbed)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "full"), "No space left on device; free some space"),
        (OSError(errno.EDQUOT, "quota"), "quota exceeded; free some space (or raise the quota)"),
        (OSError(errno.EFBIG, "limit"), "File too large; free some space"),
        (OSError(errno.EROFS, "ro"), "Read-only file system; mount the disk for writing"),
        (
            PermissionError(errno.EACCES, "no"),
            "Permission denied; grant this user write permission",
        ),
        (OSError(errno.EIO, "broken"), "Input/output error; check the disk"),
        (OSError(errno.ESTALE, "gone"), "Stale file handle; check the disk (or its server)"),
        (OSError("100 requested and 20 written"), "No space left on device"),
        (RuntimeError("[enforce fail] unexpected pos 704 vs 598"), "No space left on device"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_disk_errors_have_a_remedy(error: Exception, message: str) -> None:
    with pytest.raises(StoreError, match=re.escape(message)) as raised, disk_errors(Path("/o")):
        raise error
    assert str(raised.value).startswith("/o: ")


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "?"), RuntimeError("a defect")])
def test_other_errors_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, disk_errors(Path("/o")):
        raise error
    assert raised.value is error


def test_full_disk_cuts_what_numpy_and_torch_write(small_disk: Path) -> None:
    """NumPy and torch hide the system's error; their messages are recognized by their words."""
    values = np.zeros(10**8, np.uint8)
    for write in (np.save, lambda path, array: torch.save({"a": torch.tensor(array)}, path)):
        with pytest.raises(StoreError, match="No space left"), disk_errors(small_disk):
            write(small_disk / "half.npy", values)
        assert 0 < (small_disk / "half.npy").stat().st_size < len(values)
        (small_disk / "half.npy").unlink()


def test_read_only_file_system_is_reported_before_any_work(
    small_disk: Path, capsys: Capture
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert main(["train", f"outputs={small_disk}/out", *TINY]) == 2
    printed = capsys.readouterr()
    assert "cannot be written (Read-only file system); choose another folder" in printed.err
    assert "Traceback" not in printed.out + printed.err
    assert not list(small_disk.iterdir())


@pytest.mark.parametrize("kind", ["outputs", "run", "log"])
def test_folder_of_another_user_is_reported_before_any_work(kind: str, capsys: Capture) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        open_to_all = Path(scratch)
        open_to_all.chmod(0o755)
        outputs = open_to_all / "out"
        folder = outputs / "runs/single/cnn-none-folds-s0"
        folder.mkdir(parents=True)
        (folder / "leuk.log").touch()
        for path in (outputs, *outputs.rglob("*")):
            path.chmod(0o777)
        denied = {"outputs": outputs, "run": folder, "log": folder / "leuk.log"}[kind]
        denied.chmod(0o555 if denied.is_dir() else 0o444)
        with unprivileged():
            assert main(["train", f"outputs={outputs}", "trainer=cpu"]) == 2
        printed = capsys.readouterr()
        assert f"{denied}: cannot be written (Permission denied)" in printed.err
        assert "Traceback" not in printed.out + printed.err
        assert [path.name for path in folder.iterdir()] == ["leuk.log"]
