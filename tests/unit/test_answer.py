"""The first sentence of a report: do synthetic images help?"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sweeps import BETTER, RUN, SYNTHETIC, UNCLEAR, WORSE, compared, varied, write_sweep

from leuk.report.answer import answer
from leuk.report.comparisons import Comparison, compare
from leuk.report.facts import common_overrides
from leuk.report.load import read_results
from leuk.runs.record import RunId

Found = tuple[float, float, float] | None


def minus(run: RunId, other: str, found: Found) -> Comparison:
    family = "augmentation" if other == "none" else "control"
    return compared(family, run, varied(run, augmentation=other), found)


@pytest.mark.parametrize(
    ("none", "oversample", "weights", "conclusion", "text"),
    [
        (BETTER, BETTER, BETTER, "helps", "Yes, for cnn-dcgan"),
        (
            BETTER,
            BETTER,
            UNCLEAR,
            "in part",
            "but not significantly better than class weights and over",
        ),
        (BETTER, BETTER, None, "in part", "but not significantly better than oversampling (no GAN"),
        (BETTER, None, None, "in part", "no comparison with class weights and oversampling"),
        (WORSE, UNCLEAR, UNCLEAR, "harms", "worsen cnn-dcgan-folds"),
        (UNCLEAR, BETTER, BETTER, "not shown", "no significant gain or loss"),
        (None, BETTER, BETTER, "cannot say", "cannot answer"),
    ],
)
def test_the_answer(
    none: Found, oversample: Found, weights: Found, conclusion: str, text: str
) -> None:
    found = [minus(SYNTHETIC, "none", none)]
    for other, interval in (("oversample", oversample), ("class_weights", weights)):
        if interval is not None:
            found.append(minus(SYNTHETIC, other, interval))
    given = answer([], found, "mine")
    assert given.conclusion == conclusion
    assert text in given.headline
    lacks = conclusion == "cannot say" or None in (oversample, weights)
    assert bool(given.command) is lacks
    assert len(given.section.table) == (0 if none is None else len(found))


def test_the_answer_names_the_largest_and_the_detectable_difference() -> None:
    other = replace(SYNTHETIC, model="vit")
    found = [
        minus(SYNTHETIC, "none", UNCLEAR),
        minus(other, "none", (-0.2, 0.1, 1.0)),
        minus(other, "oversample", WORSE),
    ]
    first, weights, oversampling, detectable = answer([], found, "mine").sentences
    assert "-0.050 [-0.200, +0.100] (vit-dcgan-folds, Holm p 1.000)" in first
    assert "Compared with oversampling: 1 worse" in oversampling
    assert "No comparison with class weights" in weights
    assert "0.030" in detectable


def test_a_leaky_split_answers_nothing(tmp_path: Path) -> None:
    leaky = replace(SYNTHETIC, split="random", leaky=True)
    write_sweep(tmp_path, [leaky, varied(leaky, augmentation="none")], images=2)
    configurations = read_results(tmp_path).configurations
    given = answer(configurations, [minus(leaky, "none", BETTER)], "mine")
    assert given.conclusion == "cannot say"
    assert "leaks" in given.sentences[0]


@pytest.mark.parametrize("name", ["none", "dcgan"])
def test_the_command_that_completes_the_answer(tmp_path: Path, name: str) -> None:
    run_ids = [varied(RUN, augmentation=name, seed=seed) for seed in (0, 2)]
    run_ids.append(replace(run_ids[0], settings={"model.head": "prototype"}))
    write_sweep(tmp_path, run_ids, images=2)
    for run_id in run_ids:
        (tmp_path / run_id.folder / ".hydra").mkdir()
        overrides = ["name=old", "data.root=/my cells", "model=cnn", f"seed={run_id.seed}"]
        overrides += ["model.head=prototype"] if run_id.settings else []
        (tmp_path / run_id.folder / ".hydra/overrides.yaml").write_text(json.dumps(overrides))
    configurations = read_results(tmp_path).configurations
    given = answer(configurations, [], "mine", common_overrides(tmp_path, configurations))
    assert given.command == (
        "leuk train -m name=mine model=cnn "
        "augmentation=none,class_weights,oversample,cgan,dcgan,wgan 'data.root=/my cells' seed=0,2"
    )
    (tmp_path / run_ids[0].folder / ".hydra/overrides.yaml").unlink()
    assert common_overrides(tmp_path, configurations) == []


@pytest.mark.parametrize(("seeds", "once"), [((0,), True), ((0, 1), False)])
def test_a_note_warns_that_one_seed_shows_no_training_variation(
    tmp_path: Path, seeds: tuple[int, ...], once: bool
) -> None:
    write_sweep(
        tmp_path, [replace(one, seed=seed) for one in (RUN, SYNTHETIC) for seed in seeds], images=2
    )
    configurations = read_results(tmp_path).configurations
    text = answer(configurations, compare(configurations), "mine").section.markdown
    assert ("Every fold was trained with one seed" in text) is once
