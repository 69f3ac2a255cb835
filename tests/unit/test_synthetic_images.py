"""Synthetic images of a sweep: their quality, numbers, examples and warnings in the report."""

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
from drawn_images import cells
from omegaconf import DictConfig, OmegaConf
from sweeps import SYNTHETIC, predictions, write_run

from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.data.phantom import make_phantom
from leuk.data.rules import Folds
from leuk.errors import StoreError
from leuk.metrics.arrays import Images
from leuk.report.gans import contact_sheet, quality_records, quality_section, synthetic_section
from leuk.runs.gan import Synthetic, cached_quality, quality_warnings
from leuk.runs.record import Record


def recorded_set(sweep: Path) -> Record:
    """The record of a run with ten synthetic images in an artifact."""
    folder = sweep.parent.parent / "artifacts/synthetic/0123"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (10, 8, 8, 3), np.uint8)
    np.save(folder / "images.npy", pixels)
    pd.DataFrame({"label": [0] * 6 + [1] * 4}).to_csv(folder / "origin.csv")
    synthetic = {"counts": {"hem": 6, "all": 4}, "gans": ["feed"], "artifact": "elsewhere/0123"}
    return write_run(
        sweep, SYNTHETIC, predictions(SYNTHETIC, images=5), data={"synthetic": synthetic}
    )


def test_synthetic_images_are_shown_and_counted(tmp_path: Path) -> None:
    sweep = tmp_path / "runs/s"
    record = recorded_set(sweep)
    sheet = contact_sheet(sweep, [record, record])
    assert sheet is not None
    assert "dcgan hem, dcgan all" in sheet.alt
    assert len(sheet.draw().axes[0].images) == 2
    section = synthetic_section([record, record])
    assert section.table[["class", "images"]].to_numpy().tolist() == [["hem", 6], ["all", 4]]
    quality = quality_section(sweep, [record, record]).markdown
    assert "Not evaluated" in quality
    assert "1.274" in quality
    (tmp_path / "artifacts/synthetic/0123/images.npy").write_bytes(b"no")
    assert contact_sheet(sweep, [record]) is None


def quality_of(extractor: str, distance: float) -> dict[str, Any]:
    """The smallest quality report of one class of synthetic images."""
    row = {"precision": 0.5, "kernel_distance": distance}
    names = ("synthetic", "real", "other_class", "mean_image", "black")
    return {
        "extractor": extractor,
        "n": 6,
        "rows": dict.fromkeys(names, row),
        "memorization": {name: {"closer_share": 0.01} for name in ("features", "pixels")},
        "usefulness": {"synthetic": 0.7, "real": 0.9},
        "warnings": ["all black"],
    }


def test_quality_from_records_is_shown(tmp_path: Path) -> None:
    sweep = tmp_path / "runs/s"
    record = recorded_set(sweep)
    own = {
        "held_out": "val",
        "quality_artifact": "77",
        "quality": {"hem": quality_of("cell measures", 0.5)},
    }
    record.data["synthetic"] |= own
    text = quality_section(sweep, [record]).markdown
    assert "features: cell measures" in text
    assert "| dcgan (folds fold 0 seed 0) " in text
    assert "class score" not in text  # measures have no classes
    assert "all black" in text
    assert "leuk synthesize" in text
    kept = tmp_path / "artifacts/quality/77"
    kept.mkdir(parents=True)
    shown = np.zeros((2, 8, 8, 3), np.uint8)
    np.savez(kept / "images_hem.npz", real=shown, synthetic=shown)
    sheet = contact_sheet(sweep, [record])
    assert sheet is not None
    assert "real hem, dcgan hem" in sheet.alt
    del record.data["synthetic"]["quality"]["hem"]["rows"]["black"]
    text = quality_section(sweep, [record]).markdown
    assert "unreadable quality of its synthetic images: KeyError('black')" in text


