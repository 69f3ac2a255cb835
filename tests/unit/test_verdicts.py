from dataclasses import replace
from typing import Any

import pytest
from sweeps import COST, RUN, varied

from leuk.config.schema import ReportConfig
from leuk.metrics.comparison import Difference
from leuk.report.comparisons import Comparison
from leuk.report.costs import costs_of
from leuk.report.load import Configuration
from leuk.report.verdicts import (
    FAITHFULNESS,
    HYPOTHESES,
    LATENCY_MS,
    Verdict,
    fast_enough,
    verdicts,
    verdicts_section,
)
from leuk.runs.record import Record, RunId

BETTER, WORSE, UNCLEAR = (0.01, 0.05, 0.01), (-0.05, -0.01, 0.01), (-0.01, 0.03, 0.2)
POINT_ONLY = (-0.001, 0.06, 0.01), (-0.06, 0.001, 0.01)
"""Intervals on both sides of 0 with a small p, about a positive and a negative difference."""


def latency(low: float | None, high: float | None, value: float = 50.0) -> dict[str, Any]:
    return COST | {"latency_ms": value, "latency_ms_low": low, "latency_ms_high": high}


FAST, SLOW = latency(40.0, 60.0), latency(140.0, 190.0, 160.0)

CNN, VIT = (replace(RUN, model=model) for model in ("cnn", "vit"))
HYBRID = replace(RUN, model="hybrid")
ENSEMBLE = replace(RUN, model="ensemble")


def compared(
    family: str,
    one: RunId,
    other: RunId,
    found: tuple[float, float, float] | None,
    explained: tuple[dict[str, Any], dict[str, Any]] = ({}, {}),
) -> Comparison:
    """A comparison with this interval and Holm p, of runs with these explanations."""
    configurations = [
        Configuration(run_id, (Record(run_id, "", explanations=entry),), ())
        for run_id, entry in zip((one, other), explained, strict=True)
    ]
    if found is None:
        return Comparison(family, *configurations, 0, None, note="no seed and fold in common")
    low, high, p = found
    result = Difference("auroc", (low + high) / 2, low, high, p, 0.03, 1, 1)
    return Comparison(family, *configurations, 1, result, p)


def verdict_on(hypothesis: str, found: list[Verdict]) -> Verdict:
    (one,) = (verdict for verdict in found if verdict.hypothesis == hypothesis)
    return one


def with_gan(gan: str, against_cnn: tuple[float, float, float]) -> list[Comparison]:
    synthetic = varied(HYBRID, augmentation=gan)
    return [
        compared("gan_hybrid", synthetic, CNN, against_cnn),
        compared("gan_hybrid", synthetic, VIT, BETTER),
        compared("model", synthetic, varied(CNN, augmentation=gan), BETTER),
    ]


@pytest.mark.parametrize(
    ("found", "hybrid_cost", "verdict"),
    [
        (BETTER, FAST, "supported"),
        (BETTER, SLOW, "refuted"),
        (BETTER, latency(90.0, 110.0), "undecided"),
        (BETTER, latency(90.0, 110.0, 120.0), "undecided"),
        (BETTER, latency(None, None), "undecided"),
        (BETTER, latency(None, None, 1e6), "undecided"),
        (UNCLEAR, FAST, "undecided"),
        (WORSE, FAST, "refuted"),
        ((0.01, 0.05, 0.06), FAST, "undecided"),
        (POINT_ONLY[0], FAST, "undecided"),
        (POINT_ONLY[1], FAST, "undecided"),
    ],
)
def test_the_primary_hypothesis_needs_accuracy_and_a_latency_fit_for_deployment(
    found: tuple[float, float, float], hybrid_cost: dict[str, Any], verdict: str
) -> None:
    costs = {varied(HYBRID, augmentation="dcgan"): hybrid_cost}
    decided = verdict_on("H1", verdicts(with_gan("dcgan", found), costs))
    assert decided.verdict == verdict
    assert decided.split == "folds"
    assert len(decided.evidence) == 4
    assert "the limit is 100 ms" in decided.evidence[-1]


