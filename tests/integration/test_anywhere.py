"""leuk in unusual places: folders with odd names, a read-only checkout, no network."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from leuk.data.phantom import make_phantom
from leuk.runs.record import Record

ROOT = Path(__file__).parents[2]

TINY = (
    "data.resolution=32",
    "data.batch_size=16",
    "fit.epochs=1",
    "trainer=cpu",
)

PHANTOM = ("data.images_per_fold=60", "data.size=64")

HARD_NAME = "wo anders, größer = 細胞"
"""Spaces, a comma and an equals sign, which are syntax of Hydra, and non-ASCII letters."""

GIB = 2**30


def train(
    folder: Path, *overrides: str, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run ``leuk train`` in a subprocess in a folder."""
    return subprocess.run(
        [*before, sys.executable, "-m", "leuk", "train", *TINY, *overrides],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def complete(outputs: Path) -> Record:
    (path,) = outputs.glob("runs/*/*/record.json")
    record = Record.read(path.parent)
    assert record.status == "complete"
    return record


def isolated() -> list[str]:
    """Return a command prefix that removes the network and makes the checkout read-only."""
    spaces = ["unshare", "--mount", "--net"]
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("taking the network away needs root, and unshare of util-linux")
    if subprocess.run([*spaces, "true"], check=False).returncode:
        pytest.skip("this root may not make namespaces")
    # Enter the folder again, because the shell entered it before it was mounted read-only.
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && cd "$PWD" && exec "$@"'
    return [*spaces, "sh", "-c", script, str(ROOT)]


def test_from_a_folder_and_into_one_whose_names_are_hard(tmp_path: Path) -> None:
    folder = tmp_path / HARD_NAME
    folder.mkdir()
    images = make_phantom(tmp_path, images_per_fold=60, size=64, seed=0)
    root = images.rename(folder / f"cells {HARD_NAME}")
    data = ("data=cnmc", f'data.root="{root.name}"', 'outputs="aus gabe, größer"')
    done = train(folder, *data, "explain=gradcam", "explain_images=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["aus gabe, größer", root.name]
    record = complete(folder / "aus gabe, größer")
    assert record.data["counts"]["test"]
    assert "aus gabe, größer/runs/single" in done.stdout
    (page,) = folder.glob("*/runs/single/report/report.html")
    assert "cnn-none" in page.read_text(encoding="utf-8")


def test_without_network_in_a_checkout_that_is_read_only(tmp_path: Path) -> None:
    prefix = isolated()
    probe = "import pathlib, socket; print(socket.if_nameindex()); pathlib.Path('x').touch()"
    refused = subprocess.run(
        [*prefix, sys.executable, "-c", probe],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.stdout == "[(1, 'lo')]\n"
    assert "Read-only file system" in refused.stderr
    outputs = tmp_path / "elsewhere"
    run = (*PHANTOM, "explain=none", f"outputs={outputs}")
    done = train(ROOT, *run, before=prefix)
    assert done.returncode == 0, done.stdout + done.stderr
    complete(outputs)


@pytest.mark.slow
def test_a_checkout_that_is_read_only_and_no_place_named() -> None:
    done = train(ROOT, *PHANTOM, "name=read-only", before=isolated())
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "outputs" in done.stderr
    assert "ead-only" in done.stderr


@pytest.mark.slow
def test_the_demo_fits_in_4_gib(tmp_path: Path) -> None:
    # All kinds of steps at full size; more epochs would only repeat them.
    short = ["trainer=cpu", "fit.epochs=2", "gan_fit.epochs=1", f"outputs={tmp_path}"]
    command = [sys.executable, "-m", "leuk", "train", "-m", "experiment=demo", *short]
    with subprocess.Popen(command) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    print(f"peak of the demo: {used.ru_maxrss * 1024 / GIB:.2f} GiB")
    assert used.ru_maxrss * 1024 < 4 * GIB
