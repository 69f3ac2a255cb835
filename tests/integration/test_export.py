"""``leuk export``: a model that differs from the classifier in its output is not kept."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from leuk.classifiers.optim import Optim
from leuk.classifiers.vit import ViT
from leuk.cli import main
from leuk.runs import export as exporting
from leuk.runs.export import NEEDS


@pytest.fixture
def run(finished_runs: dict[str, Path], tmp_path: Path) -> Path:
    """Copy of a ViT with eight test-time views, private to a test."""
    vit = finished_runs["vit"]
    return Path(shutil.copytree(vit, tmp_path / "runs/own" / vit.name))


Export = Callable[..., int]


@pytest.fixture
def export(run: Path, tmp_path: Path) -> Export:
    """Function ``export("format=onnx", ...)`` that exports the run and returns the exit code."""

    def call(*overrides: str) -> int:
        return main(["export", f"run={run}", f"outputs={tmp_path}", *overrides])

    return call


def run_onnx(path: Path, pixels: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return np.asarray(session.run(None, {"images": pixels})[0])


def run_torchscript(path: Path, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(torch.jit.load(path)(torch.from_numpy(pixels)))


def run_safetensors(path: Path, pixels: np.ndarray) -> np.ndarray:
    from safetensors.torch import load_model

    facts = json.loads((path.parent / "model.json").read_text())
    assert facts["classifier"]["class"] == "leuk.classifiers.vit.ViT"
    classifier = ViT(**facts["classifier"]["arguments"]).eval()
    load_model(classifier, path)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        return np.asarray(classifier.predict_logits(images))


RUN = {"onnx": run_onnx, "torchscript": run_torchscript, "safetensors": run_safetensors}


@pytest.mark.parametrize("kind", NEEDS)
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_an_exported_model_has_the_same_logits_without_leuk(
    kind: str, export: Export, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(f"format={kind}") == 0
    printed = capsys.readouterr().out
    assert "largest difference between logits: " in printed
    (folder,) = tmp_path.glob(f"exports/own/*/{kind}")
    assert f"written to {folder}" in printed
    facts = json.loads((folder / "model.json").read_text())
    assert facts["agreement"]["images"] == 60
    assert facts["agreement"]["largest_difference"] <= 1e-4
    assert facts["input"]["shape"] == ["images", 32, 32, 3]
    assert (facts["input"]["framing"], facts["views"]) == ("centered", 8)
    assert facts["labels"] == {"0": "HEM", "1": "ALL"}
    record = json.loads((run / "record.json").read_text())
    assert facts["temperature"] == record["calibration"]["temperature"]
    assert facts["thresholds"]["youden"] == record["metrics"]["thresholds"]["youden"]["value"]
    classifier = ViT.load_from_checkpoint(run / "checkpoints/best.ckpt").eval()
    for count in (1, 3):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), np.uint8)
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            expected = classifier.predict_logits(images)
        found = RUN[kind](folder / facts["file"], pixels)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sorted(path.name for path in folder.iterdir()) == sorted(["model.json", facts["file"]])
    if kind == "torchscript":
        assert export(f"format={kind}", "replace=true") == 0


def test_a_model_with_other_logits_is_not_kept(
    export: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(exporting, "dihedral", lambda images: [images] * 8)
    assert export("format=torchscript") == 2
    assert "differ by up to " in (message := capsys.readouterr().err)
    assert "on 60 test images, more than tolerance=0.0001; it is not kept" in message
    assert not [path for path in (tmp_path / "exports").rglob("*") if path.is_file()]
    assert export("format=torchscript", "tolerance=100") == 0


def test_a_package_that_is_not_installed(
    export: Export, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(exporting.NEEDS, "onnx", ("onnx", "not_there_at_all"))
    assert export("format=onnx") == 2
    assert "not_there_at_all is not installed; pip install 'leuk[export]'" in (
        capsys.readouterr().err
    )


WRONG = [
    ("format=onx", "format=onx: did you mean onnx?"),
    ("tolerance=0", "tolerance=0.0: it must be above 0"),
    ("root=/no/where format=torchscript", "root=/no/where: "),
]


@pytest.mark.parametrize(("overrides", "message"), WRONG, ids=[wrong for wrong, _ in WRONG])
def test_bad_input(
    overrides: str, message: str, export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(*overrides.split(" ")) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err + printed.out
    assert not list(tmp_path.rglob("model.*"))


def test_weights_that_are_not_the_run_s(
    export: Export, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "checkpoints/best.ckpt"
    values = torch.load(path, weights_only=True)
    other = ViT(resolution=32, patch=8, width=16, depth=1, mlp=16, optim=Optim())
    torch.save(values | {"state_dict": other.state_dict()}, path)
    assert export("format=torchscript") == 2
    assert f"{path}: weights of another leuk version's ViT" in capsys.readouterr().err
    torch.save(values | {"stamp": values["stamp"] | {"form": "CNN"}}, path)
    assert export("format=torchscript") == 2
    assert "of another model (form CNN, not ViT)" in capsys.readouterr().err