def test_higher_cost_than_cnn_and_vit_does_not_refute() -> None:
    """The claim is efficiency fit for deployment, not a lower cost than other models."""
    costs = {CNN: latency(0.9, 1.1, 1.0), VIT: latency(0.9, 1.1, 1.0)}
    costs[varied(HYBRID, augmentation="dcgan")] = FAST | {"flops": 10**12}
    decided = verdict_on("H1", verdicts(with_gan("dcgan", BETTER), costs))
    assert decided.verdict == "supported"


def test_the_latency_limit_is_a_setting() -> None:
    costs = {varied(HYBRID, augmentation="dcgan"): FAST}
    found = {
        limit: verdict_on("H1", verdicts(with_gan("dcgan", BETTER), costs, limit)).verdict
        for limit in (30.0, 50.0, 70.0)
    }
    assert found == {30.0: "refuted", 50.0: "undecided", 70.0: "supported"}
    assert ReportConfig().latency_ms == LATENCY_MS
    assert "below 30 ms per image" in verdicts_section([], 30.0).markdown


def test_latency_has_an_interval_over_runs_of_one_device() -> None:
    """Of 40, 50 and 60 ms: exp(mean of logs), t(2) = 4.303 standard errors of 0.1172 either way."""
    records = [
        Record(replace(CNN, seed=seed), "", cost=COST | {"latency_ms": ms})
        for seed, ms in enumerate((40.0, 50.0, 60.0))
    ]
    cost = costs_of([Configuration(CNN, tuple(records), ())])[CNN]
    assert cost["latency_ms"] == 50.0
    assert cost["latency_ms_low"] == pytest.approx(29.78, abs=0.05)
    assert cost["latency_ms_high"] == pytest.approx(81.66, abs=0.1)
    records[0].cost["device"] = "another"
    for own in (records, records[1:2]):
        cost = costs_of([Configuration(CNN, tuple(own), ())])[CNN]
        assert (cost["latency_ms_low"], cost["latency_ms_high"]) == (None, None)
        assert fast_enough(cost, 1000.0) is None


def test_one_gan_is_enough_and_all_must_fail() -> None:
    costs = {varied(HYBRID, augmentation=gan): FAST for gan in ("dcgan", "wgan")}
    one_of_two = [*with_gan("dcgan", WORSE), *with_gan("wgan", BETTER)]
    assert verdict_on("H1", verdicts(one_of_two, costs)).verdict == "supported"
    none_of_two = [*with_gan("dcgan", WORSE), *with_gan("wgan", WORSE)]
    assert verdict_on("H1", verdicts(none_of_two, costs)).verdict == "refuted"
    mixed = [*with_gan("dcgan", WORSE), *with_gan("wgan", UNCLEAR)]
    assert verdict_on("H1", verdicts(mixed, costs)).verdict == "undecided"


def test_the_primary_hypothesis_needs_both_models_alone() -> None:
    decided = verdict_on("H1", verdicts(with_gan("dcgan", BETTER)[:1], {}))
    assert decided.verdict == "not run"
    assert "cnn and vit" in decided.evidence[0]


def test_missing_costs_are_reported() -> None:
    decided = verdict_on("H1", verdicts(with_gan("dcgan", BETTER), {}))
    assert decided.verdict == "undecided"
    assert sum("was not measured" in text for text in decided.evidence) == 1


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
    addition: tuple[float, float, float],
    ensemble: tuple[float, float, float] | None,
    verdict: str,
) -> None:
    attention = replace(HYBRID, settings={"model.fusion": "attention"})
    found = [
        compared("fusion", attention, HYBRID, addition),
        compared("fusion", attention, ENSEMBLE, ensemble),
        compared("fusion", replace(HYBRID, settings={"model.fusion": "gated"}), HYBRID, WORSE),
    ]
    assert verdict_on("H2", verdicts(found, {})).verdict == verdict


