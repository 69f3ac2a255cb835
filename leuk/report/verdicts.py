"""The four hypotheses that the thesis states and does not test: supported, refuted or undecided.

The rule is the same for all, and a claim holds or is contradicted by a 95 % interval, never by a
point estimate. A claim of *better* holds for one comparison if the interval of the difference in
AUROC lies above 0 and its Holm-corrected p is below 0.05, and is contradicted if the interval lies
below 0 with such a p. A claim of *no loss* holds if the interval lies above minus :data:`MARGIN`,
and is contradicted if it does not and a loss is shown: the interval lies below 0 with such a p. A
claim of *fast enough* holds if the interval of the latency lies below a stated limit, and is
contradicted if it lies above. A claim of *more faithful* holds if the interval of the difference
in :data:`FAITHFULNESS` lies above 0, and is contradicted if it lies below; the intervals of all
such comparisons of a split hold together at 95 %. A hypothesis is

- *supported* if every claim it makes holds,
- *refuted* if any of them is contradicted,
- *undecided* otherwise, and
- *not run* if a comparison it needs is missing.

Lines of a leaky split count for nothing. Splits are judged apart.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from statistics import mean
from typing import Any, Literal

import pandas as pd
from scipy.special import stdtrit

from leuk.grid.run_id import LEAKY, RunId
from leuk.report.comparisons import SETTINGS, Comparison, setting
from leuk.report.costs import Cost
from leuk.report.ensemble import MEMBERS, NAME
from leuk.report.results import Configuration
from leuk.report.sections import Grid, Section, difference_text, p_text

MARGIN = 0.02
"""AUROC that may be lost where a hypothesis claims that nothing is."""

LATENCY_MS = 100.0
"""Milliseconds per image, alone and on the device of the run, within which a model is fit for
deployment: an answer within 0.1 s seems immediate (Miller 1968; Nielsen, *Usability Engineering*,
1993, chapter 5), and the 500 cells of a bone marrow differential (Lee et al. 2008, ICSH guidelines)
then take less than a minute. ``latency_ms`` of ``leuk report`` sets another limit."""

FAITHFULNESS = "insertion_minus_deletion_blur_over_random"
"""Measure of explanations that H4 rests on: how much more the probability depends on the pixels
that a map ranks high than on random blobs; see :mod:`leuk.explain.checks`."""

MAPS = ("rollout", "gradcam")
"""Methods whose maps H4 compares, the first that both lines have: the attention itself, or else the
gradients behind the last layer."""

_ALPHA = 0.05

Judgement = Literal["supported", "refuted", "undecided", "not run"]

HYPOTHESES = {
    "H1": "The hybrid with GAN-made cells classifies better than CNN or ViT alone, and efficiently "
    "enough for deployment.",
    "H2": "Attention-based fusion beats plain addition and a simple ensemble of CNN and ViT.",
    "H3": "Prototypes make the model explain itself without losing accuracy.",
    "H4": "Regularizing the attention maps makes explanations more faithful without losing "
    "accuracy.",
}
"""What is claimed; the first is the thesis's primary one."""

NEEDS = {
    "H1": "hybrid with dcgan, wgan or cgan, and cnn and vit with none",
    "H2": "hybrid with fusion=attention and with fusion=add, and cnn and vit, all otherwise alike",
    "H3": "a model with head=prototype and the same one without",
    "H4": "a model with attention_loss above 0 and the same one without, both with checks=full",
}

NOTES = """\
Every claim rests on a 95 % interval. Better: that of the difference in AUROC lies above 0 with a
Holm p below {alpha}; contradicted if it lies below 0 with such a p. No loss: it lies above
-{margin}; contradicted if it does not and lies below 0 with such a p. Fast enough: the interval of
the latency over a line's runs lies below {latency:g} ms per image; contradicted if it lies above.
More faithful: the interval of the difference in insertion - deletion over random lies above 0;
contradicted if it lies below; these intervals hold together at 95 % for all comparisons of a split
(Bonferroni). Supported: every claim of the hypothesis holds; refuted: one is
contradicted; undecided: neither. H1 is evaluated for each GAN (better than CNN and ViT without
synthetic cells and with the same ones; fast enough), supported if one of them supports it and
refuted if all refute it. H3 needs prototypes that are tied to training images. H4 stays undecided
without checks of explanations; maps that a random network gives too are no evidence."""


