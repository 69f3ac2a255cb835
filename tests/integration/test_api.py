"""Test of leuk in a notebook, step by step on the built-in data."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import leuk
from leuk.errors import ConfigError


def test_a_notebook_from_data_to_explanations(
    finished_runs: dict[str, Path], artifacts: Path, tmp_path: Path
) -> None:
    # A data set and a GAN by name.
    keys = {"images_per_fold": 60, "size": 64, "resolution": 32, "cache": artifacts}
    data = leuk.data_module("phantom", **keys)
    assert set(data.stage("train")["label"]) == {0, 1}
    generated = leuk.gan("dcgan", "data.resolution=32", "gan.latent=8").sample(3, label=0, seed=1)
    assert generated.shape == (3, 32, 32, 3)
    assert generated.dtype == np.uint8

    # A finished run: its metrics, and predictions of its own test images equal the recorded ones.
    run = leuk.load_run(finished_runs["cnn"], "trainer=cpu")
    assert 0 <= run.metrics["auroc"] <= 1
    test = data.stage("test")
    pixels = np.stack([data.dataset.store.pixels[row] for row in test.index[:5]])
    predicted = run.predict(pixels)
    recorded = pd.read_csv(finished_runs["cnn"] / "predictions.csv").query("stage == 'test'")
    scores = recorded.set_index("path").loc[test["path"].iloc[:5], "score"]
    np.testing.assert_allclose(predicted["score"], scores, atol=1e-4)
    assert list(predicted) == ["score", "calibrated", "decision", "refer"]
    assert set(predicted["decision"]) <= {"ALL", "HEM"}

    # A folder is read as by leuk predict.
    folder = next((data.root).rglob("fold_1/all"))
    files = run.predict(folder)
    assert len(files) == len(list(folder.glob("*.png")))
    assert files["score"].between(0, 1).all()

    # Explanations for either class.
    maps = run.explain(pixels, ["gradcam"])["gradcam"].maps
    assert maps.shape == (5, 32, 32)
    assert torch.isfinite(maps).all()

    # The results of the sweep, as leuk report writes them.
    table = leuk.report_table(finished_runs["cnn"].parent)
    assert "auroc" in table
    assert {"run", "baseline"} <= set(table["kind"])


def test_wrong_input_is_refused(finished_runs: dict[str, Path]) -> None:
    run = leuk.load_run(finished_runs["cnn"], "trainer=cpu")
    with pytest.raises(ConfigError, match=r"this run reads uint8 \(N, 32, 32, 3\)"):
        run.predict(np.zeros((2, 16, 16, 3), np.uint8))
    with pytest.raises(ConfigError, match="no such folder"):
        leuk.load_run("nowhere")
    with pytest.raises(ConfigError, match="resolutoin"):
        leuk.data_module("phantom", resolutoin=32)
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = leuk.train


def test_import_is_light() -> None:
    code = "import sys, leuk; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