def test_attention_without_an_ensemble_is_not_run() -> None:
    found = [
        compared("fusion", replace(HYBRID, settings={"model.fusion": "attention"}), HYBRID, BETTER)
    ]
    assert verdict_on("H2", verdicts(found, {})).verdict == "not run"


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (BETTER, "supported"),
        ((-0.015, -0.005, 0.01), "supported"),
        ((-0.03, 0.01, 0.5), "undecided"),
        ((-0.05, -0.01, 0.2), "undecided"),
        ((-0.05, -0.01, 0.01), "refuted"),
        (None, "undecided"),
    ],
)
def test_prototypes_may_lose_no_more_than_the_margin(
    found: tuple[float, float, float] | None, verdict: str
) -> None:
    own = replace(VIT, settings={"model.head": "prototype"})
    tied = {"prototypes": {"picture": "p.png", "table": [{"row": 3}]}}
    comparison = compared("head", own, VIT, found, (tied, {}))
    assert verdict_on("H3", verdicts([comparison], {})).verdict == verdict


def test_prototypes_must_be_training_patches() -> None:
    own = replace(VIT, settings={"model.head": "prototype"})
    decided = verdict_on("H3", verdicts([compared("head", own, VIT, BETTER)], {}))
    assert decided.verdict == "undecided"
    assert "prototypes not recorded" in decided.evidence[1]


def maps(
    value: float, low: float, high: float, passes: bool | None = True, subjects: int = 5
) -> dict[str, Any]:
    figure = {"value": value, "low": low, "high": high, "cells": 9, "subjects": subjects}
    return {"rollout": {"measures": {FAITHFULNESS: figure}, "passes_randomization": passes}}


PLAIN = maps(0.10, 0.06, 0.13)
REGULAR = replace(VIT, settings={"model.attention_loss": 0.1})


@pytest.mark.parametrize(
    ("auroc", "own", "verdict"),
    [
        # 0.2 - 0.1, and below it the root of 0.03 and 0.03 squared.
        (UNCLEAR, maps(0.20, 0.17, 0.24), "supported"),
        (BETTER, maps(0.20, 0.17, 0.24), "supported"),
        (UNCLEAR, maps(0.02, 0.00, 0.04), "refuted"),
        (BETTER, maps(0.02, 0.00, 0.04), "refuted"),
        (WORSE, maps(0.20, 0.17, 0.24), "refuted"),
        ((-0.05, 0.01, 0.01), maps(0.20, 0.17, 0.24), "undecided"),
        # A large difference whose interval holds 0 decides nothing, on either side.
        (BETTER, maps(0.20, 0.10, 0.24), "undecided"),
        (BETTER, maps(0.02, 0.00, 0.11), "undecided"),
        (BETTER, maps(0.20, 0.17, 0.24, passes=False), "undecided"),
        (BETTER, {}, "undecided"),
        (WORSE, {}, "undecided"),
        (BETTER, {"rollout": {"measures": {}}}, "undecided"),
    ],
)
def test_regularized_attention_has_to_explain_better_without_loss(
    auroc: tuple[float, float, float], own: dict[str, Any], verdict: str
) -> None:
    comparison = compared("attention_loss", REGULAR, VIT, auroc, (own, PLAIN))
    decided = verdict_on("H4", verdicts([comparison], {}))
    assert decided.verdict == verdict
    assert "Holm p" in decided.evidence[0]


def test_the_difference_in_faithfulness_by_hand() -> None:
    comparison = compared("attention_loss", REGULAR, VIT, BETTER, (maps(0.2, 0.17, 0.24), PLAIN))
    shown = verdict_on("H4", verdicts([comparison], {})).evidence[1]
    assert "faithfulness of rollout +0.100 [+0.058, +0.157]" in shown


@pytest.mark.parametrize(
    ("subjects", "wider"),
    [
        (5, 3.4954 / 2.7764),  # t of 4 degrees of freedom at 1 - 0.025 / 2 and at 1 - 0.025
        (0, 25.4517 / 12.7062),  # not recorded: of 1
    ],
)
def test_intervals_of_faithfulness_hold_for_the_family_together(
    subjects: int, wider: float
) -> None:
    """A difference of -0.08 with 0.0707, the root of 0.05 and 0.05 squared, either way is shown
    alone; of two comparisons, 1.26 or 2 times as wide, neither is."""
    plain = maps(0.10, 0.05, 0.15, subjects=subjects)
    own = maps(0.02, -0.03, 0.07, subjects=subjects)
    pairs = [
        (replace(model, settings={"model.attention_loss": 0.1}), model) for model in (VIT, HYBRID)
    ]
    found = [compared("attention_loss", *pair, BETTER, (own, plain)) for pair in pairs]
    alone, both = verdict_on("H4", verdicts(found[:1], {})), verdict_on("H4", verdicts(found, {}))
    half = 0.05 * 2**0.5
    assert f"-0.080 [{-0.08 - half:+.3f}, {-0.08 + half:+.3f}]" in alone.evidence[1]
    assert alone.verdict == "refuted"
    assert f"-0.080 [{-0.08 - wider * half:+.3f}, {-0.08 + wider * half:+.3f}]" in both.evidence[1]
    assert both.evidence[1].endswith("(simultaneous 95 % interval for 2 comparisons)")
    assert both.verdict == "undecided"