@dataclass(frozen=True)
class Verdict:
    """What one split says of one hypothesis.

    Attributes:
        hypothesis: a key of :data:`HYPOTHESES`.
        split: whose test part; empty if no split was run.
        verdict: the judgement.
        figures: the comparisons behind it, in words.
    """

    hypothesis: str
    split: str
    verdict: Judgement
    figures: tuple[str, ...]


def better(comparison: Comparison) -> bool | None:
    """Whether the first line is better: True, False if it is worse, None if neither is shown."""
    found = comparison.result
    if found is None or comparison.p is None or comparison.p >= _ALPHA:
        return None
    if found.low > 0:
        return True
    return False if found.high < 0 else None


def no_worse(comparison: Comparison) -> bool | None:
    """Whether the first line loses less than the margin: True, False if it loses, else None."""
    found = comparison.result
    if found is not None and found.low > -MARGIN:
        return True
    return False if better(comparison) is False else None


def fast_enough(cost: Cost, limit: float) -> bool | None:
    """Claim that one image takes less than ``limit`` milliseconds; None if neither is shown."""
    low, high = cost.get("latency_ms_low"), cost.get("latency_ms_high")
    if low is None or high is None:
        return None
    if high < limit:
        return True
    return False if low > limit else None


def verdicts(
    comparisons: Sequence[Comparison],
    costs: Mapping[RunId, Cost],
    latency_ms: float = LATENCY_MS,
) -> list[Verdict]:
    """A verdict on each hypothesis for each split that can tell, or that nothing can.

    Args:
        comparisons: between the lines of a sweep.
        costs: of each line.
        latency_ms: within which a model is fit for deployment.
    """
    honest = [c for c in comparisons if not c.one.run.split.endswith(LEAKY)]
    splits = list(dict.fromkeys(c.one.run.split for c in honest))
    rules: dict[str, Callable[[Sequence[Comparison]], _Judged]] = {
        "H1": lambda own: _hybrid_with_gan(own, costs, latency_ms),
        "H2": _attention_fusion,
        "H3": _prototypes,
        "H4": _regularized,
    }
    found = []
    for hypothesis, rule in rules.items():
        results = [rule([c for c in honest if c.one.run.split == split]) for split in splits]
        decided = [
            Verdict(hypothesis, split, verdict, figures)
            for split, (verdict, figures) in zip(splits, results, strict=True)
            if verdict != "not run"
        ]
        missing = Verdict(hypothesis, "", "not run", (f"needs {NEEDS[hypothesis]}",))
        found += decided or [missing]
    return found


_Judged = tuple[Judgement, tuple[str, ...]]


def _all_hold(claims: Sequence[bool | None]) -> Judgement:
    if not claims:
        return "not run"
    if False in claims:
        return "refuted"
    return "undecided" if None in claims else "supported"


def _hybrid_with_gan(
    comparisons: Sequence[Comparison], costs: Mapping[RunId, Cost], limit: float
) -> _Judged:
    """H1, each GAN by itself."""
    hybrids = dict.fromkeys(
        c.one.run for c in comparisons if c.family == "gan_hybrid" and _plain(c.one.run)
    )
    judged: list[Judgement] = []
    figures: list[str] = []
    for cell in hybrids:
        asked = [c for c in comparisons if c.one.run == cell and c.other.run.model in MEMBERS]
        alone = {c.other.run.model for c in asked if c.family == "gan_hybrid"}
        if alone != set(MEMBERS):
            continue
        asked = [c for c in asked if c.family in ("gan_hybrid", "model")]
        fast, latency = _latency(cell, costs.get(cell), limit)
        judged.append(_all_hold([*map(better, asked), fast]))
        figures += [*map(_said, asked), latency]
    if not judged:
        return "not run", ()
    if "supported" in judged:
        return "supported", tuple(figures)
    return "refuted" if set(judged) == {"refuted"} else "undecided", tuple(figures)


