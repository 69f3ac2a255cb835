"""Untrusted folders, runs and names, through the real commands."""

import csv
import html
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import write_cell

from leuk.cli import main
from leuk.runs.record import Record

ODD = "=1+1;@x <b>$\\frac$"
"""A folder name that is a formula in spreadsheets, markup in pages and math in figures."""


def cells(root: Path) -> Path:
    """Write two folds with two patients per class below a folder of that name."""
    for fold, label, subject, cell in (
        (fold, label, 2 * fold + n, cell)
        for fold in (0, 1)
        for label in ("all", "hem")
        for n in (1, 2)
        for cell in (1, 2)
    ):
        name = f"UID_{'H' if label == 'hem' else ''}{subject}_{cell}_1_{label}.bmp"
        write_cell(root / ODD / f"fold_{fold}" / label / name, 60 + 20 * subject + cell)
    return root


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run on these images."""
    folder = tmp_path_factory.mktemp("odd")
    where = [f"data.root={cells(folder / 'cells')}", f"outputs={folder / 'out'}"]
    small = ["data.resolution=32", "fit.epochs=1", "data.batch_size=4", "explain_images=2"]
    chosen = ["data=cnmc", "split.val=0.5", "explain=gradcam", "trainer=cpu"]
    assert main(["train", *where, *small, *chosen]) == 0
    (record,) = folder.glob("out/runs/single/*/record.json")
    return record.parent


@pytest.fixture
def foreign(fitted: Path, tmp_path: Path) -> Path:
    """Copy of the run to damage."""
    return Path(shutil.copytree(fitted, tmp_path / "runs/own" / fitted.name))


def test_odd_names_pass_through_a_run_as_text(fitted: Path) -> None:
    for table in (fitted / "predictions.csv", fitted / "explanations/manifest.csv"):
        for mark in ",;":
            with table.open(newline="") as file:
                found = [cell for row in csv.reader(file, delimiter=mark) for cell in row]
            assert not [cell for cell in found if cell.startswith(("=", "+", "@"))]
    assert len(list((fitted / "explanations/panels").glob("*.png"))) == 2
    report = (fitted.parent / "report/report.html").read_text()
    assert "1 of 1" in report
    assert "no readable" not in report
    assert "<b>" not in report


class Payload:
    """Makes a folder where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize(
    ("command", "key", "harm"),
    [
        ("predict", "images", "code in weights"),
        ("explain", "name", "code in weights"),
        ("export", "name", "code in weights"),
        ("predict", "images", "code in settings"),
        ("explain", "name", "record"),
        ("export", "name", "not a run"),
    ],
)
def test_untrusted_runs_execute_nothing(
    foreign: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    key: str,
    harm: str,
) -> None:
    marker, best = tmp_path / "ran", foreign / "checkpoints/best.ckpt"
    if harm == "code in weights":
        values = torch.load(best, weights_only=True)
        torch.save({**values, "hyper_parameters": Payload(marker)}, best)
    elif harm == "code in settings":
        torch.save(Payload(marker), tmp_path / "evil.pt")
        config = foreign / ".hydra/config.yaml"
        node = {"_target_": "torch.load", "f": str(tmp_path / "evil.pt"), "weights_only": False}
        text = config.read_text().replace("\nsplit:\n", f"\nsplit:\n  evil: {json.dumps(node)}\n")
        assert "evil.pt" in text
        config.write_text(text)
    elif harm == "record":
        changed = json.loads((foreign / "record.json").read_text()) | {"metrics": {"val": 3}}
        (foreign / "record.json").write_text(json.dumps(changed))
    else:
        (foreign / ".hydra/config.yaml").write_text("- nothing")
    value = str(tmp_path) if key == "images" else "mine"
    write_cell(tmp_path / "cell.png")
    before = sorted(foreign.rglob("*"))
    arguments = [f"run={foreign}", f"{key}={value}", f"outputs={tmp_path / 'out'}"]
    assert main([command, *arguments]) == 2
    printed = capsys.readouterr()
    assert str(foreign) in printed.err
    assert "Traceback" not in printed.out + printed.err
    assert not marker.exists()
    assert sorted(foreign.rglob("*")) == before


def test_untrusted_extractor_is_refused(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = foreign / ".hydra/config.yaml"
    config.write_text(config.read_text().replace("leuk.classifiers.cnn.CNN", "os.system"))
    own = ["extractor=classifier", f"extractor.run={foreign}", f"outputs={tmp_path / 'out'}"]
    assert main(["synthesize", *own]) == 2
    assert "os.system: only names from" in capsys.readouterr().err


def beside(folder: Path, secret: Path) -> None:
    """Write files with image names that are not images."""
    folder.mkdir(parents=True, exist_ok=True)
    write_cell(secret / "UID_9_9_1_all.bmp")
    os.mkfifo(folder / "UID_11_1_1_all.bmp")
    (folder / "UID_12_1_1_all.bmp").symlink_to("/dev/zero")
    (folder / "UID_13_1_1_all.bmp").symlink_to(secret / "UID_9_9_1_all.bmp")
    (folder / "linked").symlink_to("/")
    (folder / "UID_14_1_1_all.bmp").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    with (folder / "UID_15_1_1_all.bmp").open("wb") as file:
        file.truncate(2**33)


def test_audit_of_an_untrusted_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = cells(tmp_path / "cells")
    beside(root / ODD / "fold_0/all", tmp_path / "secret")
    assert main(["data", "data=cnmc", f"data.root={root}", f"outputs={tmp_path / 'out'}"]) == 1
    printed = capsys.readouterr().out
    for number, message in ((11, "pipe"), (12, "leads out"), (13, "leads out"), (14, "cannot be")):
        assert f"UID_{number}_1_1_all.bmp: " in printed
        assert message in printed.partition(f"UID_{number}_1_1_all.bmp: ")[2][:200]
    assert (
        "fold_0/all/linked: a link that leads out of the folder, to /; put the folder itself"
        in printed
    )
    assert "UID_9_9_1" not in printed.replace(str(tmp_path / "secret/UID_9_9_1_all.bmp"), "")
    page = (tmp_path / "out/data/cnmc/audit.html").read_text()
    assert "<b>" not in page
    assert html.escape("<b>$\\frac$") in page


def test_such_a_folder_beside_a_run(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "new"
    beside(images, tmp_path / "secret")
    write_cell(images / "cell.bmp")
    options = [f"outputs={tmp_path / 'out'}", "overlays=1", "familiarity=false", "trainer=cpu"]
    assert main(["predict", f"run={fitted}", f"images={images}", *options]) == 1
    (table,) = tmp_path.glob("out/predictions/new/*/predictions.csv")
    with table.open(newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert [name for name, row in rows.items() if not row["problem"]] == ["cell.bmp"]
    assert len(rows) == 7
    assert main(["explain", f"run={fitted}", f"images={images}", "trainer=cpu"]) == 2
    assert "UID_11_1_1_all.bmp: a pipe" in capsys.readouterr().err
    assert Record.read(fitted).status == "complete"
