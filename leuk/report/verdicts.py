"""Verdicts on the four hypotheses that the thesis states but does not test.

:data:`NOTES` states when a claim holds and when it is contradicted: by a 95 % interval, never by a
point estimate. In code a claim is True, False or None (undecided). A hypothesis is *not run* if a
comparison that it needs is missing. Leaky splits are ignored; every split has separate verdicts.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from statistics import mean
from typing import Any, Literal

import pandas as pd
from hydra.utils import get_object
from omegaconf import OmegaConf
from scipy.special import stdtrit

from leuk.config import conf_dir
from leuk.report.comparisons import SETTINGS, Comparison, changed
from leuk.report.costs import Cost
from leuk.report.derived import ENSEMBLE, MEMBERS
from leuk.report.load import Configuration
from leuk.report.table import (
    Column,
    Heading,
    Items,
    Section,
    Table,
    Written,
    difference_text,
    p_text,
    text,
)
from leuk.runs.record import RunId

MARGIN = 0.02
"""Tolerated loss of AUROC where a hypothesis claims no loss."""

LATENCY_MS = 100.0
"""Default latency limit in ms per image, one image at a time on the device of the run, for a model
to be fit for deployment: an answer within 0.1 s seems immediate (Miller 1968; Nielsen, *Usability
Engineering*, 1993, chapter 5), and the 500 cells of a bone marrow differential (Lee et al. 2008,
ICSH guidelines) then take less than a minute. ``latency_ms`` of ``leuk report`` changes it."""

FAITHFULNESS = "insertion_minus_deletion_blur_over_random"
"""Measure of explanations used for H4: how much more the probability depends on the pixels that a
map ranks high than on random blobs; see :mod:`leuk.explain.quality.checks`."""

_ALPHA = 0.05

Outcome = Literal["supported", "refuted", "undecided", "not run"]

HYPOTHESES = {
    "H1": "The hybrid with synthetic images classifies better than CNN or ViT alone, and fast "
    "enough for deployment.",
    "H2": "Attention-based fusion beats plain addition and a simple ensemble of CNN and ViT.",
    "H3": "Prototypes make the model explain itself without losing accuracy.",
    "H4": "Regularizing the attention maps makes explanations more faithful without losing "
    "accuracy.",
}
"""The hypotheses; the first is the primary one of the thesis."""

NEEDS = {
    "H1": "hybrid with a GAN, and cnn and vit with none",
    "H2": "hybrid with fusion=attention and with fusion=add, and cnn and vit, all otherwise alike",
    "H3": "a model with head=prototype and the same one without",
    "H4": "a model with attention_loss above 0 and the same one without, both with checks=full",
}

NOTES = """\
Every claim is decided by a 95 % interval. Better: the interval of the difference in AUROC is above
0 and its Holm p is below {alpha}; contradicted if the interval is below 0 with such a p. No loss:
the interval is above -{margin}; otherwise contradicted if it is below 0 with such a p. Fast enough:
the interval of the latency over the runs of a configuration is below {latency:g} ms per image;
contradicted if it is above. More faithful: the interval of the difference in insertion - deletion
over random is above 0; contradicted if it is below; these intervals are simultaneous for all
comparisons of a split (Bonferroni). Supported: every claim of the hypothesis holds. Refuted: a
claim is contradicted. Undecided: neither. H1 is evaluated for each GAN (better than CNN and ViT,
both without synthetic images and with the same ones; fast enough); it is supported if one GAN
supports it and refuted if all GANs refute it. H3 needs prototypes that are patches of training
images. H4 stays undecided without checks of the explanations, and if a network with random weights
gives similar maps."""


@dataclass(frozen=True)
class Verdict:
    """Verdict on a hypothesis for a split.

    Attributes:
        hypothesis: a key of :data:`HYPOTHESES`.
        split: name of the split; empty if no split has the needed runs.
        verdict: the outcome.
        evidence: the comparisons behind it, one text each.
    """

    hypothesis: str
    split: str
    verdict: Outcome
    evidence: tuple[str, ...]


def _positive(low: float, high: float) -> bool | None:
    """Return True if an interval is above 0, False if it is below, None if it contains 0."""
    if low > 0:
        return True
    return False if high < 0 else None


def better(comparison: Comparison) -> bool | None:
    """Return True if the first configuration is better, False if it is worse, None if undecided."""
    found = comparison.result
    if found is None or comparison.p is None or comparison.p >= _ALPHA:
        return None
    return _positive(found.low, found.high)


def no_worse(comparison: Comparison) -> bool | None:
    """Return True if the loss is below the margin, False if a loss is shown, else None."""
    found = comparison.result
    if found is not None and found.low > -MARGIN:
        return True
    return False if better(comparison) is False else None


def fast_enough(cost: Cost, limit: float) -> bool | None:
    """Return True if an image takes less than ``limit`` ms, False if more, None if undecided."""
    low, high = cost.get("latency_ms_low"), cost.get("latency_ms_high")
    return None if low is None or high is None else _positive(limit - high, limit - low)


def verdicts(
    comparisons: Sequence[Comparison],
    costs: Mapping[RunId, Cost],
    latency_ms: float = LATENCY_MS,
) -> list[Verdict]:
    """Verdicts on each hypothesis for each split with the needed runs, else ``not run``.

    Args:
        comparisons: comparisons between the configurations of a sweep.
        costs: cost of each configuration.
        latency_ms: latency limit for deployment, in ms per image.
    """
    honest = [c for c in comparisons if not c.one.run.leaky]
    splits = list(dict.fromkeys(c.one.run.split_name for c in honest))
    rules: dict[str, Callable[[Sequence[Comparison]], _Decided]] = {
        "H1": lambda own: _hybrid_with_gan(own, costs, latency_ms),
        "H2": _attention_fusion,
        "H3": _prototypes,
        "H4": _regularized,
    }
    found = []
    for hypothesis, rule in rules.items():
        results = [rule([c for c in honest if c.one.run.split_name == split]) for split in splits]
        decided = [
            Verdict(hypothesis, split, verdict, evidence)
            for split, (verdict, evidence) in zip(splits, results, strict=True)
            if verdict != "not run"
        ]
        missing = Verdict(hypothesis, "", "not run", (f"needs {NEEDS[hypothesis]}",))
        found += decided or [missing]
    return found


_Decided = tuple[Outcome, tuple[str, ...]]
"""A verdict and its evidence."""


def _all_hold(claims: Sequence[bool | None]) -> Outcome:
    if not claims:
        return "not run"
    if False in claims:
        return "refuted"
    return "undecided" if None in claims else "supported"


def _hybrid_with_gan(
    comparisons: Sequence[Comparison], costs: Mapping[RunId, Cost], limit: float
) -> _Decided:
    """H1, for each GAN separately."""
    # Settings with a hypothesis of their own have their defaults.
    hybrids = dict.fromkeys(
        c.one.run
        for c in comparisons
        if c.family == "gan_hybrid" and not any(changed(c.one.run, key) for key in SETTINGS)
    )
    outcomes: list[Outcome] = []
    evidence: list[str] = []
    for run in hybrids:
        needed = [
            c
            for c in comparisons
            if c.one.run == run
            and c.other.run.model in MEMBERS
            and c.family in ("gan_hybrid", "model")
        ]
        if {c.other.run.model for c in needed if c.family == "gan_hybrid"} != set(MEMBERS):
            continue
        cost = costs.get(run)
        fast = None if cost is None else fast_enough(cost, limit)
        outcomes.append(_all_hold([*map(better, needed), fast]))
        evidence += [*map(_text, needed), f"{needed[0].one.title}: {_latency(cost, limit)}"]
    if not outcomes:
        return "not run", ()
    if "supported" in outcomes:
        return "supported", tuple(evidence)
    return "refuted" if set(outcomes) == {"refuted"} else "undecided", tuple(evidence)


def _latency(cost: Cost | None, limit: float) -> str:
    if cost is None:
        return "latency was not measured"
    low, high = cost.get("latency_ms_low"), cost.get("latency_ms_high")
    interval = (
        "without interval (needs two runs on the same device)"
        if low is None or high is None
        else f"[{low:.2f}, {high:.2f}]"
    )
    return (
        f"{cost['latency_ms']:.2f} ms {interval} per image on {cost['device']}; "
        f"the limit is {limit:g} ms"
    )


def _attention_fusion(comparisons: Sequence[Comparison]) -> _Decided:
    """H2, where attention-based fusion has both counterparts."""
    needed = [
        c
        for c in comparisons
        if c.family == "fusion" and c.one.run.settings.get("model.fusion") == "attention"
    ]
    against = [
        {c.other.run.model == ENSEMBLE for c in needed if c.one.run == run}
        for run in dict.fromkeys(c.one.run for c in needed)
    ]
    if {True, False} not in against:
        return "not run", ()
    return _all_hold([better(c) for c in needed]), tuple(map(_text, needed))


def _prototypes(comparisons: Sequence[Comparison]) -> _Decided:
    """H3: no comparison loses AUROC, and the prototypes of every model are training patches."""
    own = [c for c in comparisons if c.family == "head"]
    claims: list[bool | None] = []
    evidence: list[str] = []
    for c in own:
        found = [record.explanations.get("prototypes") for record in c.one.records]
        tied = bool(found) and all(isinstance(one, Mapping) and one.get("table") for one in found)
        claims += [no_worse(c), tied or None]
        shown = "are patches of training images" if tied else "not recorded"
        evidence += [_text(c), f"{c.one.title}: prototypes {shown}"]
    return _all_hold(claims), tuple(evidence)


def _regularized(comparisons: Sequence[Comparison]) -> _Decided:
    """H4: no comparison loses AUROC, and each makes explanations more faithful.

    Undecided, whatever the AUROC, if the explanations of a comparison were not checked.
    """
    own = [c for c in comparisons if c.family == "attention_loss"]
    if not own:
        return "not run", ()
    evidence: list[str] = []
    claims: list[bool | None] = []
    unchecked = False
    of_attention = _methods_of_attention()
    checked = [_checked_pairs(c.one, c.other, of_attention) for c in own]
    tests = sum(bool(pairs) for _, pairs in checked)
    for c, (method, pairs) in zip(own, checked, strict=True):
        evidence.append(_text(c))
        if not pairs:
            unchecked = True
            evidence.append(f"{c.title}: no common run has checked explanations of both")
            continue
        claim, shown = _more_faithful(pairs, tests)
        claims += [no_worse(c), claim]
        evidence.append(f"{c.title}: faithfulness of {method} {shown}")
    return "undecided" if unchecked else _all_hold(claims), tuple(evidence)


_Pair = tuple[int, Mapping[str, Any], Mapping[str, Any]]
"""A fold, and the records of one method from two runs of it."""


def _checked_pairs(
    one: Configuration, other: Configuration, of_attention: Container[str]
) -> tuple[str, list[_Pair]]:
    """Return the first method checked in matching runs, and these runs.

    Maps of the attention itself, which H4 regularizes, come first; then the order of the records.
    """
    first, second = (
        {
            (name, record.run.seed, record.run.fold): entry
            for record in configuration.records
            for name, entry in record.explanations.items()
            if isinstance(entry, Mapping) and None not in _bounds(entry)
        }
        for configuration in (one, other)
    )
    both = sorted(first.keys() & second.keys(), key=lambda key: key[1:])
    names = dict.fromkeys(name for name, _, _ in first)
    for method in sorted(names, key=lambda name: name not in of_attention):
        if own := [key for key in both if key[0] == method]:
            return method, [(key[2], first[key], second[key]) for key in own]
    return "", []


def _methods_of_attention() -> set[str]:
    """Methods of the config group ``explain`` whose maps are those of the attention."""
    configs = map(OmegaConf.load, (conf_dir() / "explain").glob("*.yaml"))
    targets = {
        str(name): node["_target_"]
        for config in configs
        for name, node in config.items()
        if "_target_" in node
    }
    return {name for name, target in targets.items() if get_object(target).of_attention}


def _more_faithful(pairs: Sequence[_Pair], tests: int) -> tuple[bool | None, str]:
    """Decide the claim that the maps of the first runs are more faithful, with its evidence.

    Args:
        pairs: matching runs of a comparison.
        tests: number of comparisons of the family, for simultaneous 95 % intervals (Bonferroni).
    """
    difference, low, high = _difference(pairs, tests)
    shown = difference_text(difference, low, high)
    if tests > 1:
        shown += f" (simultaneous 95 % interval for {tests} comparisons)"
    if any(run.get("passes_randomization") is False for _, *runs in pairs for run in runs):
        return None, f"{shown}, but the maps fail the randomization check, so this is no evidence"
    return _positive(low, high), shown


def _bounds(entry: Mapping[str, Any]) -> list[float | None]:
    found = entry.get("measures", {}).get(FAITHFULNESS, {})
    return [found.get(key) for key in ("value", "low", "high")]


def _difference(pairs: Sequence[_Pair], tests: int) -> tuple[float, float, float]:
    """Mean difference over folds, with an interval of level 1 - 0.05 / tests.

    The interval of a pair is computed from the intervals of both models (MOVER; Zou & Donner 2008)
    as if their patients were different, which is conservative for the same patients. Seeds of a
    fold share patients, so averaging over them does not narrow the interval; folds are independent.
    Recorded intervals are 95 % t intervals over subjects; they are widened by the ratio of the two
    t quantiles, with one degree of freedom if the number of subjects is not recorded.
    """
    by_fold: dict[int, list[tuple[float, float, float]]] = defaultdict(list)
    for fold, *runs in pairs:
        (a, a_below, a_above), (b, b_below, b_above) = (_arms(run, tests) for run in runs)
        by_fold[fold].append((a - b, hypot(a_below, b_above), hypot(a_above, b_below)))
    folds = [[mean(column) for column in zip(*found, strict=True)] for found in by_fold.values()]
    difference = mean(fold[0] for fold in folds)
    below, above = (hypot(*(fold[side] for fold in folds)) / len(folds) for side in (1, 2))
    return difference, difference - below, difference + above


def _arms(entry: Mapping[str, Any], tests: int) -> tuple[float, float, float]:
    """Value, and the widths of its interval of level 1 - 0.05 / tests below and above it."""
    found = entry["measures"][FAITHFULNESS]
    value, low, high = (float(found[key]) for key in ("value", "low", "high"))
    freedom = max(found.get("subjects", 0) - 1, 1)
    wider = float(stdtrit(freedom, 1 - _ALPHA / 2 / tests) / stdtrit(freedom, 1 - _ALPHA / 2))
    return value, wider * (value - low), wider * (high - value)


def _text(comparison: Comparison) -> str:
    found = comparison.result
    if found is None or comparison.p is None:
        return f"{comparison.title}: {comparison.note}"
    interval = difference_text(found.difference, found.low, found.high)
    return f"{comparison.title}: AUROC {interval}, Holm p {p_text(comparison.p)}"


def verdicts_section(found: Sequence[Verdict], latency_ms: float = LATENCY_MS) -> Section:
    """Return the verdicts as a table, followed by the evidence of each.

    Args:
        found: the verdicts.
        latency_ms: latency limit that they used, in ms per image.
    """
    notes = NOTES.format(alpha=_ALPHA, margin=MARGIN, latency=latency_ms)
    table = pd.DataFrame(
        [
            {
                "hypothesis": one.hypothesis,
                "claim": HYPOTHESES[one.hypothesis],
                "split": one.split,
                "verdict": one.verdict,
                "evidence": "; ".join(one.evidence),
            }
            for one in found
        ]
    )
    columns = {
        "hypothesis": text("claim"),
        "split": Column(("split",), lambda split: split or "-", numeric=False),
        "verdict": text("verdict"),
    }
    blocks: list[Written | str] = [Table(table, columns), notes]
    for one in found:
        split = f" ({one.split})" if one.split else ""
        blocks += [Heading(f"{one.hypothesis}: {one.verdict}{split}"), Items(one.evidence)]
    return Section("verdicts", "The hypotheses of the thesis", blocks, table)