def _latency(cell: RunId, cost: Cost | None, limit: float) -> tuple[bool | None, str]:
    """Claim that a line is fast enough, and the figure behind it."""
    if cost is None:
        return None, f"cost of {cell.title} not measured"
    low, high = cost.get("latency_ms_low"), cost.get("latency_ms_high")
    interval = (
        "without interval: it needs two runs on one device"
        if low is None or high is None
        else f"[{low:.2f}, {high:.2f}]"
    )
    return fast_enough(cost, limit), (
        f"{cell.title} takes {cost['latency_ms']:.2f} ms {interval} per image on "
        f"{cost['device']}; the limit is {limit:g} ms"
    )


def _attention_fusion(comparisons: Sequence[Comparison]) -> _Judged:
    """H2, wherever attention-based fusion has both to be compared with."""
    asked = [
        c
        for c in comparisons
        if c.family == "fusion" and setting(c.one.run, "fusion") == "attention"
    ]
    against = [
        {c.other.run.model == NAME for c in asked if c.one.run == cell}
        for cell in dict.fromkeys(c.one.run for c in asked)
    ]
    if {True, False} not in against:
        return "not run", ()
    return _all_hold([better(c) for c in asked]), tuple(map(_said, asked))


def _prototypes(comparisons: Sequence[Comparison]) -> _Judged:
    """H3: no comparison loses accuracy, and every model's prototypes are training patches."""
    own = [c for c in comparisons if c.family == "head"]
    tied = [_tied(c.one) for c in own]
    figures = [
        text
        for c, shown in zip(own, tied, strict=True)
        for text in (
            _said(c),
            f"{c.one.title}: prototypes "
            + ("are patches of training images" if shown else "not recorded"),
        )
    ]
    return _all_hold([*map(no_worse, own), *tied]), tuple(figures)


def _tied(line: Configuration) -> bool | None:
    """True if each run recorded the training patches that its prototypes are; else None."""
    found = [record.explanations.get("prototypes") for record in line.records]
    whole = bool(found) and all(isinstance(one, Mapping) and one.get("table") for one in found)
    return True if whole else None


def _regularized(comparisons: Sequence[Comparison]) -> _Judged:
    """H4: no comparison loses accuracy, and each makes explanations more faithful.

    Undecided, whatever the AUROC, where the explanations of a comparison were not checked.
    """
    own = [c for c in comparisons if c.family == "attention_loss"]
    figures: list[str] = []
    claims: list[bool | None] = []
    unchecked = False
    checked = [_checked_pairs(c.one, c.other) for c in own]
    tests = sum(bool(pairs) for _, pairs in checked)
    for c, (method, pairs) in zip(own, checked, strict=True):
        figures.append(_said(c))
        if not pairs:
            unchecked = True
            figures.append(f"{c.title}: explanations of both were checked in no common run")
            continue
        claim, shown = _more_faithful(pairs, tests)
        claims += [no_worse(c), claim]
        figures.append(f"{c.title}: faithfulness of {method} {shown}")
    return "undecided" if unchecked else _all_hold(claims), tuple(figures)


_Pair = tuple[int, Mapping[str, Any], Mapping[str, Any]]
"""A fold, and what two runs of it recorded of one method."""


def _checked_pairs(one: Configuration, other: Configuration) -> tuple[str, list[_Pair]]:
    """The first of :data:`MAPS` that runs of the same seed and fold have checked, and these."""

    def checked(line: Configuration, method: str) -> dict[tuple[int, int], Mapping[str, Any]]:
        found = {(r.run.seed, r.run.fold): r.explanations.get(method) for r in line.records}
        return {
            key: entry
            for key, entry in found.items()
            if isinstance(entry, Mapping) and None not in _bounds(entry)
        }

    for method in MAPS:
        ours, theirs = checked(one, method), checked(other, method)
        if both := sorted(ours.keys() & theirs.keys()):
            return method, [(key[1], ours[key], theirs[key]) for key in both]
    return "", []