def test_folds_narrow_the_difference_and_seeds_do_not() -> None:
    def shown(run_ids: list[tuple[int, int]]) -> str:
        configurations = []
        for run, own in ((REGULAR, maps(0.2, 0.17, 0.24)), (VIT, PLAIN)):
            runs = [replace(run, seed=seed, fold=fold) for seed, fold in run_ids]
            records = tuple(Record(run, "", explanations=own) for run in runs)
            configurations.append(Configuration(run, records, ()))
        result = Difference("auroc", 0.03, *BETTER[:2], 0.01, 0.03, 1, 1)
        found = [Comparison("attention_loss", *configurations, 1, result, 0.01)]
        return verdict_on("H4", verdicts(found, {})).evidence[1]

    assert "[+0.058, +0.157]" in shown([(0, 0), (1, 0)])
    # Divided by the root of two.
    assert "[+0.070, +0.140]" in shown([(0, 0), (0, 1)])


def test_maps_of_gradients_stand_in_where_there_is_no_attention() -> None:
    own, plain = ({"gradcam": one["rollout"]} for one in (maps(0.2, 0.17, 0.24), PLAIN))
    decided = verdict_on(
        "H4", verdicts([compared("attention_loss", REGULAR, VIT, BETTER, (own, plain))], {})
    )
    assert decided.verdict == "supported"
    assert "faithfulness of gradcam" in decided.evidence[1]


def test_maps_of_attention_come_before_other_methods() -> None:
    both = [{"gradcam": PLAIN["rollout"]} | one for one in (maps(0.2, 0.17, 0.24), PLAIN)]
    comparison = compared("attention_loss", REGULAR, VIT, BETTER, (both[0], both[1]))
    assert "faithfulness of rollout" in verdict_on("H4", verdicts([comparison], {})).evidence[1]


def test_missing_and_leaky_runs_give_no_verdict() -> None:
    leaky = replace(VIT, split="random", leaky=True)
    found = [
        compared(
            "attention_loss", replace(leaky, settings={"model.attention_loss": 1.0}), leaky, BETTER
        )
    ]
    for decided in (verdicts([], {}), verdicts(found, {})):
        assert [one.verdict for one in decided] == ["not run"] * len(HYPOTHESES)
        assert all(one.evidence[0].startswith("needs ") for one in decided)


def test_splits_have_separate_verdicts() -> None:
    kfold = replace(VIT, split="subject_kfold")
    checked = maps(0.2, 0.17, 0.24), PLAIN
    found = [
        compared(
            "attention_loss",
            replace(one, settings={"model.attention_loss": 1.0}),
            one,
            auroc,
            checked,
        )
        for one, auroc in ((VIT, WORSE), (kfold, BETTER))
    ]
    decided = {one.split: one.verdict for one in verdicts(found, {}) if one.hypothesis == "H4"}
    assert decided == {"folds": "refuted", "subject_kfold": "supported"}


def test_the_table_names_claims_and_figures() -> None:
    found = compared("attention_loss", REGULAR, VIT, WORSE, (maps(0.2, 0.17, 0.24), PLAIN))
    section = verdicts_section(verdicts([found], {}))
    assert section.table.set_index("hypothesis").loc["H4", "verdict"] == "refuted"
    assert "## H4: refuted (folds)" in section.markdown
    assert "-0.030 [-0.050, -0.010], Holm p 0.010" in section.markdown
    assert all(claim in section.markdown for claim in HYPOTHESES.values())
