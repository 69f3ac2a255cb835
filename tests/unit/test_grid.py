import json
from dataclasses import replace
from pathlib import Path

import pytest
from sweeps import COST

from leuk.errors import StoreError
from leuk.runs.record import Record, RunId, as_metrics, read_records, short_name

RUN = RunId("cnn", "dcgan", "gan", "folds")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, ""),
        ({"data.resolution": 96}, "resolution_96"),
        ({"recipe": "thesis", "data": "cnmc"}, "data_cnmc-recipe_thesis"),
        ({"fit.epochs": 2, "other.epochs": 3}, "fit.epochs_2-other.epochs_3"),
        ({"fit.epochs": 2, "gan.latent": 9}, "epochs_2-gan.latent_9"),
        ({"split.train": ["fold_0", "fold_1"]}, "train_fold_0_fold_1"),
        ({"trainer.precision": "32-true"}, "precision_32-true"),
        ({"x": "../../etc"}, "x_.._.._etc"),
    ],
)
def test_folder_names_settings_by_the_last_component(
    settings: dict[str, object], name: str
) -> None:
    assert short_name(settings) == name
    folder = replace(RUN, seed=2, settings=settings).folder
    assert folder == "-".join(filter(None, ("cnn-dcgan-folds-s2", name)))


def test_leaky_splits_are_named_and_augmentations_removed() -> None:
    assert replace(RUN, leaky=True).folder == "cnn-dcgan-folds_LEAKY-s0"
    run = replace(RUN, settings={"fit.epochs": 2, "gan_fit.epochs": 3, "gan.latent": 9})
    assert run.plain == RunId("cnn", "none", "none", "folds", settings={"fit.epochs": 2})


def test_long_names_stay_distinct() -> None:
    settings = {f"model.setting_number_{i}": i for i in range(20)}
    name = short_name(settings)
    assert len(name) <= 140
    assert name != short_name({**settings, "model.setting_number_19": 99})


@pytest.mark.parametrize("extra", [0, 20])
def test_seeds_and_folds_share_a_configuration(extra: int) -> None:
    settings = {f"model.setting_number_{i}": ["fold_7", i] for i in range(extra)}
    runs = [replace(RUN, seed=s, fold=f, settings=settings) for s, f in ((0, 0), (1, 1), (2, 12))]
    assert len({run.configuration for run in runs}) == 1
    assert len({run.title for run in runs}) == 1
    assert [f"fold_{run.fold}" in run.folder.split("-") for run in runs] == [False, True, True]
    assert runs[0].configuration == runs[0]


def test_record_is_read_as_written(tmp_path: Path) -> None:
    run = replace(RUN, fold=1, settings={"split.train": ["fold_0"]})
    record = Record(
        run,
        "abc",
        metrics={"test": as_metrics({"auroc": 0.9, "mcc": 0.5}, {"mcc": (0.1, 0.6)})},
        calibration={"temperature": 1.7},
        area={
            "within_bins": {"value": 0.8, "low": None, "high": None, "bins": [{"auroc": None}]},
            "area_within_bins": None,
            "one_size": {
                "metrics": as_metrics({"auroc": 0.9}),
                "area_auroc": 0.5,
                "area_auroc_before": 0.8,
            },
        },
        cost=dict(COST),
    )
    record.warn("other", "careful")
    record.status = "complete"
    record.write(tmp_path)
    assert Record.read(tmp_path) == record
    written = json.loads((tmp_path / "record.json").read_text())
    assert written["schema"] == 3
    assert written["run"] == {
        "model": "cnn",
        "augmentation": "dcgan",
        "kind": "gan",
        "split": "folds",
        "leaky": False,
        "fold": 1,
        "seed": 0,
        "settings": {"split.train": ["fold_0"]},
    }
    assert written["metrics"]["test"]["auroc"] == {"value": 0.9, "low": None, "high": None}
    assert written["metrics"]["test"]["mcc"] == {"value": 0.5, "low": 0.1, "high": 0.6}
    for name in ("calibration", "area", "cost"):  # later additions to records
        del written[name]
    (tmp_path / "record.json").write_text(json.dumps(written))
    assert Record.read(tmp_path).cost == {}


def test_failure_is_recorded_with_its_traceback(tmp_path: Path) -> None:
    record = Record(RUN, "abc")
    try:
        raise RuntimeError("out of luck")
    except RuntimeError as error:
        record.fail(error)
    record.write(tmp_path)
    error = Record.read(tmp_path).error
    assert error is not None
    assert (error["type"], error["message"]) == ("RuntimeError", "out of luck")
    assert "test_failure_is_recorded" in error["traceback"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 4, "status": "complete"}', "written by a newer leuk"),
        ('{"schema": 2, "status": "complete"}', "written by an older leuk"),
        ('{"schema": 1', "no readable record"),
        ('{"schema": 3, "status": "complete"}', "no readable record"),
        ("[]", "no readable record"),
    ],
)
def test_unreadable_records_are_reported(tmp_path: Path, text: str, message: str) -> None:
    folder = tmp_path / "cnn-none-folds-s0"
    folder.mkdir()
    (folder / "record.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        Record.read(folder)
    records, unreadable = read_records(tmp_path)
    assert not records
    assert message in unreadable[0]
