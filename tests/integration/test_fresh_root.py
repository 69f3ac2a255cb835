"""A machine that nobody prepared: the image's steps, and the README's two commands word for word.

Where one stops, the machine lacks something that the README or pyproject.toml should name. Takes
some 10 GB of disk and, the README's test command apart, minutes; ``FRESH_PYTEST`` holds options
for that command's pytest, such as ``-k`` of a part.
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
from fresh import Root, why_not

from leuk.grid.record import Record

pytestmark = pytest.mark.slow

CACHE = "/var/cache/pip-of-the-test"

Told = Callable[[str], None]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Prints what was measured, whatever pytest captures."""

    def tell(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", flush=True)

    return tell


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    folder = tmp_path_factory.mktemp("fresh")
    # Others than root walk through it.
    folder.chmod(0o755)
    if reason := why_not(folder):
        pytest.skip(reason)
    root = Root.make(folder / "base")
    yield root
    root.remove()


@pytest.fixture
def root(base: Root) -> Iterator[Root]:
    copy = base.copy(base.path.with_name("copy"))
    yield copy
    copy.remove()


def checkout(destination: Path) -> None:
    """Copy what git would: the files that are or could be committed."""
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
    """docker/Dockerfile carried out in a root, which stands for its base image.

    Args:
        root: a fresh one.
        checkout: what is copied from.
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
        """The entrypoint, with the words as ``docker run`` takes them; without any network."""
        # A container starts as the image was built, without what another one left.
        self.root.run("find /tmp /home/leuk -mindepth 1 ! -path /home/leuk/.cache -delete")
        command = [*listed("ENTRYPOINT"), *words]
        return self.root.run(command, user or self.user, self.folder, self.env, network=False)


def test_the_image_s_steps_and_the_demo_s_first_cell(
    root: Root, tmp_path: Path, told: Told
) -> None:
    checkout(tmp_path)
    image = Image(root, tmp_path)
    start = time.monotonic()
    image.build()
    seconds, fetched = time.monotonic() - start, root.fetched("/wheels.json", CACHE)
    told(f"image: {seconds:.0f} s, {fetched / 1e9:.2f} GB of Python packages")
    assert "usage: leuk" in root.run(listed("HEALTHCHECK"), image.user, "/", image.env)

    start = time.monotonic()
    image.start("train", "-m", "experiment=demo", "model=cnn", "augmentation=none")
    told(f"the demo's first cell: {time.monotonic() - start:.0f} s")
    (path,) = (root.path / "work/outputs/runs/demo").glob("*/record.json")
    assert Record.read(path.parent).status == "complete"
    assert path.stat().st_uid == 1000

    # A user that the image does not know, who compiles: torch asks for a name, a home and C++.
    small = ["data.images_per_fold=60", "data.resolution=32", "fit.epochs=1", "explain=gradcam"]
    image.start("train", *small, "fit.compile=true", "outputs=/work/other", user="4321:4321")
    (path,) = (root.path / "work/other/runs").glob("*/*/record.json")
    assert Record.read(path.parent).status == "complete"


def test_the_readme_s_two_commands(root: Root, told: Told) -> None:
    text = (ROOT / "README.md").read_text()
    demo, tests = re.findall(r"^python3 -m venv .*$", text, re.MULTILINE)
    # What the README asks for: Python with venv.
    root.run("apt-get update -q && apt-get install -q -y --no-install-recommends python3-venv")
    root.run("useradd --create-home somebody")
    folder = root.path / "home/somebody/leuk"
    checkout(folder)
    user = root.run("echo $(id -u somebody):$(id -g somebody)").strip()
    root.run(["chown", "-R", user, "/home/somebody"])
    home = {"HOME": "/home/somebody", "PIP_REPORT": "/home/somebody/report.json"}

    start = time.monotonic()
    said = root.run(demo, user, "/home/somebody/leuk", home)
    seconds = time.monotonic() - start
    fetched = root.fetched("/home/somebody/report.json", "/home/somebody/.cache/pip")
    size = root.run("du -sm /home/somebody/leuk/.venv").split()[0]
    told(f"{demo}: {seconds:.0f} s, {fetched / 1e9:.2f} GB fetched, {size} MB installed")
    assert "see outputs/runs/demo" in said
    records = [Record.read(path.parent) for path in folder.glob("outputs/runs/demo/*/record.json")]
    assert records
    assert {record.status for record in records} == {"complete"}
    assert (folder / "outputs/runs/demo/report/report.html").is_file()

    start = time.monotonic()
    options = {"PYTEST_ADDOPTS": os.environ.get("FRESH_PYTEST", "")}
    said = root.run(tests, user, "/home/somebody/leuk", home | options)
    told(f"{tests}: {time.monotonic() - start:.0f} s\n{said.splitlines()[-1]}")
    assert " passed" in said
