from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sweeps import RUN, predictions, varied, write_run

from leuk.report.load import read_results
from leuk.report.thesis import TABLES, thesis_section

# Of 100 healthy cells 30 are called healthy, of 200 leukemic ones 180 leukemic.
CALLED = {(0, 0): 30, (0, 1): 70, (1, 0): 20, (1, 1): 180}


def two_by_two() -> pd.DataFrame:
    labels, called = np.repeat(np.array(list(CALLED)), list(CALLED.values()), axis=0).T
    table = pd.DataFrame({"label": labels, "score": np.where(called, 0.9, 0.2)})
    numbers = table.index.to_series()
    table["path"] = numbers.map("{:03d}.bmp".format)
    table["patient"] = (numbers % 10).astype(str) + "-" + table["label"].astype(str)
    table["calibrated"] = table["score"]
    return pd.concat([table.assign(stage=name) for name in ("val", "test")])


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    write_run(tmp_path, RUN, two_by_two())
    return tmp_path


def test_published_and_ours_stand_side_by_side(sweep: Path) -> None:
    section = thesis_section(read_results(sweep).configurations)
    table = section.table.set_index(["metric", "augmentation"])
    ours = table["ours"].xs("none", level="augmentation")
    expected = {"sensitivity": 0.3, "specificity": 0.9, "auc": 0.6, "accuracy": 0.7}
    assert ours[list(expected)].tolist() == pytest.approx(list(expected.values()))
    sensitivity = table.loc[("sensitivity", "none")]
    assert (sensitivity["published"], sensitivity["ours"]) == (0.194, pytest.approx(0.3))
    assert "HEALTHY" in sensitivity["averaging_or_note"]
    assert pd.isna(table.loc[("auc", "dcgan"), "ours"])
    assert table.loc[("auc", "dcgan"), "published"] == 0.556
    (row,) = (line for line in section.markdown.splitlines() if line.startswith("| sensitivity"))
    assert [text.strip() for text in row.split("|")[2:4]] == ["0.194", "0.300"]
    assert row.rstrip(" |").endswith("recall of HEALTHY cells (hem was positive)")


def test_the_average_is_that_of_the_neighbor(tmp_path: Path) -> None:
    for augmentation in ("none", "cgan"):
        run_id = varied(RUN, model="hybrid", augmentation=augmentation)
        write_run(tmp_path, run_id, two_by_two())
    figures = thesis_section(read_results(tmp_path).configurations).table
    precision = figures[figures["metric"] == "precision"].set_index("augmentation")
    assert precision.loc["none", "averaging_or_note"] == "weighted"
    assert precision.loc["none", "ours"] == pytest.approx((0.6 + 2 * 0.72) / 3)
    assert precision.loc["cgan", "averaging_or_note"] == "macro"
    assert precision.loc["cgan", "ours"] == pytest.approx(0.66)


def test_problems_and_missing_models_are_named(sweep: Path) -> None:
    text = thesis_section(read_results(sweep).configurations).markdown
    assert "**These tables use the convention of the thesis" in text
    assert "- Healthy is the positive class" in text
    assert "## Table 3: cnn, folds" in text
    for number in (4, 5):
        assert f"## Table {number}: {TABLES[number]}\n\nNot in this sweep." in text


def test_untested_ideas_and_other_augmentations_are_excluded(tmp_path: Path) -> None:
    for run_id in (
        replace(RUN, settings={"model.head": "prototype"}),
        varied(RUN, augmentation="oversample"),
    ):
        write_run(tmp_path, run_id, predictions(run_id))
    assert thesis_section(read_results(tmp_path).configurations).table.empty
