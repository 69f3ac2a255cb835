"""Untrusted files: none can run code, hang, exhaust the memory or read other files."""

import csv
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from sweeps import RUN, predictions, write_run

from leuk.config.targets import check_targets, instantiate
from leuk.errors import ConfigError, StoreError
from leuk.report.facts import last_command
from leuk.report.gans import synthesis_examples
from leuk.report.load import read_predictions
from leuk.report.page import write_report
from leuk.report.table import Section
from leuk.runs.finished import CONFIG, WEIGHTS, FinishedRun
from leuk.runs.record import FILE, Record
from leuk.runs.trainer import read_checkpoint
from leuk.store import MANIFEST, is_whole

OUR_NODE = "_target_: leuk.classifiers.cnn.CNN"
NEEDED = "data: {_target_: leuk.data.phantom.PhantomDataModule}\nsplit: {_target_: leuk.data.rules.Folds}\ntrainer: {_target_: lightning.pytorch.Trainer}\n"  # noqa: E501


class Payload:
    """Object that runs a command when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",  # with weights_only=False it unpickles whatever it is pointed at
        "torch.hub.load",
        "torch.os.system",
        "torch.utils.cpp_extension.load",
        "leuk.cli.main",
        "leuk.cli.os.system",
        "leuk.__main__.anything",  # importing it starts leuk
        "leuk.store.shutil.rmtree",
        "leuk.store.discard",
        "leuk.classifiers.pretrained.load_file",
        "leuk.classifiers.pretrained._read",
        "leuk.explain.figures.draw_all",
        "lightning.pytorch.callbacks.os.system",
        "lightning.pytorch.seed_everything",
        "",
        7,
    ],
)
def test_configs_build_only_allowed_classes(target: object) -> None:
    with pytest.raises(ConfigError, match=r"are allowed|not a class of that module"):
        check_targets({"model": {"_target_": target}})


def test_a_config_cannot_unpickle(tmp_path: Path) -> None:
    torch.save(Payload(tmp_path / "ran"), tmp_path / "evil.pt")
    node = {"_target_": "torch.load", "f": str(tmp_path / "evil.pt"), "weights_only": False}
    with pytest.raises(ConfigError, match=r"torch\.load: only names from"):
        instantiate(OmegaConf.create(node))
    assert not (tmp_path / "ran").exists()


def test_nothing_is_imported_before_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lightning_evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})")
    monkeypatch.syspath_prepend(tmp_path)
    finished = run_with(tmp_path / "run", "model: {a: [{_target_: lightning_evil.run}]}")
    for act in (
        lambda: check_targets({"a": [{"_target_": "lightning_evil.run"}]}),
        lambda: FinishedRun.read(str(finished)),
    ):
        with pytest.raises(ConfigError, match=r"lightning_evil\.run: only names"):
            act()
    assert "lightning_evil" not in sys.modules
    assert not (tmp_path / "ran").exists()


def run_with(folder: Path, config: str) -> Path:
    """Create the folder of a finished run with another config."""
    write_run(folder, RUN)
    run = folder / RUN.folder
    for name, text in ((CONFIG, config), (WEIGHTS, "")):
        (run / name).parent.mkdir()
        (run / name).write_text(text)
    return run


LINES = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
LINES += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("\n".join(LINES), "it contains aliases"),
        ("- a\n- b", "it has no keys"),
        ("a: [", "no readable config"),
        ("a: !!python/object/apply:os.getcwd []", "no readable config"),
        (f"a: {'x' * 2**20}", "more than"),
        ("[" * 5000, "no readable config"),
        ("model: 3", "model._target_ is missing"),
        (f"model: {{{OUR_NODE}, p: '${{oc.env:HOME}}'}}", "not one of leuk's resolvers"),
        (f"model: {{{OUR_NODE}, p: '${{ hydra:runtime.cwd}}'}}", "not one of leuk's resolvers"),
        ("model: {_target_: '${leuk.stem:torch.load}'}", "only names from"),
        (f"model: {{{OUR_NODE}, optim: {{_target_: torch.load}}}}", "only names from"),
    ],
    ids=str.split("bomb list cut object long deep bare env cwd hidden nested"),  # type: ignore[arg-type]
)
def test_configs_of_runs_are_read_without_trust(tmp_path: Path, config: str, message: str) -> None:
    run = run_with(tmp_path, config)
    with pytest.raises((ConfigError, StoreError), match=f"config.yaml.*{message}"):
        FinishedRun.read(str(run))


def test_files_of_leuk_itself_are_read(tmp_path: Path) -> None:
    run = run_with(tmp_path, f"outputs: ${{leuk.stem:x}}\nmodel: {{{OUR_NODE}}}\n{NEEDED}")
    assert FinishedRun.read(str(run)).folder == run


@pytest.mark.parametrize("how", ["pickle", "torch", "argument"])
def test_checkpoints_may_contain_only_weights_and_plain_values(tmp_path: Path, how: str) -> None:
    path, marker = tmp_path / "best.ckpt", tmp_path / "ran"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Payload(marker)))
    elif how == "torch":
        torch.save({"state_dict": {}, "epoch": Payload(marker)}, path)
    else:  # plain values, that Lightning takes for the name of something to import and call
        torch.save({"state_dict": {}, "hyper_parameters": {"_instantiator": "os.mkdir"}}, path)
    with pytest.raises(StoreError, match=r"best\.ckpt: ") as caught:
        read_checkpoint(path, {})
    assert "weights_only" not in str(caught.value)
    assert not marker.exists()


EVIL = [
    {"run": {"model": "<script>", "augmentation": "a", "split": "s", "seed": 0}},
    {"run": {"model": "$\\frac$", "augmentation": "a", "split": "s", "seed": 0}},
    {"run": {"model": "a", "augmentation": "../a", "split": "s", "seed": 0}},
    {"run": {"model": "a", "augmentation": "b", "split": "s", "seed": "first"}},
    {"run": {"model": ["a"], "augmentation": "b", "split": "s", "seed": 0}},
    {"status": "splendid"},
    {"metrics": []},
    {"metrics": {"test": {"auroc": {"value": "high", "low": None, "high": None}}}},
    {"timings": {"fit": "long"}},
    {"warnings": "none"},
    {"error": {"message": ["a"]}},
    {"surprise": 1},
    {"data": {"counts": {"test": {"all": "many"}}}},
    {"data": {"synthetic": {"gans": "feed"}}},
    {"data": {"synthetic": {"quality": {"hem": "good"}}}},
    {"area": {"within_bins": 3}},
    {"cost": {"parameters": "many"}},
    {"baselines": {"area": {"auroc": 0.5}}},
    {"explanations": {"gradcam": {"arrays": "a", "picture": 3}}},
    {"explanations": {"cohort": {"pictures": [], "left_out": 5}}},
    {"explanations": {"gradcam": 3}},
]


@pytest.mark.parametrize("changed", EVIL, ids=range(len(EVIL)))
def test_records_of_another_shape_are_refused_by_name(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    write_run(tmp_path, RUN)
    path = tmp_path / RUN.folder / FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(StoreError, match="no readable record"):
        Record.read(path.parent)


def test_a_record_of_brackets(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"schema": ' + "[" * 100_000)
    with pytest.raises(StoreError, match="no readable record"):
        Record.read(tmp_path)


@pytest.mark.parametrize("name", ["../../secret.csv", "link.csv", "pipe.csv"])
def test_predictions_are_read_from_the_run_s_own_folder(tmp_path: Path, name: str) -> None:
    sweep, folder = tmp_path / "runs/s", tmp_path / "runs/s" / RUN.folder
    table = predictions(RUN, images=5)
    write_run(sweep, RUN, table, predictions=name)
    table.to_csv(tmp_path / "runs/secret.csv", index=False)
    (folder / "link.csv").symlink_to(tmp_path / "runs/secret.csv")
    os.mkfifo(folder / "pipe.csv")
    (folder / "predictions.csv").unlink()
    write_report(sweep)
    text = (sweep / "report/table.md").read_text()
    assert f"{name}: no readable predictions" in text


@pytest.mark.parametrize("name", ["../secret", "/dev/zero", "pipe", "out"])
def test_manifests_name_plain_files_of_their_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "artifact"
    folder.mkdir()
    (tmp_path / "secret").write_text("")
    os.mkfifo(folder / "pipe")
    (folder / "out").symlink_to(tmp_path / "secret")
    empty = [0, "e3b0c44298fc1c14"]
    (folder / MANIFEST).write_text(json.dumps({"key": {}, "files": {name: empty}}))
    assert not is_whole(folder)
    (folder / "own").write_text("")
    (folder / MANIFEST).write_text(json.dumps({"key": {}, "files": {"own": empty}}))
    assert is_whole(folder)


def archive(path: Path, how: str) -> None:
    """Write a malformed archive of arrays."""
    if how == "bomb":
        np.savez_compressed(path, real=np.zeros(20_000_000, np.uint8), synthetic=np.zeros(1))
    elif how == "objects":
        np.savez(path, real=np.array([{}], object), synthetic=np.zeros(1))
    elif how == "damaged":
        np.savez(path, real=np.zeros(3, np.uint8), synthetic=np.zeros(1))
        path.write_bytes(path.read_bytes().replace(b"'shape': (3,)", b"'shape': (9,)"))
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("../../real.npy", b"out")


@pytest.mark.parametrize("how", ["bomb", "objects", "damaged", "leads out"])
def test_archives_of_arrays(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "a/b/dcgan"
    folder.mkdir(parents=True)
    archive(folder / "images_hem.npz", how)
    with pytest.raises((ValueError, KeyError)):
        synthesis_examples([folder])
    assert not list(tmp_path.rglob("real.npy"))


FORMULAS = ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0", "a;=1+1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_tables_contain_no_formulas(tmp_path: Path, text: str) -> None:
    table = pd.DataFrame({"name": [text, "plain"], text: [-1.5, 2.0], "why": [None, text]})
    Section("s", "S", (), table).write(tmp_path)
    # By semicolons where the comma parts a number.
    for mark in ",;":
        with (tmp_path / "s.csv").open(newline="") as file:
            rows = list(csv.reader(file, delimiter=mark))
        found = [cell for row in rows for cell in row if cell not in ("-1.5", "2.0")]
        assert not [cell for cell in found if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert pd.read_csv(tmp_path / "s.csv").iloc[:, 1].tolist() == [-1.5, 2.0]


def test_leuk_reads_its_own_tables_unchanged(tmp_path: Path) -> None:
    table = predictions(RUN, images=2)
    names = [f"={number}.bmp" for number in range(len(table))]
    Section("predictions", "P", (), table.assign(path=names)).write(tmp_path)
    assert read_predictions(tmp_path, "predictions.csv")["path"].tolist() == names


def test_shown_command_is_a_single_command(tmp_path: Path) -> None:
    sweep = tmp_path / "a$(touch x);b"
    sweep.mkdir()
    with pytest.raises(StoreError, match="no records"):
        write_report(sweep)
    page = (sweep / "report/report.html").read_text()
    assert "leuk train -m &#39;name=a$(touch x);b&#39;" in page
    task = ["name=s; touch x", "'`touch x`"]
    (sweep / "multirun.yaml").write_text(json.dumps({"hydra": {"overrides": {"task": task}}}))
    assert last_command(sweep) == """leuk train -m 'name=s; touch x' ''"'"'`touch x`'"""
    (sweep / "multirun.yaml").write_text("\n".join(LINES))
    assert last_command(sweep) == ""
