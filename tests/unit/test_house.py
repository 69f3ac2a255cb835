"""The rules of the house that a tool can check."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP = {"LICENSE", "README.md", "conf", "docker", "leuk", "outputs", "pyproject.toml", "tests"}


def commands(text: str) -> list[str]:
    """The commands in a text that set up an environment and do something in it."""
    return re.findall(r"^python3 -m venv .*$", text, re.MULTILINE)


def test_ci_runs_the_readme_s_test_command() -> None:
    first, second = commands((ROOT / "README.md").read_text())
    assert "leuk train -m experiment=demo" in first
    assert commands((ROOT / ".ci/run").read_text()) == [second]


def test_commands_compose_and_own_no_logic() -> None:
    for path in (ROOT / "leuk/commands").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 100


def test_nothing_else_lies_at_the_top() -> None:
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= TOP


def test_every_fault_names_tests_that_there_are() -> None:
    path, named = "", 0
    for text in re.findall(r"`([^`\n]*::test_\w+)`", (ROOT / "tests/FAULTS.md").read_text()):
        file, name = text.split("::")
        path = file or path
        assert f"def {name}(" in (ROOT / path).read_text(), text
        named += 1
    assert named > 40


def test_the_map_names_every_module() -> None:
    words = re.findall(r"\b[a-z0-9_]+\.py", (ROOT / "leuk/README.md").read_text())
    named = {name for name in words if not name.startswith("test_")}
    modules = {path.name for path in (ROOT / "leuk").rglob("*.py")} - {"__init__.py"}
    assert named == modules
