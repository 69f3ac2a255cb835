"""Made cells of a sweep: judged as they are added, counted, shown and warned of in the report."""

import json
import os
import zlib
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn_cells import cells
from omegaconf import DictConfig, OmegaConf
from sweeps import MADE, predictions, write_run

from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.data.phantom import make_phantom
from leuk.data.rules import Folds
from leuk.errors import StoreError
from leuk.evaluate.vectors import Images
from leuk.grid.record import Record
from leuk.report.made_cells import contact_sheet, made_section
from leuk.report.made_quality import made_with_gans, quality_section
from leuk.report.remarks import kind_of
from leuk.runs.made_quality import judged_once, told_of
from leuk.runs.synthesis import Synthetic


def made(sweep: Path) -> Record:
    """A cell with ten made cells in an artefact."""
    folder = sweep.parent.parent / "artefacts/synthetic/0123"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (10, 8, 8, 3), np.uint8)
    np.save(folder / "cells.npy", pixels)
    pd.DataFrame({"label": [0] * 6 + [1] * 4}).to_csv(folder / "origin.csv")
    synthetic = {"counts": {"hem": 6, "all": 4}, "gans": ["feed"], "cells": "elsewhere/0123"}
    return write_run(sweep, MADE, predictions(MADE, cells=5), data={"synthetic": synthetic})


def test_made_cells_are_shown_and_counted(tmp_path: Path) -> None:
    sweep = tmp_path / "runs/s"
    record = made(sweep)
    sheet = contact_sheet(sweep, [record, record])
    assert sheet is not None
    assert "dcgan hem, dcgan all" in sheet.alt[0]
    assert len(sheet.draw().axes[0].images) == 2
    section = made_section([record, record])
    assert section.table[["class", "cells"]].to_numpy().tolist() == [["hem", 6], ["all", 4]]
    quality = quality_section(sweep, [record, record]).markdown
    assert "Not judged" in quality
    assert "1.274" in quality
    (tmp_path / "artefacts/synthetic/0123/cells.npy").write_bytes(b"no")
    assert contact_sheet(sweep, [record]) is None


def quality_of(extractor: str, distance: float) -> dict[str, Any]:
    """What was found of one class of made cells, the least a report needs."""
    row = {"precision": 0.5, "kernel_distance": distance}
    names = ("made", "real", "other_class", "mean_cell", "black")
    return {
        "extractor": extractor,
        "n": 6,
        "rows": dict.fromkeys(names, row),
        "memorisation": {name: {"closer_share": 0.01} for name in ("features", "pixels")},
        "usefulness": {"made": 0.7, "real": 0.9},
        "warnings": ["all black"],
    }


def test_what_a_sweep_found_of_its_own_made_cells_is_shown(tmp_path: Path) -> None:
    sweep = tmp_path / "runs/s"
    record = made(sweep)
    own = {"held_out": "val", "judged": "77", "quality": {"hem": quality_of("cell measures", 0.5)}}
    record.data["synthetic"] |= own
    text = quality_section(sweep, [record]).markdown
    assert "features of cell measures" in text
    assert "| dcgan (folds fold 0 seed 0) " in text
    assert "class score" not in text  # measures have no classes
    assert "all black" in text
    assert "leuk synthesize" in text
    kept = tmp_path / "artefacts/quality/77"
    kept.mkdir(parents=True)
    shown = np.zeros((2, 8, 8, 3), np.uint8)
    np.savez(kept / "cells_hem.npz", real=shown, made=shown)
    sheet = contact_sheet(sweep, [record])
    assert sheet is not None
    assert "real hem, dcgan hem" in sheet.alt[0]
    del record.data["synthetic"]["quality"]["hem"]["rows"]["black"]
    text = quality_section(sweep, [record]).markdown
    assert "quality of its made cells: KeyError('black')" in text


def judged_again(record: Record, **changes: Any) -> Record:
    """A record of another set of made cells."""
    other = deepcopy(record)
    other.cell = replace(record.cell, **{k: v for k, v in changes.items() if k != "synthetic"})
    other.data["synthetic"] |= changes.get("synthetic", {})
    return other


