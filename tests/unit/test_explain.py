"""Explanations of a cohort: choice of images and methods, and the files written."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hydra.utils import get_class
from torch import Tensor

from leuk.classifiers.base import Classifier, Predictions
from leuk.classifiers.cnn import CNN
from leuk.data.datamodule import CNMCDataModule
from leuk.data.rules import Folds
from leuk.errors import ConfigError
from leuk.explain import study
from leuk.explain.base import Attribution, Explainer, possible_explainers
from leuk.explain.cohort import (
    OUTCOMES,
    UNKNOWN,
    Cohort,
    choose_background,
    choose_images,
    evaluated_cohort,
    outcome_of,
    unlabeled_cohort,
)
from leuk.explain.gradcam import GradCAM
from leuk.explain.quality.checks import CheckSettings
from leuk.explain.rollout import AttentionRollout
from leuk.explain.study import COHORT, Explain, Study

ROOT = Path(__file__).parents[2]
FEW = CheckSettings(
    steps=3, removals=3, sensitivity_images=2, sensitivity_samples=1, randomized_images=2, draws=9
)


def table(count: int = 400) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, count)
    subjects = [f"S{i}" for i in generator.integers(0, 10, count)]
    decided = np.where(generator.random(count) < 0.9, labels, 1 - labels)
    return pd.DataFrame({"label": labels, "subject": subjects, "decided": decided})


def test_choice_covers_all_outcomes_and_many_subjects() -> None:
    images = table()
    chosen = images.iloc[choose_images(images, 16)]
    assert chosen.groupby(["label", "decided"]).size().tolist() == [4, 4, 4, 4]
    assert chosen["subject"].nunique() >= 4
    assert choose_images(images.copy(), 100)[:16] == choose_images(images, 16)
    assert len(set(choose_images(images, 1000))) == 400


def test_background_has_both_classes_and_many_subjects_and_follows_the_seed() -> None:
    train = table().set_index(np.arange(400) * 3)
    rows = choose_background(train, 20, seed=0)
    assert train.loc[rows, "label"].value_counts().tolist() == [10, 10]
    assert train.loc[rows, "subject"].nunique() == 10
    assert rows == choose_background(train, 20, seed=0) == sorted(set(rows))
    assert rows != choose_background(train, 20, seed=1)
    assert len(choose_background(train, 1000, seed=0)) == 400


def test_outcomes_are_decided_at_a_half() -> None:
    cases = [(1, 0.5), (1, 0.499), (0, 0.499), (0, 0.5)]
    assert [outcome_of(label, score) for label, score in cases] == list(OUTCOMES)


class Bright(Explainer):
    """Method that records its arguments; the first maps are zero."""

    name, title = "bright", "brightness"

    def __init__(self, zeros: int = 0) -> None:
        self.zeros = zeros
        self.images: list[Tensor] = []
        self.backgrounds: list[Tensor] = []
        self.kinds: set[torch.dtype] = set()

    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        self.images.append(images.clone())
        self.backgrounds.append(background.clone())
        self.kinds.add(classifier(images[:1]).dtype)
        maps = images.mean(dim=1).clone()
        maps[: self.zeros] = 0
        return Attribution(maps, "pixel", checks={"mean": images.mean(dim=(1, 2, 3))})


@pytest.fixture(scope="module")
def cnn() -> CNN:
    torch.manual_seed(0)
    return CNN(resolution=32, widths=(4, 8, 8), hidden=8).eval()


@pytest.fixture(scope="module")
def data(phantom: Path, artifacts: Path) -> CNMCDataModule:
    made = CNMCDataModule(str(phantom), Folds(), resolution=32, cache=str(artifacts))
    made.prepare_data()
    made.setup()
    return made


@pytest.fixture(scope="module")
def predictions(data: CNMCDataModule) -> Predictions:
    rows = torch.tensor(np.sort(data.split.test))
    scores = torch.rand(len(rows), generator=torch.Generator().manual_seed(0)).double()
    return Predictions(rows, scores, data.bank.labels[rows])


@pytest.fixture(scope="module")
def cohort(data: CNMCDataModule, predictions: Predictions) -> Cohort:
    return evaluated_cohort(data, predictions, shown=4, count=20, background=6)


@pytest.fixture(scope="module")
def summary(cohort: Cohort, cnn: CNN, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Summary of a whole study, with checks and figures, in the folder ``summary["folder"]``."""
    folder = tmp_path_factory.mktemp("study") / "explanations"
    methods = {"gradcam": GradCAM(), "bright": Bright(zeros=1)}
    found = Study(methods, folder, "model", checks=FEW).of(cnn, cohort)
    assert found == json.loads((folder / "summary.json").read_text())
    return found | {"folder": folder}


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies without figures, which take most of their time."""
    monkeypatch.setattr(study, "draw_all", lambda *_: [])


def pixels(data: CNMCDataModule, rows: Any) -> set[bytes]:
    return {data.dataset.data[row].tobytes() for row in rows}


def seen(images: Tensor) -> set[bytes]:
    whole = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return {image.numpy().tobytes() for image in whole}


@pytest.mark.usefixtures("undrawn")
def test_background_has_training_images_only(
    data: CNMCDataModule, predictions: Predictions, cnn: CNN, tmp_path: Path
) -> None:
    method = Bright()
    cohort = evaluated_cohort(data, predictions, shown=2, count=20, background=30)
    Study({"bright": method}, tmp_path, "model").of(cnn, cohort)
    behind = seen(torch.cat(method.backgrounds))
    assert len(behind) >= 28
    assert behind <= pixels(data, data.split.train)
    assert not behind & pixels(data, [*data.split.val, *data.split.test])
    assert seen(torch.cat(method.images)) <= pixels(data, data.split.test)


def test_cohort_has_the_prediction_of_each_image(
    data: CNMCDataModule, predictions: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "seed", 5)
    cohort = evaluated_cohort(data, predictions, shown=4, count=40, background=4)
    behind = choose_background(data.stage("train"), 4, seed=5)
    assert seen(cohort.background) == pixels(data, behind)
    scores = dict(zip(predictions.rows.tolist(), predictions.scores.tolist(), strict=True))
    assert len(cohort.table) == len(cohort.images) == 40
    assert cohort.table["shown"].tolist() == [True] * 4 + [False] * 36
    for position, one in enumerate(cohort.table.to_dict("records")):
        row = one["row"]
        assert one["score"] == scores[row]
        assert one["label"] == int(data.bank.labels[row])
        assert one["file"] == data.dataset.index["path"].iloc[row]
        assert one["outcome"] == outcome_of(one["label"], one["score"])
        assert seen(cohort.images[position][None]) == pixels(data, [row])
    # The last outcome has no more images.
    assert [len(cohort.of(outcome)) for outcome in OUTCOMES] == [12, 12, 12, 4]
    assert sorted(cohort.shown) == [0, 1, 2, 3]
    assert [cohort.table["outcome"].iloc[i] for i in cohort.shown] == list(OUTCOMES)


def test_images_beyond_the_shown_are_explained_only_for_checks() -> None:
    assert Explain({}, Path(), shown=16, checked=100).count == 16
    assert Explain({}, Path(), shown=16, checked=100, checks=CheckSettings()).count == 100
    assert Explain({}, Path(), shown=16, checked=0, checks=CheckSettings()).count == 16


def test_methods_that_do_not_suit_the_classifier_are_skipped_or_refused(cnn: CNN) -> None:
    willing = {"gradcam": GradCAM(), "rollout": AttentionRollout(when_possible=True)}
    kept, left_out = possible_explainers(willing, cnn)
    assert list(kept) == ["gradcam"]
    assert left_out == {"rollout": "CNN has no patches"}
    with pytest.raises(ConfigError, match=r"explain=rollout: CNN has no patches; choose model=vit"):
        possible_explainers({"rollout": AttentionRollout()}, cnn)
    with torch.device("meta"):  # before any work
        model = CNN(resolution=32, widths=(4, 8, 8), hidden=8)
    with pytest.raises(ConfigError, match=r"layer=blocks\.9: no such layer; .*blocks\.0"):
        possible_explainers({"gradcam": GradCAM(layer="blocks.9")}, model)


def test_study_writes_arrays_a_manifest_and_a_summary(
    cohort: Cohort, summary: dict[str, Any]
) -> None:
    folder = summary["folder"]
    manifest = pd.read_csv(folder / "manifest.csv")
    assert manifest["file"].tolist() == cohort.table["file"].tolist()
    assert manifest["picture"].notna().tolist() == [True] * 4 + [False] * 16
    assert all((folder / picture).is_file() for picture in manifest["picture"].dropna())
    with np.load(folder / "bright.npz") as arrays:
        assert arrays["rows"].tolist() == manifest["row"].tolist()
        assert arrays["maps"].shape == (20, 32, 32)
        # Chunks of 16 images, the first map of each zero.
        whole = [position for position in range(20) if position not in (0, 16)]
        np.testing.assert_allclose(arrays["maps"][whole], cohort.images.mean(dim=1)[whole])
        np.testing.assert_allclose(arrays["check_mean"], cohort.images.mean(dim=(1, 2, 3)))
    assert summary["bright"]["degenerate"] == 2
    assert summary["bright"]["checks"]["mean"] == pytest.approx(float(cohort.images.mean()))
    assert summary["gradcam"]["seconds_per_image"] > 0
    together = summary[COHORT]
    text = "bright: 2 of 20 maps are degenerate"
    assert together["warnings"] == [{"kind": "degenerate", "text": text}]
    assert together["background"] == 6
    assert together["peak_memory_bytes"]["process"] > 10_000_000
    assert {"explanations/cohort.png", "explanations/figure_9.png"} <= set(together["pictures"])
    for picture in (*together["pictures"], summary["bright"]["picture"], together["curves"]):
        assert (folder.parent / picture).stat().st_size > 3000


def test_results_of_checks_are_written_beside_the_maps(
    cohort: Cohort, summary: dict[str, Any]
) -> None:
    folder, own, together = summary["folder"], summary["gradcam"], summary[COHORT]
    measures = pd.read_csv(folder / "measures.csv").set_index(["method", "measure"])
    for name, one in own["measures"].items():
        assert one["value"] == pytest.approx(measures.loc[("gradcam", name), "value"], abs=1e-5)
    assert {"infidelity", "positive_border", "area_border"} <= set(own["measures"])
    # The interval from two images of two patients is wide, whatever they show.
    assert own["measures"]["randomized_similarity"]["subjects"] == 2
    assert own["passes_randomization"] is None
    assert set(together["controls"]) >= {"random", "center", "edges"}
    assert together["agreement"]["gradcam"]["gradcam"] == pytest.approx(1)
    images = pd.read_csv(folder / "measured_images.csv").groupby("method")["row"]
    assert images.get_group("gradcam").tolist() == cohort.table["row"].tolist()
    assert set(pd.read_csv(folder / "curves.csv")["curve"]) == {"deletion", "insertion"}
    assert all((folder.parent / table).is_file() for table in together["tables"])


@pytest.mark.usefixtures("undrawn")
def test_studies_log_and_predict_in_the_precision_of_the_trainer(
    cohort: Cohort, cnn: CNN, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def context() -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16)

    bright = Bright(zeros=1)
    with caplog.at_level("INFO"):
        Study({"bright": bright}, tmp_path, "model", context).of(cnn, cohort)
    assert bright.kinds == {torch.bfloat16}
    assert "bright: 20 images" in caplog.text
    assert "bright: 2 of 20 maps are degenerate" in caplog.text


@pytest.mark.usefixtures("undrawn")
def test_class_without_correct_predictions_is_warned_of(
    data: CNMCDataModule, predictions: Predictions, cnn: CNN, tmp_path: Path
) -> None:
    sick = Predictions(predictions.rows, torch.ones_like(predictions.scores), predictions.labels)
    cohort = evaluated_cohort(data, sick, shown=3, count=10, background=2)
    together = Study({"gradcam": GradCAM()}, tmp_path, "model").of(cnn, cohort)[COHORT]
    assert together["outcomes"]["true negative"] == 0
    assert evaluated_cohort(data, sick, shown=1, count=1, background=2).missing == []
    (warning,) = together["warnings"]
    assert warning["text"].startswith("explanations: no true negative (healthy, predicted healthy)")


@pytest.mark.usefixtures("undrawn")
def test_unlabeled_images_have_an_outcome_of_their_own(cnn: CNN, tmp_path: Path) -> None:
    images = torch.rand(3, 3, 32, 32)
    cohort = unlabeled_cohort(["a.bmp", "b.bmp", "c.bmp"], images, [0.1, 0.9, 0.5], images, 2)
    summary = Study({"gradcam": GradCAM()}, tmp_path, "model").of(cnn, cohort)
    assert summary[COHORT]["outcomes"] == {UNKNOWN: 3}
    assert summary[COHORT]["warnings"] == []
    manifest = pd.read_csv(tmp_path / "manifest.csv")
    assert manifest["label"].isna().all()
    assert manifest["picture"].notna().tolist() == [True, True, False]


def test_study_checks_patients_predictions_and_training_images(
    cohort: Cohort, cnn: CNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patients, scores, labels = ["p", "p", "q"], [0.9, 0.2, 0.7], [1, 1, 0]
    table = cohort.table[:3].assign(patient=patients, subject=list("abc"), score=scores)
    own = Cohort(table.assign(label=labels), torch.rand(3, 3, 32, 32), torch.rand(2, 3, 32, 32))
    given: list[Any] = []

    def record(*arguments: Any) -> None:
        given.extend(arguments)
        raise InterruptedError

    monkeypatch.setattr(study, "check", record)
    with pytest.raises(InterruptedError):
        Study({"bright": Bright()}, tmp_path, "model", checks=CheckSettings()).of(cnn, own)
    _, _, _, images, background, of_check, predicted, _ = given
    assert images is own.images
    assert background is own.background
    assert list(of_check) == patients
    assert predicted.tolist() == [1, 0, 1]


@pytest.mark.usefixtures("undrawn")
def test_chunks_are_joined_and_means_are_of_finite_values(
    cohort: Cohort, cnn: CNN, tmp_path: Path
) -> None:
    class Half(Bright):
        def _explain(self, model: Classifier, images: Tensor, background: Tensor) -> Attribution:
            maps = super()._explain(model, images, background).maps
            value = torch.full((len(maps),), 0.5 if len(maps) == 16 else torch.nan)
            return Attribution(maps, "pixel", checks={"half": value, "none": value * torch.nan})

    summary = Study({"half": Half()}, tmp_path, "model").of(cnn, cohort)
    assert summary["half"]["checks"] == {"half": 0.5, "none": None}
    parts = [
        Attribution(torch.ones(n, 2, 2), "pixel", seconds) for n, seconds in ((2, 1.5), (1, 2))
    ]
    assert Attribution.join(parts).seconds == 3.5


def test_a_method_of_two_files_is_explained_like_any_other(
    cohort: Cohort, cnn: CNN, tmp_path: Path
) -> None:
    class Own(Bright):
        """Only what the contract requires, under a name that Python does not know."""

        name, title, thesis_figure = "own", "Own method", 11

    one = Cohort(cohort.table[:1], cohort.images[:1], cohort.background)
    summary = Study({"own": Own()}, tmp_path / "explanations", "model").of(cnn, one)
    assert set(summary) == {"own", COHORT}
    names = [Path(path).name for path in summary[COHORT]["pictures"]]
    assert names[-2:] == ["cohort.png", "figure_11.png"]


def test_degenerate_maps_are_recognized() -> None:
    maps = torch.rand(4, 8, 8)
    maps[0] = 0
    maps[1] = 0.3
    maps[2, 0, 0] = float("nan")
    assert Attribution(maps, "pixel", 0.0).degenerate.tolist() == [True, True, True, False]


@pytest.mark.parametrize("name", ["gradcam", "rollout", "shap", "lime"])
def test_configs_name_every_method_and_setting(name: str) -> None:
    nodes = yaml.safe_load((ROOT / f"conf/explain/{name}.yaml").read_text())
    for key, node in nodes.items():
        method = get_class(node.pop("_target_"))
        assert method.name == key
        defaults = {key: it.default for key, it in inspect.signature(method).parameters.items()}
        assert node == defaults | {key: True for key in ("when_possible",) if node.get(key)}
        method(**node)