def _more_faithful(pairs: Sequence[_Pair], tests: int) -> tuple[bool | None, str]:
    """Claim that maps of the first runs are more faithful, and the figure behind it.

    Args:
        pairs: of one comparison.
        tests: comparisons of the family, whose intervals hold together at 95 % (Bonferroni).
    """
    difference, low, high = _difference(pairs, tests)
    shown = difference_text(difference, low, high)
    if tests > 1:
        shown += f" (95 % for all {tests} comparisons together)"
    if any(run.get("passes_randomization") is False for _, *runs in pairs for run in runs):
        return None, f"{shown}, but maps fail the randomization check and are no evidence"
    return (True if low > 0 else False if high < 0 else None), shown


def _bounds(entry: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    found = entry.get("measures", {}).get(FAITHFULNESS, {})
    return found.get("value"), found.get("low"), found.get("high")


def _difference(pairs: Sequence[_Pair], tests: int) -> tuple[float, float, float]:
    """Mean difference over folds, with an interval of level 1 - 0.05 / tests.

    The interval of one pair follows from both models' own intervals (MOVER; Zou & Donner 2008),
    as if they were of different patients, which is too wide where they are of the same. Seeds of a
    fold share patients, so that their interval is no narrower than one's; folds are independent.
    Recorded intervals are of 95 %, t standard errors either way over the subjects; they are widened
    by the ratio of the two quantiles, with one degree of freedom where subjects are not recorded.
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
    """Value, and how far its interval of level 1 - 0.05 / tests reaches below and above it."""
    value, low, high = (float(bound) for bound in _bounds(entry) if bound is not None)
    freedom = max(entry["measures"][FAITHFULNESS].get("subjects", 0) - 1, 1)
    wider = float(stdtrit(freedom, 1 - _ALPHA / 2 / tests) / stdtrit(freedom, 1 - _ALPHA / 2))
    return value, wider * (value - low), wider * (high - value)


def _plain(cell: RunId) -> bool:
    """Whether none of the settings that have a hypothesis of their own is changed."""
    return all(setting(cell, name) is None for name in SETTINGS)


def _said(comparison: Comparison) -> str:
    found = comparison.result
    if found is None or comparison.p is None:
        return f"{comparison.title}: {comparison.note}"
    interval = difference_text(found.difference, found.low, found.high)
    return f"{comparison.title}: AUROC {interval}, Holm p {p_text(comparison.p)}"


def verdicts_section(judged: Sequence[Verdict], latency_ms: float = LATENCY_MS) -> Section:
    """The verdicts as a table, and below it the figures behind each.

    Args:
        judged: the verdicts.
        latency_ms: as they were reached with.
    """
    notes = NOTES.format(alpha=_ALPHA, margin=MARGIN, latency=latency_ms)
    rows = [(HYPOTHESES[one.hypothesis], one.split or "-", one.verdict) for one in judged]
    parts: list[Grid | str] = [Grid(("hypothesis", "split", "verdict"), tuple(rows)), notes]
    for one in judged:
        heading = f"## {one.hypothesis}: {one.verdict}" + (f" ({one.split})" if one.split else "")
        parts.append("\n".join([heading, "", *(f"- {text}" for text in one.figures)]))
    table = pd.DataFrame(
        [
            {
                "hypothesis": one.hypothesis,
                "claim": HYPOTHESES[one.hypothesis],
                "split": one.split,
                "verdict": one.verdict,
                "figures": "; ".join(one.figures),
            }
            for one in judged
        ]
    )
    return Section("verdicts", "The thesis's hypotheses", tuple(parts), table)
