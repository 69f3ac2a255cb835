"""Dry runs: states of run folders, estimated time, all experiments."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from leuk.cli import main
from leuk.config import conf_dir
from leuk.config.preflight import CommandLine, compose_runs
from leuk.config.schema import register
from leuk.runs.dry_run import expected_seconds
from leuk.runs.record import Record, RunId
from leuk.runs.run import register_resolvers
from leuk.runs.state import LOCK, State, differences, inspect_folder
from leuk.store import MissingArtifactError, discard, make_once, read_only, unfinished

RUN = RunId("cnn", "none", "none", "folds", seed=0)
SETTINGS: dict[str, Any] = {
    "seed": 0,
    "augmentation": {"name": "none"},
    "data": {"resolution": 64},
    "fit": {"epochs": 4, "mode": "min"},
}


def make_record(**changed: Any) -> Record:
    return replace(Record(RUN, "abc", settings=SETTINGS), **changed)


def failed() -> Record:
    record = make_record()
    record.fail(RuntimeError("out of luck\nand more"))
    return record


STATES = [
    (None, False, State.MISSING, ""),
    (None, True, State.RUNNING, ""),
    (make_record(), True, State.RUNNING, ""),
    (make_record(), False, State.STOPPED, ""),
    (make_record(status="complete"), False, State.COMPLETE, ""),
    (make_record(status="complete"), True, State.COMPLETE, ""),
    (failed(), False, State.FAILED, "out of luck"),
    (
        make_record(
            status="complete",
            fingerprint="old",
            settings={"fit": {"epochs": 5}, "seed": 0, "augmentation": {"name": "none"}},
        ),
        False,
        State.OTHER,
        "data.resolution=64 (was not set), fit.epochs=4 (was 5), fit.mode=min (was not set)",
    ),
    (
        make_record(fingerprint="old", settings={}),
        False,
        State.OTHER,
        "its record does not list them",
    ),
]


@pytest.mark.parametrize(("record", "held", "state", "message"), STATES)
def test_state_of_a_folder(
    record: Record | None, held: bool, state: State, message: str, tmp_path: Path
) -> None:
    if record is not None:
        record.write(tmp_path)
    if held:
        with FileLock(tmp_path / LOCK):
            found = inspect_folder(tmp_path, make_record())
    else:
        found = inspect_folder(tmp_path, make_record())
    assert (found.state, found.message) == (state, message)


def test_lock_holder_sees_the_state_of_its_folder(tmp_path: Path) -> None:
    make_record().write(tmp_path)
    with FileLock(tmp_path / LOCK):
        assert inspect_folder(tmp_path, make_record(), ours=True).state == State.STOPPED
    (tmp_path / "record.json").write_text(json.dumps({"schema": 9, "status": "complete"}))
    found = inspect_folder(tmp_path, make_record())
    assert found.state == State.UNREADABLE
    assert "written by a newer leuk" in found.message


def test_of_many_differences_the_first_are_listed() -> None:
    before, now = (make_record(settings={f"k{i}": i + more for i in range(8)}) for more in (0, 1))
    assert differences(before, now)[:1] == ["k0=1 (was 0)"]
    assert differences(before, now)[-1] == "and 3 more"


def test_time_is_the_median_of_such_runs_scaled_by_epochs() -> None:
    from leuk.runs.trainer import name_of

    register()
    register_resolvers()
    (cfg,) = compose_runs("train", CommandLine.read("train", ["fit.epochs=8"]))
    model = {"model": {"_target_": "leuk.classifiers.cnn.CNN"}}

    def taken(fit: float, **changed: Any) -> Record:
        device = {"name": changed.pop("device", name_of("auto"))}
        timings = {"augmentation": 500.0, "fit": fit, "total": 503.0 + fit}
        settings = SETTINGS | model | changed
        return make_record(status="complete", device=device, timings=timings, settings=settings)

    other = {"model": {"_target_": "leuk.classifiers.vit.ViT"}}
    records = [taken(10.0), taken(30.0, seed=1), taken(20.0), taken(900.0, device="another")]
    records += [taken(900.0, **other), taken(900.0, data={"resolution": 224})]
    assert expected_seconds(cfg, records) == 3.0 + 2 * 20.0
    assert expected_seconds(cfg, records[3:]) is None


def test_artifacts_are_found_but_not_built(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "content").write_text("x")

    with read_only(), pytest.raises(MissingArtifactError, match="not built yet"):
        make_once(tmp_path, "thing", {}, build)
    assert not list(tmp_path.iterdir())
    folder = make_once(tmp_path, "thing", {}, build)
    with read_only():
        assert make_once(tmp_path, "thing", {}, build) == folder
        with pytest.raises(MissingArtifactError):
            discard(folder)
    discard(folder)
    assert not folder.exists()


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    scratch = unfinished(tmp_path, "thing", {})
    name = scratch.name.removeprefix(".").removesuffix(".unfinished")
    torn = scratch.with_name(f".{name}.k2x9")
    scratch.mkdir(parents=True)
    torn.mkdir()
    make_once(tmp_path, "thing", {}, lambda folder: (folder / "content").touch())
    assert scratch.exists()
    assert not torn.exists()


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param(path.stem, marks=[pytest.mark.slow] if path.stem != "thesis" else [])
        for path in sorted((conf_dir() / "experiment").iterdir())
    ],
)
def test_every_experiment_has_a_dry_run(
    experiment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["train", "-m", f"experiment={experiment}", f"outputs={tmp_path}/o", "--dry-run"])
    printed = capsys.readouterr().out
    assert code == 0
    assert not list(tmp_path.iterdir())
    file = yaml.safe_load((conf_dir() / f"experiment/{experiment}.yaml").read_text())
    axes = file["hydra"]["sweeper"]["params"]
    split = "thesis_LEAKY" if experiment == "thesis" else "folds"
    models, augmentations = (axes[axis].split(",") for axis in ("model", "augmentation"))
    for model in models:
        for augmentation in augmentations:
            assert f"  missing         {model}-{augmentation}-{split}-s0\n" in printed
    gans = set(augmentations) & {"dcgan", "wgan", "cgan"}
    for gan in gans:
        assert f"  {gan} of hem" in printed
    runs = len(models) * len(augmentations)
    assert f"{runs} of {runs} runs to execute, {len(gans)} GANs to train" in printed
    assert f"GB free in {tmp_path}/o" in printed
    assert printed.endswith("dry run: nothing was executed or written\n")


@pytest.mark.parametrize("line", [["report", "--dry-run"], ["train", "--dry-run", "--help"]])
def test_dry_run_is_for_training(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line) == 2
    assert "--dry-run: only available for leuk train" in capsys.readouterr().err
