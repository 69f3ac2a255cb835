"""The config folder is the registry: an extension needs two files, and the report counts it."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from sweeps import RUN, predictions, varied, write_run
from torch import Tensor, nn

from leuk.classifiers.base import Classifier
from leuk.classifiers.optim import Optim
from leuk.cli import main
from leuk.explain.base import Attribution, Explainer
from leuk.gans.dcgan import DCGAN
from leuk.metrics.classification import METRICS, Metric
from leuk.report.page import write_report
from leuk.runs.record import Record, read_records


class LSGAN(DCGAN):
    """GAN with squared losses (Mao et al. 2017)."""

    def adversary_loss(self, real: Tensor, synthetic: Tensor, labels: Tensor) -> Tensor:
        above = (self.score(real, labels) - 1) ** 2
        return (above + self.score(synthetic, labels) ** 2).mean()


class MLP(Classifier):
    """Linear classifier of the mean color."""

    def __init__(self, resolution: int = 32, optim: Optim = Optim()) -> None:
        super().__init__(optim)
        self.mix = nn.Conv2d(3, 8, 1)
        self.head = nn.Linear(8, 2)

    def features(self, images: Tensor) -> Tensor:
        return torch.relu(self.mix(images)).mean(dim=(2, 3))

    def logits(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    @property
    def cam_layer(self) -> nn.Module:
        return self.mix

    def cam_grid(self, activations: Tensor) -> Tensor:
        return activations


class Brightness(Explainer):
    """Mean of the channels."""

    name = "brightness"

    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        return Attribution(images.mean(dim=1).cpu(), "pixel")


CONFIGS = {
    "gan/lsgan": """# @package _global_
gan:
  _target_: leuk.gans.lsgan.LSGAN
  resolution: ${data.resolution}
  latent: 8
  widths: [8, 8, 8, 8, 8]
  adversary_widths: [8, 8]
gan_fit:
  epochs: 1
  batch_size: 8
""",
    "model/mlp": """# @package _global_
model:
  _target_: leuk.classifiers.mlp.MLP
  resolution: ${data.resolution}
""",
    "explain/brightness": """brightness:
  _target_: leuk.explain.brightness.Brightness
""",
}
TINY = ["data.images_per_fold=60", "data.size=64", "data.resolution=32", "data.batch_size=16"]
TINY += ["trainer=cpu", "fit.epochs=1", "explain_images=2", "logger=none"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Config folder of a user with three extensions, each of a module and a config file."""
    for name, member in (
        ("leuk.gans.lsgan", LSGAN),
        ("leuk.classifiers.mlp", MLP),
        ("leuk.explain.brightness", Brightness),
    ):
        module = ModuleType(name)
        monkeypatch.setattr(member, "__module__", name)
        setattr(module, member.__name__, member)
        monkeypatch.setitem(sys.modules, name, module)
    for name, text in CONFIGS.items():
        path = tmp_path / f"conf/{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "conf"


def test_a_module_and_a_config_file_add_a_gan_a_classifier_and_an_explainer(
    own: Path, tmp_path: Path
) -> None:
    sweep = ["-m", "model=mlp", "augmentation=none,lsgan", "explain=brightness"]
    found = [f"outputs={tmp_path}", "--config-dir", str(own)]
    assert main(["train", *found, *sweep, *TINY]) == 0
    records, _ = read_records(tmp_path / "runs/single")
    runs = {record.run.augmentation: record for record in records}
    assert {name: record.run.kind for name, record in runs.items()} == {
        "none": "none",
        "lsgan": "gan",
    }
    assert runs["lsgan"].data["synthetic"]["counts"]
    report = tmp_path / "runs/single/report"
    assert set(pd.read_csv(report / "synthetic_images.csv")["augmentation"]) == {"lsgan"}
    assert set(pd.read_csv(report / "explanations.csv")["method"]) == {"brightness"}
    assert "mlp-lsgan" in (report / "table.md").read_text()


def test_the_report_answers_for_a_gan_of_any_name(tmp_path: Path) -> None:
    for name, strength in (("none", 0.5), ("oversample", 0.6), ("lsgan", 3.0)):
        run = varied(RUN, augmentation=name)
        write_run(tmp_path, run, predictions(run, strength=strength))
    write_report(tmp_path)
    page = (tmp_path / "report/report.html").read_text()
    assert "better than no augmentation for cnn-lsgan" in page
    assert "No complete run was trained with synthetic images" not in page
    answer = pd.read_csv(tmp_path / "report/answer.csv").set_index("minus")
    assert answer.loc["oversample", "configuration"] == "cnn-lsgan"
    assert pd.read_csv(tmp_path / "report/grid.csv").columns.tolist().count("lsgan") == 1


def test_an_entry_adds_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missed(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
        return fn / (tp + fn)

    monkeypatch.setitem(METRICS, "missed", Metric("miss rate", missed, patients=True))
    record = write_run(tmp_path, RUN)
    assert Record.read(tmp_path / RUN.folder).metrics == record.metrics
    write_report(tmp_path)
    rows = pd.read_csv(tmp_path / "report/table.csv").set_index("kind")
    expected = 1 - rows.loc["configuration", "sensitivity"]
    row = rows.loc["configuration"]
    assert row["missed"] == pytest.approx(expected)
    assert row["missed_low"] <= expected <= row["missed_high"]
    assert rows["missed"].notna().all()
    shown = (tmp_path / "report/table.md").read_text()
    assert shown.count("miss rate (Youden)") == 2
    assert "miss rate (sens. 0.95)" in shown
