"""The report's first sentence: does adding made cells help?"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sweeps import CELL, MADE, write_sweep

from leuk.evaluate.significance import Difference
from leuk.grid.run_id import RunId
from leuk.report.answer import answer
from leuk.report.comparisons import Comparison, compare
from leuk.report.results import Configuration, read_results
from leuk.report.run_facts import common_overrides

BETTER, WORSE, UNCLEAR = (0.01, 0.05, 0.01), (-0.05, -0.01, 0.01), (-0.01, 0.03, 0.2)


Found = tuple[float, float, float] | None


def compared(cell: RunId, other: str, found: Found, family: str = "control") -> Comparison:
    """A line with made cells against a line without, with this interval and Holm p."""
    groups = [Configuration(one, (), ()) for one in (cell, replace(cell, augmentation=other))]
    if found is None:
        return Comparison(family, *groups, 0, None, note="nothing in common")
    low, high, p = found
    result = Difference("auroc", (low + high) / 2, low, high, p, 0.03, 1, 1)
    return Comparison(family, *groups, 1, result, p)


@pytest.mark.parametrize(
    ("none", "oversample", "weights", "judgement", "said"),
    [
        (BETTER, BETTER, BETTER, "helps", "Yes, for cnn-dcgan"),
        (BETTER, BETTER, UNCLEAR, "in part", "not shown to do more than oversampling and class"),
        (BETTER, BETTER, None, "in part", "not shown to do more than oversampling, which"),
        (BETTER, None, None, "in part", "the sweep cannot say"),
        (WORSE, UNCLEAR, UNCLEAR, "harms", "make cnn-dcgan-folds worse"),
        (UNCLEAR, BETTER, BETTER, "not shown", "no model gains or loses"),
        (None, BETTER, BETTER, "cannot say", "cannot say"),
    ],
)
def test_the_answer(
    none: Found, oversample: Found, weights: Found, judgement: str, said: str
) -> None:
    found = [compared(MADE, "none", none, "augmentation")]
    for other, interval in (("oversample", oversample), ("class_weights", weights)):
        if interval is not None:
            found.append(compared(MADE, other, interval))
    given = answer([], found, "mine")
    assert given.judgement == judgement
    assert said in given.headline
    lacks = judgement == "cannot say" or None in (oversample, weights)
    assert bool(given.command) is lacks
    assert len(given.section.table) == (0 if none is None else len(found))


def test_the_answer_names_the_largest_difference_and_what_could_be_seen() -> None:
    other = replace(MADE, model="vit")
    found = [
        compared(MADE, "none", UNCLEAR, "augmentation"),
        compared(other, "none", (-0.2, 0.1, 1.0), "augmentation"),
        compared(other, "oversample", WORSE),
    ]
    first, oversampling, weights, seen = answer([], found, "mine").sentences
    assert "-0.050 [-0.200, +0.100] (vit-dcgan-folds, Holm p 1.000)" in first
    assert "Against oversampling: 1 worse" in oversampling
    assert "Against class weights nothing can be said" in weights
    assert "0.030" in seen


def test_a_leaky_split_answers_nothing(tmp_path: Path) -> None:
    leaky = replace(MADE, split="random_LEAKY")
    write_sweep(tmp_path, [leaky, replace(leaky, augmentation="none")])
    groups = read_results(tmp_path).groups
    given = answer(groups, [compared(leaky, "none", BETTER, "augmentation")], "mine")
    assert given.judgement == "cannot say"
    assert "leaks" in given.sentences[0]


@pytest.mark.parametrize("name", ["none", "dcgan"])
def test_what_to_run_for_an_answer(tmp_path: Path, name: str) -> None:
    cells = [replace(CELL, augmentation=name, seed=seed) for seed in (0, 2)]
    cells.append(replace(cells[0], variant="head_prototype"))
    write_sweep(tmp_path, cells)
    for cell in cells:
        (tmp_path / cell.folder / ".hydra").mkdir()
        told = ["name=old", "data.root=/my cells", "model=cnn", f"seed={cell.seed}"]
        told += ["model.head=prototype"] if cell.variant else []
        (tmp_path / cell.folder / ".hydra/overrides.yaml").write_text(json.dumps(told))
    groups = read_results(tmp_path).groups
    given = answer(groups, [], "mine", common_overrides(tmp_path, groups))
    assert given.command == (
        "leuk train -m name=mine model=cnn "
        "augmentation=none,oversample,class_weights,dcgan,wgan,cgan 'data.root=/my cells' seed=0,2"
    )
    (tmp_path / cells[0].folder / ".hydra/overrides.yaml").unlink()
    assert common_overrides(tmp_path, groups) == []


@pytest.mark.parametrize(("seeds", "once"), [((0,), True), ((0, 1), False)])
def test_that_training_varies_too_is_said_where_nobody_looked(
    tmp_path: Path, seeds: tuple[int, ...], once: bool
) -> None:
    write_sweep(tmp_path, [replace(one, seed=seed) for one in (CELL, MADE) for seed in seeds])
    groups = read_results(tmp_path).groups
    text = answer(groups, compare(groups), "mine").section.markdown
    assert ("Every fold was fitted with one seed" in text) is once
