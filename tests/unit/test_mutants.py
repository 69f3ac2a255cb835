"""Entries of ``tests/mutants.py`` apply to the code; running that file tests them."""

import ast
from pathlib import Path

import mutants
import pytest


def test_every_planted_error_applies_and_leaves_valid_python() -> None:
    assert len(mutants.MUTANTS) >= 150
    assert len(set(mutants.MUTANTS)) == len(mutants.MUTANTS)
    packages = {mutant.package for mutant in mutants.MUTANTS}
    assert packages >= {"gans", "classifiers", "metrics", "data", "explain", "runs", "report"}
    for mutant in mutants.MUTANTS:
        ast.parse(mutant.applied(mutants.ROOT))
        assert mutants.files_of(mutants.ROOT, mutant.tests)


@pytest.mark.parametrize("text", ["b = 1\n", "a = 1\na = 1\n"])
def test_an_error_that_does_not_apply_once_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "leuk").mkdir()
    (tmp_path / "leuk/x.py").write_text(text)
    with pytest.raises(ValueError, match="not once"):
        mutants.Mutant("x.py", "a = 1", "a = 2", ()).applied(tmp_path)


def test_a_pattern_without_test_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        mutants.files_of(tmp_path, ["missing"])
