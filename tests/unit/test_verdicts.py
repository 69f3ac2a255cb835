"""Verdicts on the hypotheses, from comparisons with given intervals."""

from dataclasses import replace
from typing import Any

import pytest
from sweeps import BETTER, COST, RUN, UNCLEAR, WORSE, compared, varied

from leuk.config.schema import ReportConfig
from leuk.metrics.comparison import Difference
from leuk.report.comparisons import Comparison
from leuk.report.costs import Cost
from leuk.report.load import Configuration
from leuk.report.verdicts import (
    FAITHFULNESS,
    HYPOTHESES,
    LATENCY_MS,
    Verdict,
    verdicts,
    verdicts_section,
)
from leuk.runs.record import Record, RunId

Found = tuple[float, float, float] | None

CNN, VIT, HYBRID, ENSEMBLE = (
    replace(RUN, model=model) for model in ("cnn", "vit", "hybrid", "ensemble")
)
SYNTHETIC = varied(HYBRID, augmentation="dcgan")


def verdict_on(
    hypothesis: str,
    found: list[Comparison],
    costs: dict[RunId, Cost] | None = None,
    limit: float = LATENCY_MS,
) -> Verdict:
    decided = [one for one in verdicts(found, costs or {}, limit) if one.hypothesis == hypothesis]
    (one,) = decided
    return one


# --- H1


def latency(low: float | None, high: float | None, value: float = 50.0) -> Cost:
    return COST | {"latency_ms": value, "latency_ms_low": low, "latency_ms_high": high}


FAST, SLOW = latency(40.0, 60.0), latency(140.0, 190.0, 160.0)


def with_gan(gan: str, against_cnn: Found) -> list[Comparison]:
    synthetic = varied(HYBRID, augmentation=gan)
    return [
        compared("gan_hybrid", synthetic, CNN, against_cnn),
        compared("gan_hybrid", synthetic, VIT, BETTER),
        compared("model", synthetic, varied(CNN, augmentation=gan), BETTER),
    ]


@pytest.mark.parametrize(
    ("found", "cost", "verdict"),
    [
        (BETTER, FAST, "supported"),
        # The claim is efficiency fit for deployment, not a lower cost than other models.
        (BETTER, FAST | {"flops": 10**12}, "supported"),
        (BETTER, SLOW, "refuted"),
        (BETTER, latency(90.0, 110.0), "undecided"),
        (BETTER, latency(90.0, 110.0, 120.0), "undecided"),
        (BETTER, latency(None, None), "undecided"),
        (BETTER, latency(None, None, 1e6), "undecided"),
        (BETTER, None, "undecided"),
        (UNCLEAR, FAST, "undecided"),
        (WORSE, FAST, "refuted"),
        ((0.01, 0.05, 0.06), FAST, "undecided"),
        # Intervals that contain 0 with a small p.
        ((-0.001, 0.06, 0.01), FAST, "undecided"),
        ((-0.06, 0.001, 0.01), FAST, "undecided"),
    ],
)
def test_the_primary_hypothesis_needs_accuracy_and_a_latency_fit_for_deployment(
    found: Found, cost: Cost | None, verdict: str
) -> None:
    decided = verdict_on("H1", with_gan("dcgan", found), {SYNTHETIC: cost} if cost else {})
    assert (decided.verdict, decided.split, len(decided.evidence)) == (verdict, "folds", 4)
    latency = "the limit is 100 ms" if cost else "latency was not measured"
    assert latency in decided.evidence[-1]


@pytest.mark.parametrize(
    ("limit", "verdict"), [(30.0, "refuted"), (50.0, "undecided"), (70.0, "supported")]
)
def test_the_latency_limit_is_a_setting(limit: float, verdict: str) -> None:
    found = with_gan("dcgan", BETTER)
    assert verdict_on("H1", found, {SYNTHETIC: FAST}, limit).verdict == verdict
    assert ReportConfig().latency_ms == LATENCY_MS
    assert f"below {limit:g} ms per image" in verdicts_section([], limit).markdown


@pytest.mark.parametrize(
    ("dcgan", "wgan", "verdict"),
    [
        (WORSE, BETTER, "supported"),
        (WORSE, WORSE, "refuted"),
        (WORSE, UNCLEAR, "undecided"),
    ],
)
def test_one_gan_is_enough_and_all_must_fail(dcgan: Found, wgan: Found, verdict: str) -> None:
    costs = {varied(HYBRID, augmentation=gan): FAST for gan in ("dcgan", "wgan")}
    found = [*with_gan("dcgan", dcgan), *with_gan("wgan", wgan)]
    assert verdict_on("H1", found, costs).verdict == verdict


