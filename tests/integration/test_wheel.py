"""Installed package outside the checkout, with its configs."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_wheel_runs_elsewhere(tmp_path: Path) -> None:
    built = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT]
    subprocess.run(built, check=True)
    with zipfile.ZipFile(next(tmp_path.glob("leuk-*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    elsewhere = tmp_path / "else where é"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    code = "import leuk.config; print(leuk.config.conf_dir())"
    found = subprocess.check_output(
        [sys.executable, "-c", code], cwd=elsewhere, env=environment, text=True
    )
    assert Path(found.strip()) == tmp_path / "site/leuk/conf"
    small = ["data.images_per_fold=60", "data.resolution=32", "fit.epochs=1"]
    subprocess.run(
        [sys.executable, "-m", "leuk", "train", *small], cwd=elsewhere, env=environment, check=True
    )
    assert list(elsewhere.glob("outputs/runs/single/*/record.json"))
