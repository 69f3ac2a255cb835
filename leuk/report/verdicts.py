"""Verdicts on the four hypotheses that the thesis states but does not test.

:data:`NOTES` states when a claim holds and when it is contradicted: by a 95 % interval, never by a
point estimate. In code a claim is True, False or None (undecided). A hypothesis is *not run* if a
comparison that it needs is missing. Leaky splits are ignored; every split has separate verdicts.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
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
    """Verdict on a hypothesis for a split, with a text for each claim behind it.

    ``split`` is empty, and the verdict ``not run``, if no split has the needed runs.
    """

    hypothesis: str
    split: str
    verdict: Outcome
    evidence: tuple[str, ...]


Claim = tuple[bool | None, str]
"""True, False or None (undecided), and the evidence."""


def verdicts(
    comparisons: Sequence[Comparison],
    costs: Mapping[RunId, Cost],
    latency_ms: float = LATENCY_MS,
) -> list[Verdict]:
    """Verdicts on each hypothesis for each split with the needed runs, else ``not run``."""
    honest: dict[str, list[Comparison]] = defaultdict(list)
    for c in comparisons:
        if not c.one.run.leaky:
            honest[c.one.run.split_name].append(c)
    # Each rule returns the claims of each attempt to show its hypothesis.
    rules: dict[str, Callable[[Sequence[Comparison]], list[list[Claim]]]] = {
        "H1": lambda own: _hybrid_with_gan(own, costs, latency_ms),
        "H2": _attention_fusion,
        "H3": _prototypes,
        "H4": _regularized,
    }
    found = []
    for hypothesis, rule in rules.items():
        decided = []
        for split, own in honest.items():
            if attempts := rule(own):
                evidence = tuple(text for attempt in attempts for _, text in attempt)
                decided.append(Verdict(hypothesis, split, _outcome(attempts), evidence))
        missing = Verdict(hypothesis, "", "not run", (f"needs {NEEDS[hypothesis]}",))
        found += decided or [missing]
    return found


def _outcome(attempts: Sequence[Sequence[Claim]]) -> Outcome:
    """Supported if all claims of an attempt hold; refuted if every attempt has a false claim."""
    claims = [[claim for claim, _ in attempt] for attempt in attempts]
    if any(all(own) for own in claims):
        return "supported"
    return "refuted" if all(False in own for own in claims) else "undecided"


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


def _no_worse(comparison: Comparison) -> bool | None:
    """Return True if the loss is below the margin, False if a loss is shown, else None."""
    found = comparison.result
    if found is not None and found.low > -MARGIN:
        return True
    return False if better(comparison) is False else None


def _text(comparison: Comparison) -> str:
    found = comparison.result
    if found is None or comparison.p is None:
        return f"{comparison.title}: {comparison.note}"
    interval = difference_text(found.difference, found.low, found.high)
    return f"{comparison.title}: AUROC {interval}, Holm p {p_text(comparison.p)}"


def _hybrid_with_gan(
    comparisons: Sequence[Comparison], costs: Mapping[RunId, Cost], limit: float
) -> list[list[Claim]]:
    """H1, for each GAN separately."""
    attempts = []
    for run in dict.fromkeys(c.one.run for c in comparisons if c.family == "gan_hybrid"):
        needed = [
            c
            for c in comparisons
            if c.one.run == run
            and c.other.run.model in MEMBERS
            and c.family in ("gan_hybrid", "model")
        ]
        both = {c.other.run.model for c in needed if c.family == "gan_hybrid"} == set(MEMBERS)
        # Settings with a hypothesis of their own must have their defaults.
        if both and not any(changed(run, key) for key in SETTINGS):
            fast, latency = _fast_enough(costs.get(run), limit)
            claims = [(better(c), _text(c)) for c in needed]
            attempts.append([*claims, (fast, f"{needed[0].one.title}: {latency}")])
    return attempts


def _fast_enough(cost: Cost | None, limit: float) -> Claim:
    """Claim that an image takes less than ``limit`` ms."""
    if cost is None:
        return None, "latency was not measured"
    low, high = cost.get("latency_ms_low"), cost.get("latency_ms_high")
    interval = "without interval (needs two runs on the same device)"
    fast = None
    if low is not None and high is not None:
        interval = f"[{low:.2f}, {high:.2f}]"
        fast = _positive(limit - high, limit - low)
    return fast, (
        f"{cost['latency_ms']:.2f} ms {interval} per image on {cost['device']}; "
        f"the limit is {limit:g} ms"
    )


def _attention_fusion(comparisons: Sequence[Comparison]) -> list[list[Claim]]:
    """H2, where attention-based fusion has both counterparts."""
    needed = [
        c
        for c in comparisons
        if c.family == "fusion" and c.one.run.settings.get("model.fusion") == "attention"
    ]
    others: dict[RunId, set[bool]] = defaultdict(set)
    for c in needed:
        others[c.one.run].add(c.other.run.model == ENSEMBLE)
    return [[(better(c), _text(c)) for c in needed]] if {True, False} in others.values() else []


def _prototypes(comparisons: Sequence[Comparison]) -> list[list[Claim]]:
    """H3: no comparison loses AUROC, and the prototypes of every model are training patches."""
    claims: list[Claim] = []
    for c in (c for c in comparisons if c.family == "head"):
        found = [record.explanations.get("prototypes") for record in c.one.records]
        tied = bool(found) and all(isinstance(one, Mapping) and one.get("table") for one in found)
        shown = "are patches of training images" if tied else "not recorded"
        claims += [(_no_worse(c), _text(c)), (tied or None, f"{c.one.title}: prototypes {shown}")]
    return [claims] if claims else []


# --- H4: faithfulness of explanations

_Pair = tuple[int, Mapping[str, Any], Mapping[str, Any]]
"""A fold, and the records of one method from two runs of it."""


def _regularized(comparisons: Sequence[Comparison]) -> list[list[Claim]]:
    """H4: no comparison loses AUROC, and each makes explanations more faithful.

    Undecided, whatever the AUROC, if the explanations of a comparison were not checked.
    """
    own = [c for c in comparisons if c.family == "attention_loss"]
    of_attention = _methods_of_attention() if own else set()
    checked = [_checked_pairs(c.one, c.other, of_attention) for c in own]
    tests = sum(bool(pairs) for _, pairs in checked)
    claims: list[Claim] = []
    for c, (method, pairs) in zip(own, checked, strict=True):
        claims.append((_no_worse(c), _text(c)))
        if pairs:
            claim, shown = _more_faithful(pairs, tests)
            claims.append((claim, f"{c.title}: faithfulness of {method} {shown}"))
        else:
            claims.append((None, f"{c.title}: no common run has checked explanations of both"))
    if tests < len(own):
        claims = [(None, text) for _, text in claims]
    return [claims] if claims else []


def _checked_pairs(
    one: Configuration, other: Configuration, of_attention: Collection[str]
) -> tuple[str, list[_Pair]]:
    """Return the first method checked in matching runs, and these runs.

    Maps of the attention itself, which H4 regularizes, come first; then the order of the records.
    """
    first, second = (
        {
            (name, record.run.seed, record.run.fold): entry
            for record in configuration.records
            for name, entry in record.explanations.items()
            if isinstance(entry, Mapping)
            and (measure := entry.get("measures", {}).get(FAITHFULNESS))
            and None not in map(measure.get, ("value", "low", "high"))
        }
        for configuration in (one, other)
    )
    both = sorted(first.keys() & second.keys(), key=lambda key: key[1:])
    methods = dict.fromkeys(name for name, _, _ in first)
    for method in sorted(methods, key=lambda name: name not in of_attention):
        if own := [key for key in both if key[0] == method]:
            return method, [(key[2], first[key], second[key]) for key in own]
    return "", []


def _methods_of_attention() -> set[str]:
    """Methods of the config group ``explain`` whose maps are those of the attention."""
    configs = map(OmegaConf.load, (conf_dir() / "explain").glob("*.yaml"))
    nodes = (item for config in configs for item in config.items())
    return {
        str(name)
        for name, node in nodes
        if "_target_" in node and get_object(node["_target_"]).of_attention
    }


def _more_faithful(pairs: Sequence[_Pair], tests: int) -> Claim:
    """Claim that the maps of the first runs are more faithful.

    The interval has level 1 - 0.05 / tests, for ``tests`` comparisons together (Bonferroni). That
    of a pair is computed from the intervals of both models (MOVER; Zou & Donner 2008) as if their
    patients were different, which is conservative for the same patients. Seeds of a fold share
    patients, so averaging over them does not narrow the interval; folds are independent.
    """
    by_fold: dict[int, list[tuple[float, float, float]]] = defaultdict(list)
    for fold, *runs in pairs:
        (a, a_below, a_above), (b, b_below, b_above) = (_arms(run, tests) for run in runs)
        by_fold[fold].append((a - b, hypot(a_below, b_above), hypot(a_above, b_below)))
    folds = [[mean(column) for column in zip(*found, strict=True)] for found in by_fold.values()]
    difference = mean(fold[0] for fold in folds)
    below, above = (hypot(*(fold[side] for fold in folds)) / len(folds) for side in (1, 2))
    low, high = difference - below, difference + above
    shown = difference_text(difference, low, high)
    if tests > 1:
        shown += f" (simultaneous 95 % interval for {tests} comparisons)"
    if any(run.get("passes_randomization") is False for _, *runs in pairs for run in runs):
        return None, f"{shown}, but the maps fail the randomization check, so this is no evidence"
    return _positive(low, high), shown


def _arms(entry: Mapping[str, Any], tests: int) -> tuple[float, float, float]:
    """Value, and the widths of its interval of level 1 - 0.05 / tests below and above it.

    Recorded intervals are 95 % t intervals over subjects; they are widened by the ratio of the two
    t quantiles, with one degree of freedom if the number of subjects is not recorded.
    """
    found = entry["measures"][FAITHFULNESS]
    value, low, high = (float(found[key]) for key in ("value", "low", "high"))
    freedom = max(found.get("subjects", 0) - 1, 1)
    wider = float(stdtrit(freedom, 1 - _ALPHA / 2 / tests) / stdtrit(freedom, 1 - _ALPHA / 2))
    return value, wider * (value - low), wider * (high - value)


def verdicts_section(found: Sequence[Verdict], latency_ms: float = LATENCY_MS) -> Section:
    """Return the verdicts, which used this latency limit, as a table, followed by the evidence."""
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