# --- H2 and H3


@pytest.mark.parametrize(
    ("addition", "ensemble", "verdict"),
    [
        (BETTER, BETTER, "supported"),
        (BETTER, UNCLEAR, "undecided"),
        (WORSE, BETTER, "refuted"),
        (BETTER, None, "undecided"),
    ],
)
def test_attention_has_to_beat_addition_and_the_ensemble(
    addition: Found, ensemble: Found, verdict: str
) -> None:
    attention = replace(HYBRID, settings={"model.fusion": "attention"})
    found = [
        compared("fusion", replace(HYBRID, settings={"model.fusion": "gated"}), HYBRID, WORSE),
        compared("fusion", attention, HYBRID, addition),
        compared("fusion", attention, ENSEMBLE, ensemble),
    ]
    assert verdict_on("H2", found).verdict == verdict
    assert verdict_on("H2", found[:2]).verdict == "not run"


PROTOTYPES = replace(VIT, settings={"model.head": "prototype"})
TIED = {"prototypes": {"picture": "p.png", "table": [{"row": 3}]}}


@pytest.mark.parametrize(
    ("found", "explained", "verdict"),
    [
        (BETTER, TIED, "supported"),
        (BETTER, {}, "undecided"),
        ((-0.015, -0.005, 0.01), TIED, "supported"),
        ((-0.03, 0.01, 0.5), TIED, "undecided"),
        ((-0.05, -0.01, 0.2), TIED, "undecided"),
        ((-0.05, -0.01, 0.01), TIED, "refuted"),
        (None, TIED, "undecided"),
    ],
)
def test_prototypes_are_training_patches_and_lose_no_more_than_the_margin(
    found: Found, explained: dict[str, Any], verdict: str
) -> None:
    decided = verdict_on("H3", [compared("head", PROTOTYPES, VIT, found, (explained, {}))])
    assert decided.verdict == verdict
    assert ("prototypes not recorded" in decided.evidence[1]) is not bool(explained)


# --- H4


def maps(
    value: float, low: float, high: float, passes: bool = True, subjects: int = 5, by: str = ""
) -> dict[str, Any]:
    measure = {"value": value, "low": low, "high": high, "cells": 9, "subjects": subjects}
    entry = {"measures": {FAITHFULNESS: measure}, "passes_randomization": passes}
    return {by or "rollout": entry}


PLAIN = maps(0.10, 0.06, 0.13)
MORE = maps(0.20, 0.17, 0.24)  # 0.2 - 0.1, and below it the root of 0.03 and 0.03 squared
REGULAR = replace(VIT, settings={"model.attention_loss": 0.1})


def regularized(auroc: Found, own: dict[str, Any], plain: dict[str, Any] = PLAIN) -> Comparison:
    return compared("attention_loss", REGULAR, VIT, auroc, (own, plain))


@pytest.mark.parametrize(
    ("auroc", "own", "verdict"),
    [
        (UNCLEAR, MORE, "supported"),
        (BETTER, MORE, "supported"),
        (UNCLEAR, maps(0.02, 0.00, 0.04), "refuted"),
        (BETTER, maps(0.02, 0.00, 0.04), "refuted"),
        (WORSE, MORE, "refuted"),
        ((-0.05, 0.01, 0.01), MORE, "undecided"),
        # A large difference whose interval contains 0 decides nothing, on either side.
        (BETTER, maps(0.20, 0.10, 0.24), "undecided"),
        (BETTER, maps(0.02, 0.00, 0.11), "undecided"),
        (BETTER, maps(0.20, 0.17, 0.24, passes=False), "undecided"),
        (BETTER, {}, "undecided"),
        (WORSE, {}, "undecided"),
        (BETTER, {"rollout": {"measures": {}}}, "undecided"),
    ],
)
def test_regularized_attention_has_to_explain_better_without_loss(
    auroc: Found, own: dict[str, Any], verdict: str
) -> None:
    decided = verdict_on("H4", [regularized(auroc, own)])
    assert decided.verdict == verdict
    assert "Holm p" in decided.evidence[0]