def another_set(record: Record, **changes: Any) -> Record:
    """A record of another set of synthetic images."""
    other = deepcopy(record)
    other.run = replace(record.run, **{k: v for k, v in changes.items() if k != "synthetic"})
    other.data["synthetic"] |= changes.get("synthetic", {})
    return other


def test_quality_of_each_fold_has_its_own_references(tmp_path: Path) -> None:
    sweep = tmp_path / "runs/s"
    first = recorded_set(sweep)
    first.data["synthetic"] |= {"quality": {"hem": quality_of("cell measures", 0.5)}}
    second = another_set(
        first,
        fold=1,
        settings={"split.n_folds": 3},
        synthetic={"artifact": "2", "quality": {"hem": quality_of("cell measures", 0.7)}},
    )
    section = quality_section(sweep, [first, second])
    for fold in (0, 1):
        assert (
            f"real, training images (best achievable) (folds fold {fold} seed 0)"
            in section.markdown
        )
    assert sorted(section.table["kernel_distance"].unique()) == [0.5, 0.7]


def test_the_record_with_quality_represents_a_set(tmp_path: Path) -> None:
    old = recorded_set(tmp_path / "runs/s")
    new = another_set(
        old, model="vit", synthetic={"quality": {"hem": quality_of("cell measures", 0.5)}}
    )
    assert quality_records([old, new]) == [new]
    assert quality_records([new, old]) == [new]


def test_synthesis_of_a_class_keeps_quality_of_the_other(tmp_path: Path) -> None:
    sweep = tmp_path / "runs/s"
    record = recorded_set(sweep)
    classes = {"hem": quality_of("cell measures", 0.5), "all": quality_of("cell measures", 0.625)}
    record.data["synthetic"]["quality"] = classes
    folder = tmp_path / "synthetic/mine/cgan-mine"
    folder.mkdir(parents=True)
    report = {
        "artifacts": ["feed"],
        "held_out": "test",
        "quality": {"hem": quality_of("lite0", 0.25)},
    }
    (folder / "quality.json").write_text(json.dumps(report))
    table = quality_section(sweep, [record]).table
    found = table[table["row"] == "synthetic"].set_index("class")["kernel_distance"].to_dict()
    assert found == {"hem": 0.25, "all": 0.625}


def test_malformed_kept_images_are_skipped(tmp_path: Path) -> None:
    sweep = tmp_path / "runs/s"
    record = recorded_set(sweep)
    record.data["synthetic"]["quality_artifact"] = "77"
    path = tmp_path / "artifacts/quality/77/images_hem.npz"
    path.parent.mkdir(parents=True)
    for shape in ((), (2,), (0, 8, 8, 3), (2, 8, 8, 7)):
        odd = np.zeros(shape, np.uint8)
        np.savez(path, real=odd, synthetic=odd)
        sheet = contact_sheet(sweep, [record])
        assert sheet is not None
        assert "real" not in sheet.alt
    path.unlink()
    os.mkfifo(path)  # reading it would block
    assert contact_sheet(sweep, [record]) is not None


def test_quality_reports_are_matched_by_artifact(tmp_path: Path) -> None:
    sweep = tmp_path / "runs/s"
    record = recorded_set(sweep)
    quality = quality_of("lite0", 0.25)
    for name, gan in (("mine", "feed"), ("others", "dead"), ("broken", "")):
        folder = tmp_path / f"synthetic/{name}/dcgan-{name}"
        folder.mkdir(parents=True)
        report = {"artifacts": [gan], "held_out": "test", "quality": {"hem": quality}}
        (folder / "quality.json").write_text(json.dumps(report) if gan else "{")
    text = quality_section(sweep, [record]).markdown
    assert "dcgan-mine" in text
    assert "0.250" in text
    assert "dcgan-others" not in text
    assert "broken/dcgan-broken/quality.json: cannot be read" in text
    other = tmp_path / "synthetic/again/dcgan-mine"
    other.mkdir(parents=True)
    found = {"artifacts": ["feed"], "held_out": "test", "quality": {"hem": quality_of("own", 0.75)}}
    (other / "quality.json").write_text(json.dumps(found))
    text = quality_section(sweep, [record]).markdown
    assert "0.250" in text
    assert "0.750" in text