def test_figures_of_each_fold_stand_beside_their_own_floor(tmp_path: Path) -> None:
    sweep = tmp_path / "runs/s"
    first = made(sweep)
    first.data["synthetic"] |= {"quality": {"hem": quality_of("cell measures", 0.5)}}
    second = judged_again(
        first,
        variant="fold_1-n_folds_3",
        synthetic={"cells": "2", "quality": {"hem": quality_of("cell measures", 0.7)}},
    )
    section = quality_section(sweep, [first, second])
    for fold in (0, 1):
        assert f"real, trained on (the floor) (folds fold {fold} seed 0)" in section.markdown
    assert sorted(section.table["kernel_distance"].unique()) == [0.5, 0.7]


def test_the_record_that_says_more_of_a_set_stands_for_it(tmp_path: Path) -> None:
    old = made(tmp_path / "runs/s")
    new = judged_again(
        old, model="vit", synthetic={"quality": {"hem": quality_of("cell measures", 0.5)}}
    )
    assert made_with_gans([old, new]) == [new]
    assert made_with_gans([new, old]) == [new]


def test_synthesis_of_one_class_hides_nothing_of_the_other(tmp_path: Path) -> None:
    sweep = tmp_path / "runs/s"
    record = made(sweep)
    classes = {"hem": quality_of("cell measures", 0.5), "all": quality_of("cell measures", 0.625)}
    record.data["synthetic"]["quality"] = classes
    folder = tmp_path / "synthetic/mine/cgan-mine"
    folder.mkdir(parents=True)
    told = {
        "artefacts": ["feed"],
        "held_out": "test",
        "quality": {"hem": quality_of("lite0", 0.25)},
    }
    (folder / "quality.json").write_text(json.dumps(told))
    table = quality_section(sweep, [record]).table
    found = table[table["row"] == "made"].set_index("class")["kernel_distance"].to_dict()
    assert found == {"hem": 0.25, "all": 0.625}


@pytest.mark.parametrize("shape", [(), (2,), (0, 8, 8, 3), (2, 8, 8, 7)])
def test_odd_kept_cells_are_left_out(tmp_path: Path, shape: tuple[int, ...]) -> None:
    sweep = tmp_path / "runs/s"
    record = made(sweep)
    record.data["synthetic"]["judged"] = "77"
    kept = tmp_path / "artefacts/quality/77"
    kept.mkdir(parents=True)
    odd = np.zeros(shape, np.uint8)
    np.savez(kept / "cells_hem.npz", real=odd, made=odd)
    sheet = contact_sheet(sweep, [record])
    assert sheet is not None
    assert "real" not in sheet.alt[0]


def test_a_fifo_among_kept_cells_does_not_hang_the_report(tmp_path: Path) -> None:
    sweep = tmp_path / "runs/s"
    record = made(sweep)
    record.data["synthetic"]["judged"] = "77"
    kept = tmp_path / "artefacts/quality/77"
    kept.mkdir(parents=True)
    os.mkfifo(kept / "cells_hem.npz")
    assert contact_sheet(sweep, [record]) is not None


def test_made_cells_unlike_real_ones_are_warned_of() -> None:
    assert kind_of("made cells: dcgan hem: all black") == "made"


def test_gans_judged_elsewhere_are_found_by_their_artefact(tmp_path: Path) -> None:
    sweep = tmp_path / "runs/s"
    record = made(sweep)
    quality = quality_of("lite0", 0.25)
    for name, gan in (("mine", "feed"), ("others", "dead"), ("broken", "")):
        folder = tmp_path / f"synthetic/{name}/dcgan-{name}"
        folder.mkdir(parents=True)
        told = {"artefacts": [gan], "held_out": "test", "quality": {"hem": quality}}
        (folder / "quality.json").write_text(json.dumps(told) if gan else "{")
    text = quality_section(sweep, [record]).markdown
    assert "dcgan-mine" in text
    assert "0.250" in text
    assert "dcgan-others" not in text
    assert "broken/dcgan-broken/quality.json: cannot be read" in text
    other = tmp_path / "synthetic/again/dcgan-mine"
    other.mkdir(parents=True)
    found = {"artefacts": ["feed"], "held_out": "test", "quality": {"hem": quality_of("own", 0.75)}}
    (other / "quality.json").write_text(json.dumps(found))
    text = quality_section(sweep, [record]).markdown
    assert "0.250" in text
    assert "0.750" in text