@pytest.mark.parametrize(
    ("subjects", "wider"),
    [
        (5, 3.4954 / 2.7764),  # t of 4 degrees of freedom at 1 - 0.025 / 2 and at 1 - 0.025
        (0, 25.4517 / 12.7062),  # not recorded: of 1
    ],
)
def test_intervals_of_faithfulness_are_simultaneous(subjects: int, wider: float) -> None:
    """A difference of -0.08 with 0.0707, the root of 0.05 and 0.05 squared, on either side is shown
    alone; of two comparisons, 1.26 or 2 times as wide, neither is."""
    plain = maps(0.10, 0.05, 0.15, subjects=subjects)
    own = maps(0.02, -0.03, 0.07, subjects=subjects)
    pairs = [
        (replace(model, settings={"model.attention_loss": 0.1}), model) for model in (VIT, HYBRID)
    ]
    found = [compared("attention_loss", *pair, BETTER, (own, plain)) for pair in pairs]
    alone, both = verdict_on("H4", found[:1]), verdict_on("H4", found)
    half = 0.05 * 2**0.5
    assert f"-0.080 [{-0.08 - half:+.3f}, {-0.08 + half:+.3f}]" in alone.evidence[1]
    assert f"-0.080 [{-0.08 - wider * half:+.3f}, {-0.08 + wider * half:+.3f}]" in both.evidence[1]
    assert both.evidence[1].endswith("(simultaneous 95 % interval for 2 comparisons)")
    assert (alone.verdict, both.verdict) == ("refuted", "undecided")


@pytest.mark.parametrize(
    ("keys", "interval"),
    [
        ([(0, 0)], "+0.100 [+0.058, +0.157]"),
        ([(0, 0), (1, 0)], "+0.100 [+0.058, +0.157]"),
        ([(0, 0), (0, 1)], "+0.100 [+0.070, +0.140]"),  # divided by the root of two
    ],
)
def test_folds_narrow_the_difference_and_seeds_do_not(
    keys: list[tuple[int, int]], interval: str
) -> None:
    configurations = []
    for run, own in ((REGULAR, MORE), (VIT, PLAIN)):
        runs = [replace(run, seed=seed, fold=fold) for seed, fold in keys]
        records = tuple(Record(run, "", explanations=own) for run in runs)
        configurations.append(Configuration(run, records, ()))
    result = Difference("auroc", 0.03, *BETTER[:2], 0.01, 0.03, 1, 1)
    found = [Comparison("attention_loss", *configurations, 1, result, 0.01)]
    assert f"faithfulness of rollout {interval}" in verdict_on("H4", found).evidence[1]


@pytest.mark.parametrize(("methods", "shown"), [("gradcam", "gradcam"), ("both", "rollout")])
def test_maps_of_attention_come_before_other_methods(methods: str, shown: str) -> None:
    gradients = maps(0.20, 0.17, 0.24, by="gradcam"), maps(0.10, 0.06, 0.13, by="gradcam")
    own, plain = gradients if methods == "gradcam" else (gradients[0] | MORE, gradients[1] | PLAIN)
    decided = verdict_on("H4", [regularized(BETTER, own, plain)])
    assert decided.verdict == "supported"
    assert f"faithfulness of {shown}" in decided.evidence[1]


# --- All hypotheses


def test_missing_and_leaky_runs_give_no_verdict() -> None:
    leaky = replace(VIT, split="random", leaky=True)
    own = replace(leaky, settings={"model.attention_loss": 1.0})
    # H1 needs the hybrid minus both models.
    found = [compared("attention_loss", own, leaky, BETTER), *with_gan("dcgan", BETTER)[:1]]
    for decided in (verdicts([], {}), verdicts(found, {})):
        assert [one.verdict for one in decided] == ["not run"] * len(HYPOTHESES)
        assert all(one.evidence[0].startswith("needs ") for one in decided)


def test_splits_have_separate_verdicts_in_the_table() -> None:
    kfold = replace(VIT, split="subject_kfold")
    found = [
        compared(
            "attention_loss", replace(one, settings=REGULAR.settings), one, auroc, (MORE, PLAIN)
        )
        for one, auroc in ((VIT, WORSE), (kfold, BETTER))
    ]
    section = verdicts_section(verdicts(found, {}))
    table = section.table[section.table["hypothesis"] == "H4"].set_index("split")
    assert table["verdict"].to_dict() == {"folds": "refuted", "subject_kfold": "supported"}
    assert "## H4: refuted (folds)" in section.markdown
    assert "-0.030 [-0.050, -0.010], Holm p 0.010" in section.markdown
    assert all(claim in section.markdown for claim in HYPOTHESES.values())
