"""Shared fixtures: small phantom data, and the real command line reduced to seconds."""

import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leuk.cli import main
from leuk.data.phantom import make_phantom
from leuk.runs.record import Record

if "PYTEST_XDIST_WORKER" in os.environ:
    # With a worker per core, more threads would only wait. This includes processes of tests.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

SMALL = [
    "data.images_per_fold=60",
    "data.size=64",
    "data.resolution=32",
    "data.batch_size=16",
    "fit.epochs=2",
    "gan_fit.epochs=1",
    "gan_fit.batch_size=8",
    "explain=gradcam",
    "explain_images=4",
    "trainer=cpu",
]
"""Overrides that make any experiment run in seconds."""

SMALL_SYNTHESIS = [
    *(text for text in SMALL if text.startswith(("data.", "gan_fit.", "trainer"))),
]
"""Overrides that make ``leuk synthesize`` run in seconds."""


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache folder shared by all tests, in which each artifact is built once."""
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="session")
def phantom(artifacts: Path) -> Path:
    """Root of phantom data: 60 images of 64 px per fold."""
    return make_phantom(artifacts, images_per_fold=60, size=64, seed=0)


@pytest.fixture
def small_synthesis() -> list[str]:
    """Overrides that generate synthetic images in seconds."""
    return [*SMALL_SYNTHESIS, "extractor.side=64"]


@pytest.fixture
def leuk(tmp_path: Path, artifacts: Path) -> Callable[..., int]:
    """Function ``leuk("train", "model=cnn", ...)`` that runs in this process; returns the code."""

    def run(command: str, *overrides: str) -> int:
        smaller = {"train": SMALL, "synthesize": SMALL_SYNTHESIS}
        small = [*smaller[command], f"data.cache={artifacts}"] if command in smaller else []
        given = {override.lstrip("+").split("=")[0] for override in overrides}
        kept = [override for override in small if override.split("=")[0] not in given]
        return main([command, f"outputs={tmp_path}", *kept, *overrides])

    return run


@pytest.fixture
def start(small_synthesis: list[str], artifacts: Path) -> Callable[..., subprocess.Popen[str]]:
    """Function ``start("train", outputs, "model=cnn", ...)`` that starts a new process."""

    def run(command: str, outputs: Path, *overrides: str) -> subprocess.Popen[str]:
        smaller = {"train": SMALL, "synthesize": small_synthesis}
        small = [*smaller[command], f"data.cache={artifacts}"]
        given = {override.split("=")[0] for override in overrides}
        kept = [override for override in small if override.split("=")[0] not in given]
        return subprocess.Popen(
            [sys.executable, "-m", "leuk", command, f"outputs={outputs}", *kept, *overrides],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    return run


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Record]:
    """Function that reads the record of a sweep's only run whose folder name contains a text."""

    def read(name: str, containing: str = "") -> Record:
        (folder,) = {p.parent for p in tmp_path.glob(f"runs/{name}/*{containing}*/record.json")}
        return Record.read(folder)

    return read


@pytest.fixture
def in_front() -> Iterator[None]:
    """Handle Ctrl-C as in a terminal; shells start background processes with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def blank() -> Iterator[None]:
    """Draw the figures of reports, but render them blank, which takes half the time of a run."""
    from matplotlib import rc_context

    from leuk.report.figures import DPI, SETTINGS, Drawn

    def write(drawn: Drawn, folder: Path) -> bytes:
        with rc_context(SETTINGS):
            width, height = (drawn.draw().get_size_inches() * DPI).round().astype(int).tolist()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{drawn.name}.pdf").touch()
        Image.new("L", (width, height)).save(folder / f"{drawn.name}.png")
        return (folder / f"{drawn.name}.png").read_bytes()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Drawn, "write", write)
        yield


@pytest.fixture(scope="module")
def blank_figures() -> Iterator[None]:
    """Render the figures of reports blank."""
    with blank():
        yield


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory, artifacts: Path) -> dict[str, Path]:
    """Folders of a trained CNN and a small ViT with eight test-time views.

    Both are explained with Grad-CAM. The CNN's methods are a list with one that it does not have,
    the ViT's a single name.
    """
    outputs = tmp_path_factory.mktemp("finished")
    chosen = {
        "cnn": ["explain=[gradcam,rollout]", "explain.rollout.when_possible=true"],
        "vit": [
            *("explain=gradcam", "model.optim.test_views=8", "fit.epochs=1"),
            *("model.width=16", "model.depth=1", "model.mlp=16", "model.hidden=8"),
        ],
    }
    folders = {}
    for model, overrides in chosen.items():
        given = {text.split("=")[0] for text in overrides}
        small = [text for text in SMALL if text.split("=")[0] not in given]
        few = ["explain_images=6", "explain_background=4", "checks=none"]
        run = ["train", f"outputs={outputs}", f"name={model}", f"data.cache={artifacts}"]
        small = [text for text in small if not text.startswith("explain_images")]
        with blank():
            assert main([*run, f"model={model}", *overrides, *small, *few]) == 0
        (folders[model],) = (path.parent for path in outputs.glob(f"runs/{model}/*/record.json"))
    return folders


@pytest.fixture(scope="session")
def cnmc() -> Path:
    """Folder of real C-NMC images, from LEUK_CNMC."""
    folder = os.environ.get("LEUK_CNMC")
    if not folder:
        pytest.skip("set LEUK_CNMC to the folder of real C-NMC images to run this test")
    return Path(folder)


def write_cell(path: Path, value: int = 120, size: int = 32) -> None:
    """Write a disc with speckles that depend on the file's name; the suffix sets the format."""
    y, x = np.mgrid[:size, :size] - size / 2
    disc = (np.hypot(x, y) < size / 4)[..., None] * np.array([value, value // 2, value])
    speckles = np.random.default_rng(zlib.crc32(path.stem.encode())).normal(
        1, 0.15, (size, size, 1)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((disc * speckles).clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def tiny_folds(tmp_path: Path) -> Path:
    """Two folds with two subjects per class and two BMP images per subject."""
    root = tmp_path / "tiny"
    for fold in (0, 1):
        for label, prefix in (("all", ""), ("hem", "H")):
            for subject in (2 * fold + 1, 2 * fold + 2):
                for cell in (1, 2):
                    name = f"UID_{prefix}{subject}_{cell}_1_{label}.bmp"
                    write_cell(root / f"fold_{fold}" / label / name, 60 + 20 * subject + cell)
    return root