@pytest.fixture(scope="module")
def data(artefacts: Path) -> CNMCDataModule:
    """Enough stand-in cells that ten of each class are held out."""
    root = make_phantom(artefacts / "more", cells_per_part=160, size=64, seed=0)
    split = Folds(["fold_0"], 0.4, ["fold_1"])
    opened = CNMCDataModule(str(root), split, resolution=32, batch_size=16, cache=str(artefacts))
    opened.prepare_data()
    opened.setup()
    return opened


def added(pixels: Images) -> Synthetic:
    origin = pd.DataFrame({"label": int(Label.HEM), "gan": "feed", "seed": 0}, range(len(pixels)))
    return Synthetic(pixels, origin, Path(f"{zlib.crc32(pixels.tobytes()):08x}"))


def config(outputs: Path) -> DictConfig:
    return OmegaConf.create({"outputs": str(outputs), "seed": 0})


def training_cells(data: CNMCDataModule) -> Images:
    part = data.part("train")
    rows = part.index.to_numpy()[(part["label"] == Label.HEM).to_numpy()]
    return np.asarray(data.dataset.data[rows])


def test_noise_is_told_from_cells_without_a_network(data: CNMCDataModule, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), np.uint8)
    told = judged_once(config(tmp_path), data, added(noise))
    assert told["held_out"] == "val"
    warnings = told_of(told, "dcgan")
    assert any("dcgan hem: most kinds of real cells have no made" in text for text in warnings)
    good = judged_once(config(tmp_path), data, added(training_cells(data)))
    assert not any("kinds of real cells" in text for text in told_of(good, "dcgan"))
    # They are the training cells themselves.
    assert any("copies" in text for text in told_of(good, "dcgan"))


def test_cells_are_judged_once_for_all_models(
    data: CNMCDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = added(cells(30, 0))
    first = judged_once(config(tmp_path), data, made)
    (kept,) = (tmp_path / "artefacts/quality").glob("[!.]*")
    assert kept.name == first["judged"]
    assert np.load(kept / "cells_hem.npz")["made"].shape == (12, 32, 32, 3)
    monkeypatch.setattr("leuk.runs.made_quality.judge", None)
    assert judged_once(config(tmp_path), data, made) == first


def test_another_training_part_is_another_judgement(
    data: CNMCDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = added(cells(30, 0))
    before = judged_once(config(tmp_path), data, made)
    monkeypatch.setattr(data, "split", replace(data.split, train=data.split.train[2:]))
    after = judged_once(config(tmp_path), data, made)
    assert before["judged"] != after["judged"]


def test_a_judgement_from_somebody_else_is_refused(data: CNMCDataModule, tmp_path: Path) -> None:
    made = added(cells(30, 0))
    folder = tmp_path / "artefacts/quality" / judged_once(config(tmp_path), data, made)["judged"]
    for text in ("{", "[]", '{"hem": 5}', '{"hem": {}}'):
        (folder / "quality.json").write_text(text)
        (folder / "artefact.json").write_text('{"files": {}}')
        with pytest.raises(StoreError, match="no readable quality of synthetic images"):
            judged_once(config(tmp_path), data, made)


def test_too_few_cells_are_not_judged_and_that_is_said(
    data: CNMCDataModule, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = judged_once(config(tmp_path), data, added(cells(9, 0)))
    assert told == {"copies": {"hem": 0}}
    assert "synthetic images are not evaluated: fewer than 10 images of a class" in caplog.text
    assert told_of(told, "wgan") == [
        "made cells: wgan: not evaluated, too few real or synthetic images to compare"
    ]
    assert not (tmp_path / "artefacts").exists()


def test_copies_are_reported_where_too_few_cells_are_judged(
    data: CNMCDataModule, tmp_path: Path
) -> None:
    made = cells(9, 0)
    made[4] = training_cells(data)[2, :, ::-1]
    told = judged_once(config(tmp_path), data, added(made))
    assert told == {"copies": {"hem": 1}}
    assert told_of(told, "wgan")[1:] == [
        "made cells: wgan hem: 1 synthetic image is a copy of a training image, "
        "exact to about one grey level"
    ]


def test_a_single_copy_is_in_the_record_s_warnings(data: CNMCDataModule, tmp_path: Path) -> None:
    made = cells(100, 9)
    made[13] = training_cells(data)[5]
    told = told_of(judged_once(config(tmp_path), data, added(made)), "dcgan")
    assert any(text.startswith("made cells: dcgan hem: 1 synthetic image is") for text in told)
