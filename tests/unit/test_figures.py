from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sweeps import CELL, predictions, write_run, write_sweep

from leuk.report.comparisons import compare
from leuk.report.drawing import by_model, save_figure
from leuk.report.figures import (
    confusion,
    confusion_figure,
    differences_figure,
    per_subject_figure,
    roc_figure,
    write_figures,
)
from leuk.report.results import Group, read_results
from leuk.report.sweep_report import write_report

NAMES = ("roc", "precision_recall", "reliability", "confusion", "per_subject", "differences")


@pytest.fixture
def groups(tmp_path: Path) -> list[Group]:
    cells = [CELL, replace(CELL, seed=1), replace(CELL, augmentation="dcgan")]
    write_sweep(tmp_path, [*cells, replace(CELL, model="vit")])
    return list(read_results(tmp_path).groups)


def test_every_figure_is_written_as_picture_and_for_print(
    groups: list[Group], tmp_path: Path
) -> None:
    folder = tmp_path / "figures"
    paths = write_figures(folder, groups, compare(groups))
    assert {path.name for path in paths} == {f"{n}.{s}" for n in NAMES for s in ("png", "pdf")}
    assert sorted(paths) == sorted(folder.iterdir())
    for path in folder.glob("*.png"):
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.std() > 5, path.name
    for path in folder.glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF")


def test_a_report_has_every_section_twice_and_the_figures(tmp_path: Path) -> None:
    write_run(tmp_path, CELL)
    write_report(tmp_path)
    names = {"table", "verdicts", "comparisons", "thesis_tables", "costs", "area"}
    found = {path.name for path in (tmp_path / "report").iterdir()}
    assert found == {f"{name}.{suffix}" for name in names for suffix in ("md", "csv")} | {"figures"}
    drawn = {path.stem for path in (tmp_path / "report/figures").iterdir()}
    assert drawn == set(NAMES)


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    assert write_figures(tmp_path / "figures", [Group(CELL, (), ())], []) == []


def test_a_figure_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    class Broken(Figure):
        def savefig(self, *arguments: object, **options: object) -> None:
            raise RuntimeError("the disk is full")

    (tmp_path / "roc.png").write_text("old")
    with pytest.raises(RuntimeError, match="full"):
        save_figure(Broken(), tmp_path, "roc")
    assert [path.name for path in tmp_path.iterdir()] == ["roc.png"]
    assert (tmp_path / "roc.png").read_text() == "old"


def test_augmentations_of_a_model_share_a_panel(groups: list[Group]) -> None:
    assert list(by_model(groups)) == ["cnn", "vit"]
    cnn, vit = (ax for ax in roc_figure(groups).axes if ax.get_title())
    assert [line.get_label() for line in cnn.lines[:3]] == ["area alone", "none", "dcgan"]
    assert len(vit.lines) == 3
    styles = {(line.get_color(), line.get_linestyle()) for line in cnn.lines[1:3]}
    assert len(styles) == 2


def test_lines_of_one_augmentation_are_told_apart_by_their_settings(tmp_path: Path) -> None:
    made = replace(CELL, augmentation="dcgan")
    cells = [replace(made, variant=f"gan_fit.epochs_{number}") for number in (3, 5)]
    write_sweep(tmp_path, cells)
    groups = list(read_results(tmp_path).groups)
    assert list(by_model(groups)) == ["cnn"]
    (ax,) = roc_figure(groups).axes
    assert [line.get_label() for line in ax.lines[1:3]] == [group.title for group in groups]


def test_counts_are_summed_over_runs_at_their_own_thresholds(groups: list[Group]) -> None:
    group = groups[0]
    assert len(group.runs) == 2
    for cut in ("default", "youden"):
        counts = np.zeros((2, 2))
        for run in group.runs:
            table = predictions(run.cell).query("part == 'test'")
            called = table["score"] >= run.thresholds[cut]
            for label in (0, 1):
                own = called[table["label"] == label]
                counts[label] += [(~own).sum(), own.sum()]
        np.testing.assert_array_equal(confusion(group, cut), counts)
    texts = [text.get_text() for text in confusion_figure([group]).axes[0].texts]
    share = confusion(group, "default")[1, 1] / 400
    assert f"{share:.2f}\n{confusion(group, 'default')[1, 1]:.0f}" in texts


def test_a_dot_a_person(groups: list[Group]) -> None:
    (ax,) = per_subject_figure(groups).axes
    dots = [len(np.asarray(points.get_offsets())) for points in ax.collections]
    assert dots == [4, 10] * len(groups)
    assert [label.get_text() for label in ax.get_yticklabels()] == [g.title for g in groups]


def test_a_row_a_difference(groups: list[Group]) -> None:
    comparisons = compare(groups)
    (ax,) = differences_figure(comparisons).axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert {one.title for one in comparisons} <= set(names)
    assert len(names) == len(comparisons) + len({one.family for one in comparisons})


def test_many_groups_have_a_panel_each(tmp_path: Path) -> None:
    table = predictions(CELL, cells=5)
    for number in range(14):
        cell = replace(CELL, variant=f"lr_{number}")
        write_run(tmp_path, cell, table)
    groups = read_results(tmp_path).groups
    figure = confusion_figure(groups)
    titles = [ax.get_title() for ax in figure.axes if ax.axison]
    assert titles == [group.title for group in groups]
    assert figure.get_figheight() > 10
