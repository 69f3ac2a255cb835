"""Explanations of new images, and their record, on a stub of a finished run."""

import json
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from explained import SIDE, linear
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from leuk.data.decode import Frame
from leuk.data.scale import Scale
from leuk.errors import StoreError
from leuk.explain.base import log_odds
from leuk.runs import explain as explaining
from leuk.runs.evaluate import Scorer
from leuk.runs.explain import check_explaining, explain_run, image_cohort
from leuk.runs.record import RunWarning

TRAINER: Any = SimpleNamespace(
    precision_plugin=SimpleNamespace(forward_context=nullcontext),
    strategy=SimpleNamespace(root_device=torch.device("cpu")),
)


class Data:
    """A run's data, in which every image is uniform and as bright as its row."""

    seed = 0
    stages: ClassVar = {"train": range(20, 30), "val": range(30, 40), "test": range(10)}

    def __init__(self) -> None:
        self.bank = self

    def stage(self, stage: str) -> pd.DataFrame:
        rows = list(self.stages[stage])
        labels = [row % 2 for row in rows]
        return pd.DataFrame({"label": labels, "subject": [f"S{row}" for row in rows]}, rows)

    def gather(self, rows: Tensor, device: torch.device) -> dict[str, Tensor]:
        even = torch.ones(len(rows), 3, SIDE, SIDE, device=device)
        return {"images": even * rows[:, None, None, None] / 100}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images without symmetry."""
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.bmp")
    return tmp_path


def test_images_are_read_as_a_run_s_own_beside_training_images(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The fixture's images are lit everywhere; a black border makes the cell of another smaller."""
    small = np.zeros((SIDE, SIDE, 3), np.uint8)
    small[8:24, 8:24] = 90
    Image.fromarray(small).save(folder / "2.bmp")
    cfg = OmegaConf.create({"images": str(folder), "explain_background": 6, "explain_images": 1})
    model, data = linear(scale=0.005).eval(), Data()
    view = Scale(((SIDE, SIDE),), areas=(0.2, 0.3)).view(Frame(SIDE), None, None)
    cohort = image_cohort(cfg, view, 3, data, Scorer(model, TRAINER))  # type: ignore[arg-type]
    assert [Path(name).name for name in cohort.table["file"]] == ["0.bmp", "1.bmp", "2.bmp"]
    texts = [record.getMessage() for record in caplog.records]
    named = {text[:5] for text in texts if "of the field of view" in text}
    assert named == {"0.bmp", "1.bmp"}
    for image, name in zip(cohort.images, ("0.bmp", "1.bmp", "2.bmp"), strict=True):
        pixels = np.asarray(Image.open(folder / name), np.float32) / 255
        np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), pixels, atol=1e-6)
    with torch.no_grad():
        probabilities = log_odds(model(cohort.images)).sigmoid()
    np.testing.assert_allclose(cohort.table["score"], probabilities, atol=1e-5)
    rows = (cohort.background[:, 0, 0, 0] * 100).round().int().tolist()
    assert len(rows) == 6
    assert set(rows) <= set(Data.stages["train"])
    assert cohort.table["shown"].tolist() == [True, False, False]


KEPT = {
    "gradcam": {"arrays": "gradcam.npz", "measures": {}},
    "lime": {"arrays": "lime.npz"},
    "cohort": {"images": 8},
}


def stub_run(folder: Path, monkeypatch: pytest.MonkeyPatch, methods: list[str]) -> Any:
    """Stub of a finished run with the explanations ``KEPT``."""
    (folder / "explanations").mkdir()
    (folder / "explanations/summary.json").write_text(json.dumps(KEPT))
    scorer = SimpleNamespace(
        classifier=None, trainer=None, stage=lambda data, stage: f"predictions of {stage}"
    )
    finished = SimpleNamespace(
        folder=folder, scorer=lambda cfg, batch_size: scorer, data=lambda root: None
    )
    monkeypatch.setattr(explaining, "FinishedRun", SimpleNamespace(read=lambda run: finished))
    monkeypatch.setattr(explaining, "build_named", lambda *_: dict.fromkeys(methods))
    for check in ("check_device", "possible_explainers"):
        monkeypatch.setattr(explaining, check, lambda *_: None)
    return finished


@pytest.mark.parametrize(
    ("methods", "changes", "lost"),
    [
        (["gradcam", "lime", "shap_pixels"], {}, ""),
        (["gradcam"], {}, "lime would"),
        (["gradcam", "lime"], {"checks": False}, "the checks, 4 of 8 explained images would"),
        (["lime"], {"checked_images": 6}, "gradcam, 2 of 8 explained images would"),
        (["lime"], {"replace": True}, ""),
    ],
)
def test_explanations_that_would_be_lost_are_listed(
    methods: list[str],
    changes: dict[str, Any],
    lost: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub_run(tmp_path, monkeypatch, methods)
    settings = {"run": str(tmp_path), "name": "explanations", "images": None, "explain": {}}
    settings |= {"frame": None, "pixel_size": None}
    numbers = {"checks": True, "explain_images": 4, "checked_images": 8, "replace": False}
    cfg = OmegaConf.create({**settings, **numbers, **changes})
    if not lost:
        check_explaining(cfg)
        return
    with pytest.raises(StoreError, match=f"explanations: {lost} be lost"):
        check_explaining(cfg)


@pytest.mark.parametrize("name", ["explanations", "other"])
def test_new_explanations_replace_files_record_and_warnings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = stub_run(tmp_path, monkeypatch, ["gradcam"])
    small = RunWarning("few", "a small test stage")
    lime, gradcam = (RunWarning("degenerate", text) for text in ("lime: flat", "gradcam: flat"))
    prototypes = {"prototypes": {"picture": "p.png"}}
    old = {"lime": {"images": 1}, "cohort": {"warnings": [asdict(lime)]}}
    written: list[Path] = []
    finished.record = SimpleNamespace(
        explanations=prototypes | old, warnings=[small, lime], write=written.append
    )
    folder = tmp_path / ("explanations" if name == "explanations" else f"explanations-{name}")
    (tmp_path / "explanations").rename(folder)
    for method in ("gradcam", "lime"):
        for ending in ("npz", "png"):
            (folder / f"{method}.{ending}").touch()
    summary = {"gradcam": {"images": 2}, "cohort": {"warnings": [asdict(gradcam)]}}
    given: list[Any] = []

    def explained(*arguments: Any) -> dict[str, Any]:
        given.append(arguments[3])
        return summary

    monkeypatch.setattr(explaining, "_explain", lambda *_: SimpleNamespace(explained=explained))
    cfg = {"run": str(tmp_path), "name": name, "images": None, "root": None}
    explain_run(OmegaConf.create(cfg))
    assert given == ["predictions of test"]
    remaining = sorted(path.name for path in folder.iterdir())
    assert remaining == ["gradcam.npz", "gradcam.png", "summary.json"]
    if name == "other":
        assert not written
        return
    assert written == [tmp_path]
    assert finished.record.explanations == prototypes | summary
    assert finished.record.warnings == [small, gradcam]
