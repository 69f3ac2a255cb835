from dataclasses import replace

import pytest
from sweeps import CELL, COST

from leuk.evaluate.significance import Difference
from leuk.grid.cell import Cell
from leuk.report.comparisons import Comparison
from leuk.report.results import Group
from leuk.report.verdicts import HYPOTHESES, Verdict, cheaper, verdicts, verdicts_section

BETTER, WORSE, UNCLEAR = (0.01, 0.05, 0.01), (-0.05, -0.01, 0.01), (-0.01, 0.03, 0.2)
CHEAP, DEAR = {"flops": 10, "latency_ms": 1.0}, {"flops": 10**9, "latency_ms": 9.0}

CNN, VIT = (replace(CELL, model=model) for model in ("cnn", "vit"))
HYBRID = replace(CELL, model="hybrid")
ENSEMBLE = replace(CELL, model="ensemble")


def compared(
    family: str, one: Cell, other: Cell, found: tuple[float, float, float] | None
) -> Comparison:
    """A comparison with this interval and Holm p."""
    groups = [Group(cell, (), ()) for cell in (one, other)]
    if found is None:
        return Comparison(family, *groups, 0, None, note="no seed and fold in common")
    low, high, p = found
    result = Difference("auroc", (low + high) / 2, low, high, p, 0.03, 1, 1)
    return Comparison(family, *groups, 1, result, p)


def verdict_on(hypothesis: str, found: list[Verdict]) -> Verdict:
    (one,) = (verdict for verdict in found if verdict.hypothesis == hypothesis)
    return one


def with_gan(gan: str, against_cnn: tuple[float, float, float]) -> list[Comparison]:
    made = replace(HYBRID, augmentation=gan)
    return [
        compared("gan_hybrid", made, CNN, against_cnn),
        compared("gan_hybrid", made, VIT, BETTER),
        compared("model", made, replace(CNN, augmentation=gan), BETTER),
    ]


@pytest.mark.parametrize(
    ("found", "hybrid_cost", "verdict"),
    [
        (BETTER, CHEAP, "supported"),
        (BETTER, {}, "undecided"),
        (BETTER, DEAR, "refuted"),
        (UNCLEAR, CHEAP, "undecided"),
        (WORSE, CHEAP, "refuted"),
        ((0.01, 0.05, 0.06), CHEAP, "undecided"),
    ],
)
def test_the_primary_hypothesis_needs_accuracy_and_efficiency(
    found: tuple[float, float, float], hybrid_cost: dict[str, float], verdict: str
) -> None:
    costs = {CNN: COST, VIT: COST, replace(HYBRID, augmentation="dcgan"): COST | hybrid_cost}
    judged = verdict_on("H1", verdicts(with_gan("dcgan", found), costs))
    assert judged.verdict == verdict
    assert judged.split == "folds"
    assert len(judged.figures) == 5


def test_one_gan_is_enough_and_all_must_fail() -> None:
    costs = {CNN: COST, VIT: COST}
    for gan in ("dcgan", "wgan"):
        costs[replace(HYBRID, augmentation=gan)] = COST | CHEAP
    one_of_two = [*with_gan("dcgan", WORSE), *with_gan("wgan", BETTER)]
    assert verdict_on("H1", verdicts(one_of_two, costs)).verdict == "supported"
    none_of_two = [*with_gan("dcgan", WORSE), *with_gan("wgan", WORSE)]
    assert verdict_on("H1", verdicts(none_of_two, costs)).verdict == "refuted"
    mixed = [*with_gan("dcgan", WORSE), *with_gan("wgan", UNCLEAR)]
    assert verdict_on("H1", verdicts(mixed, costs)).verdict == "undecided"


def test_the_primary_hypothesis_needs_both_models_alone() -> None:
    judged = verdict_on("H1", verdicts(with_gan("dcgan", BETTER)[:1], {}))
    assert judged.verdict == "not run"
    assert "cnn and vit" in judged.figures[0]


def test_missing_costs_are_said() -> None:
    judged = verdict_on("H1", verdicts(with_gan("dcgan", BETTER), {}))
    assert judged.verdict == "undecided"
    assert sum("not measured" in text for text in judged.figures) == 2


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
    attention = replace(HYBRID, variant="fusion_attention")
    found = [
        compared("fusion", attention, HYBRID, addition),
        compared("fusion", attention, ENSEMBLE, ensemble),
        compared("fusion", replace(HYBRID, variant="fusion_gated"), HYBRID, WORSE),
    ]
    assert verdict_on("H2", verdicts(found, {})).verdict == verdict


def test_attention_without_an_ensemble_is_not_run() -> None:
    found = [compared("fusion", replace(HYBRID, variant="fusion_attention"), HYBRID, BETTER)]
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
    comparison = compared("head", replace(VIT, variant="head_prototype"), VIT, found)
    assert verdict_on("H3", verdicts([comparison], {})).verdict == verdict


@pytest.mark.parametrize(
    ("found", "verdict"), [(BETTER, "supported"), (WORSE, "refuted"), (UNCLEAR, "undecided")]
)
def test_regularised_attention_has_to_be_better(
    found: tuple[float, float, float], verdict: str
) -> None:
    regular = replace(VIT, variant="attention_loss_0.1")
    judged = verdict_on("H4", verdicts([compared("attention_loss", regular, VIT, found)], {}))
    assert judged.verdict == verdict
    assert "Holm p" in judged.figures[0]


def test_nothing_run_and_leaky_lines_count_for_nothing() -> None:
    leaky = replace(VIT, split="random_LEAKY")
    found = [compared("attention_loss", replace(leaky, variant="attention_loss_1"), leaky, BETTER)]
    for judged in (verdicts([], {}), verdicts(found, {})):
        assert [one.verdict for one in judged] == ["not run"] * len(HYPOTHESES)
        assert all(one.figures[0].startswith("needs ") for one in judged)


def test_splits_are_judged_apart() -> None:
    kfold = replace(VIT, split="subject_kfold")
    found = [
        compared("attention_loss", replace(VIT, variant="attention_loss_1"), VIT, WORSE),
        compared("attention_loss", replace(kfold, variant="attention_loss_1"), kfold, BETTER),
    ]
    judged = {one.split: one.verdict for one in verdicts(found, {}) if one.hypothesis == "H4"}
    assert judged == {"folds": "refuted", "subject_kfold": "supported"}


def test_costs_of_two_devices_are_not_compared() -> None:
    assert cheaper(COST | CHEAP, COST) is True
    assert cheaper(COST | DEAR, COST) is False
    assert cheaper(COST | {"flops": 10}, COST) is None
    assert cheaper(COST | CHEAP, COST | {"device": "another"}) is None


def test_the_table_names_claims_and_figures() -> None:
    regular = replace(VIT, variant="attention_loss_0.1")
    section = verdicts_section(verdicts([compared("attention_loss", regular, VIT, WORSE)], {}))
    assert section.table.set_index("hypothesis").loc["H4", "verdict"] == "refuted"
    assert "## H4: refuted (folds)" in section.markdown
    assert "-0.030 [-0.050, -0.010], Holm p 0.010" in section.markdown
    assert all(claim in section.markdown for claim in HYPOTHESES.values())
