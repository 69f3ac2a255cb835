import json
from pathlib import Path

import pytest

from leuk.errors import StoreError
from leuk.runs.record import Record, RunId, as_metrics, read_records, variant_of

CELL = RunId("cnn", "dcgan", "folds", 0)


def test_folder_names_the_run() -> None:
    assert CELL.folder == "cnn-dcgan-folds-s0"
    assert (
        RunId("vit", "none", "folds", 2, "resolution_96").folder
        == "vit-none-folds-s2-resolution_96"
    )


def test_variant_names_settings_by_the_last_component() -> None:
    assert variant_of({}) == ""
    assert variant_of({"data.resolution": 96}) == "resolution_96"
    assert variant_of({"recipe": "thesis", "data": "cnmc"}) == "data_cnmc-recipe_thesis"


def test_variant_keeps_whole_keys_with_equal_last_components() -> None:
    assert variant_of({"fit.epochs": 2, "other.epochs": 3}) == "fit.epochs_2-other.epochs_3"


def test_settings_of_the_augmentation_are_recognized() -> None:
    settings = {"fit.epochs": 2, "gan_fit.epochs": 3, "gan.latent": 9}
    run = RunId("cnn", "dcgan", "folds", 1, variant_of(settings))
    assert run.variant == "epochs_2-gan.latent_9-gan_fit.epochs_3"
    assert run.augmentation_settings == ("gan.latent_9", "gan_fit.epochs_3")
    assert run.plain == RunId("cnn", "none", "folds", 1, variant_of({"fit.epochs": 2}))


def test_variant_is_a_safe_folder_name() -> None:
    assert variant_of({"split.train": ["fold_0", "fold_1"]}) == "train_fold_0_fold_1"
    assert "/" not in variant_of({"x": "../../etc"})


def test_long_variants_stay_distinct() -> None:
    settings = {f"model.setting_number_{i}": i for i in range(20)}
    name = variant_of(settings)
    assert len(name) <= 140
    assert name != variant_of({**settings, "model.setting_number_19": 99})


@pytest.mark.parametrize("extra", [0, 20])
def test_folds_of_a_configuration_are_recognized(extra: int) -> None:
    settings = {f"model.setting_number_{i}": ["fold_7", i] for i in range(extra)}
    runs = [
        RunId(
            "cnn", "none", "subject_kfold", seed, variant_of({**settings, **fold, "data": "cnmc"})
        )
        for seed, fold in ((0, {}), (1, {"split.fold": 1}), (2, {"split.fold": 12}))
    ]
    assert [run.fold for run in runs] == [0, 1, 12]
    assert len({run.configuration for run in runs}) == 1
    assert len({run.folder for run in runs}) == 3
    assert runs[0].configuration == runs[0]


def test_fold_is_not_taken_from_other_settings() -> None:
    run = RunId("cnn", "none", "folds", 0, variant_of({"split.train": ["fold_3"], "lr": 1e-05}))
    assert run.fold == 0
    assert run.settings == ("lr_1e-05", "train_fold_3")
    assert run.title == "cnn-none-folds-lr_1e-05-train_fold_3"


def test_record_is_read_as_written(tmp_path: Path) -> None:
    record = Record(CELL, "abc", metrics={"test": as_metrics({"auroc": 0.9})})
    record.warn("other", "careful")
    record.status = "complete"
    record.write(tmp_path)
    assert Record.read(tmp_path) == record
    written = json.loads((tmp_path / "record.json").read_text())
    assert written["schema"] == 2
    assert written["run"] == {
        "model": "cnn",
        "augmentation": "dcgan",
        "split": "folds",
        "seed": 0,
        "variant": "",
    }
    assert written["metrics"]["test"]["auroc"] == {"value": 0.9, "low": None, "high": None}


def test_failure_is_recorded_with_its_traceback(tmp_path: Path) -> None:
    record = Record(CELL, "abc")
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
        ('{"schema": 3, "status": "complete"}', "written by a newer leuk"),
        ('{"schema": 1, "status": "complete"}', "written by an older leuk"),
        ('{"schema": 1', "no readable record"),
        ('{"schema": 2, "status": "complete"}', "no readable record"),
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


def test_a_record_in_a_folder_of_another_name_is_left_out(tmp_path: Path) -> None:
    """A copy of a run's folder would count as one more run."""
    for name in (CELL.folder, f"{CELL.folder} (copy)"):
        Record(CELL, "abc").write(tmp_path / name)
    records, unreadable = read_records(tmp_path)
    assert [record.run for record in records] == [CELL]
    assert len(unreadable) == 1
    assert f"its record belongs to {CELL.folder}" in unreadable[0]