@pytest.fixture(scope="module")
def data(artifacts: Path) -> CNMCDataModule:
    """Phantom images, enough to hold out ten of each class."""
    root = make_phantom(artifacts / "more", images_per_fold=160, size=64, seed=0)
    split = Folds(["fold_0"], 0.4, ["fold_1"])
    opened = CNMCDataModule(str(root), split, resolution=32, batch_size=16, cache=str(artifacts))
    opened.prepare_data()
    opened.setup()
    return opened


def added(pixels: Images) -> Synthetic:
    origin = pd.DataFrame({"label": int(Label.HEM), "gan": "feed", "seed": 0}, range(len(pixels)))
    return Synthetic(pixels, origin, Path(f"{zlib.crc32(pixels.tobytes()):08x}"))


def config(outputs: Path) -> DictConfig:
    return OmegaConf.create({"outputs": str(outputs), "seed": 0})


def training_images(data: CNMCDataModule) -> Images:
    stage = data.stage("train")
    rows = stage.index.to_numpy()[(stage["label"] == Label.HEM).to_numpy()]
    return np.asarray(data.dataset.data[rows])


def test_noise_and_copies_are_detected_without_a_network(
    data: CNMCDataModule, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), np.uint8)
    found = cached_quality(config(tmp_path), data, added(noise))
    assert found["held_out"] == "val"
    poor = "dcgan hem: most kinds of real images have no similar"
    assert any(poor in text for text in quality_warnings(found, "dcgan"))
    copied = added(training_images(data))
    warnings = quality_warnings(cached_quality(config(tmp_path), data, copied), "dcgan")
    assert not any(poor in text for text in warnings)
    assert any("copies" in text for text in warnings)


def test_quality_is_computed_once_for_all_models_on_the_same_images(
    data: CNMCDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic = added(cells(30, 0))
    first = cached_quality(config(tmp_path), data, synthetic)
    (kept,) = (tmp_path / "artifacts/quality").glob("[!.]*")
    assert kept.name == first["quality_artifact"]
    assert np.load(kept / "images_hem.npz")["synthetic"].shape == (12, 32, 32, 3)
    with monkeypatch.context() as patched:
        patched.setattr("leuk.runs.gan.assess_quality", None)
        assert cached_quality(config(tmp_path), data, synthetic) == first
        patched.setattr(data, "split", replace(data.split, train=data.split.train[2:]))
        with pytest.raises(TypeError):  # other training images: assess_quality is called
            cached_quality(config(tmp_path), data, synthetic)
    for text in ("{", "[]", '{"hem": 5}', '{"hem": {}}'):
        (kept / "quality.json").write_text(text)
        (kept / "artifact.json").write_text('{"files": {}}')
        with pytest.raises(StoreError, match="no readable quality of synthetic images"):
            cached_quality(config(tmp_path), data, synthetic)


def test_too_few_images_are_not_evaluated_but_searched_for_copies(
    data: CNMCDataModule, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    synthetic = cells(9, 0)
    assert cached_quality(config(tmp_path), data, added(synthetic)) == {"copies": {"hem": 0}}
    assert "synthetic images are not evaluated: fewer than 10 images of a class" in caplog.text
    synthetic[4] = training_images(data)[2, :, ::-1]
    found = cached_quality(config(tmp_path), data, added(synthetic))
    assert found == {"copies": {"hem": 1}}
    assert quality_warnings(found, "wgan") == [
        "wgan: not evaluated, too few real or synthetic images to compare",
        "wgan hem: 1 synthetic image is a copy of a training image, exact to about one gray level",
    ]
    assert not (tmp_path / "artifacts").exists()
