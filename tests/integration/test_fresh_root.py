"""Unprepared machine: the steps of the image, and the two commands of the README, literally.

A failure means that the README or pyproject.toml omits a requirement. Takes about 10 GB of disk and
some minutes, without the README's test command; ``FRESH_PYTEST`` has options for that command's
pytest, such as ``-k``.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Template

import pytest
from dockerfile import ROOT, assigned, copied, instructions, listed
from fresh import Root, obstacle

from leuk.runs.record import Record

pytestmark = pytest.mark.slow

CACHE = "/var/cache/pip-of-the-test"

Log = Callable[[str], None]


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Log:
    """Function that prints past pytest's capture."""

    def write(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", flush=True)

    return write


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    folder = tmp_path_factory.mktemp("fresh")
    # Other users need access.
    folder.chmod(0o755)
    if reason := obstacle(folder):
        pytest.skip(reason)
    root = Root.create(folder / "base")
    yield root
    root.remove()


@pytest.fixture
def root(base: Root) -> Iterator[Root]:
    copy = base.copy(base.path.with_name("copy"))
    yield copy
    copy.remove()


def checkout(destination: Path) -> None:
    """Copy the files that git would commit."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if names.returncode:
        pytest.skip("not a git checkout")
    for name in names.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, destination / name)


class Image:
    """Execution of docker/Dockerfile in a root, in place of its base image.

    Args:
        root: fresh root.
        checkout: source folder of COPY.
    """

    def __init__(self, root: Root, checkout: Path) -> None:
        self.root, self.checkout = root, checkout
        self.env = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
        self.user, self.folder = "0:0", "/"
        self.arguments: dict[str, str] = {}

    def build(self) -> None:
        copies = iter(copied())
        for word, rest in instructions():
            if word == "COPY":
                self._copy(*next(copies))
            elif word == "RUN":
                reported = {"PIP_REPORT": f"/{rest.split()[-1]}.json", "PIP_CACHE_DIR": CACHE}
                env = {**self.env, **self.arguments, **reported}
                self.root.run(rest, self.user, self.folder, env)
            elif word == "ARG":
                self.arguments |= assigned(rest)
            elif word == "ENV":
                self.env |= {
                    name: Template(value).substitute(self.env)
                    for name, value in assigned(rest).items()
                }
            elif word == "USER":
                self.user = rest
            elif word == "WORKDIR":
                self.folder = rest

    def _copy(self, source: str, destination: str) -> None:
        target = self.root.path / destination.lstrip("/")
        if (self.checkout / source).is_dir():
            shutil.copytree(self.checkout / source, target)
            return
        if destination.endswith("/"):
            target /= Path(source).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.checkout / source, target)

    def start(self, *words: str, user: str | None = None) -> str:
        """Run the entrypoint with arguments, as ``docker run`` does, without network."""
        # A container starts from the image, without files of earlier containers.
        self.root.run("find /tmp /home/leuk -mindepth 1 ! -path /home/leuk/.cache -delete")
        command = [*listed("ENTRYPOINT"), *words]
        return self.root.run(command, user or self.user, self.folder, self.env, network=False)


def test_the_image_s_steps_and_the_first_run_of_the_demo(
    root: Root, tmp_path: Path, log: Log
) -> None:
    checkout(tmp_path)
    image = Image(root, tmp_path)
    start = time.monotonic()
    image.build()
    seconds, fetched = time.monotonic() - start, root.fetched("/wheels.json", CACHE)
    log(f"image: {seconds:.0f} s, {fetched / 1e9:.2f} GB of Python packages")
    assert "usage: leuk" in root.run(listed("HEALTHCHECK"), image.user, "/", image.env)

    start = time.monotonic()
    image.start("train", "-m", "experiment=demo", "model=cnn", "augmentation=none")
    log(f"first run of the demo: {time.monotonic() - start:.0f} s")
    (path,) = (root.path / "work/outputs/runs/demo").glob("*/record.json")
    assert Record.read(path.parent).status == "complete"
    assert path.stat().st_uid == 1000

    # Compiling as a user without an entry in the image: torch needs a user name, a home and C++.
    small = ["data.images_per_fold=60", "data.resolution=32", "fit.epochs=1", "explain=gradcam"]
    image.start("train", *small, "fit.compile=true", "outputs=/work/other", user="4321:4321")
    (path,) = (root.path / "work/other/runs").glob("*/*/record.json")
    assert Record.read(path.parent).status == "complete"


def test_the_readme_s_two_commands(root: Root, log: Log) -> None:
    text = (ROOT / "README.md").read_text()
    demo, tests = re.findall(r"^python3 -m venv .*$", text, re.MULTILINE)
    # Requirement of the README: Python with venv.
    root.run("apt-get update -q && apt-get install -q -y --no-install-recommends python3-venv")
    root.run("useradd --create-home doctor")
    folder = root.path / "home/doctor/leuk"
    checkout(folder)
    user = root.run("echo $(id -u doctor):$(id -g doctor)").strip()
    root.run(["chown", "-R", user, "/home/doctor"])
    home = {"HOME": "/home/doctor", "PIP_REPORT": "/home/doctor/report.json"}

    start = time.monotonic()
    printed = root.run(demo, user, "/home/doctor/leuk", home)
    seconds = time.monotonic() - start
    fetched = root.fetched("/home/doctor/report.json", "/home/doctor/.cache/pip")
    size = root.run("du -sm /home/doctor/leuk/.venv").split()[0]
    log(f"{demo}: {seconds:.0f} s, {fetched / 1e9:.2f} GB fetched, {size} MB installed")
    assert "see outputs/runs/demo" in printed
    records = [Record.read(path.parent) for path in folder.glob("outputs/runs/demo/*/record.json")]
    assert records
    assert {record.status for record in records} == {"complete"}
    assert (folder / "outputs/runs/demo/report/report.html").is_file()

    start = time.monotonic()
    options = {"PYTEST_ADDOPTS": os.environ.get("FRESH_PYTEST", "")}
    printed = root.run(tests, user, "/home/doctor/leuk", home | options)
    log(f"{tests}: {time.monotonic() - start:.0f} s\n{printed.splitlines()[-1]}")
    assert " passed" in printed
