"""The four hypotheses that the thesis states and does not test: supported, refuted or undecided.

The rule is the same for all. A claim of *better* holds for one comparison if the 95 % interval of
the difference in AUROC lies above 0 and its Holm-corrected p is below 0.05, and is contradicted if
the interval lies below 0 with such a p. A claim of *no loss* holds if the interval lies above
minus :data:`MARGIN`, and is contradicted if it does not and a loss is shown: the interval lies
below 0 with such a p. A hypothesis is

- *supported* if every claim it makes holds,
- *refuted* if any of them is contradicted,
- *undecided* otherwise, and
- *not run* if a comparison it needs is missing.

Lines of a leaky split count for nothing. Splits are judged apart.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from leuk.grid.cell import LEAKY, Cell
from leuk.report.comparisons import SETTINGS, Comparison, setting
from leuk.report.costs import Cost
from leuk.report.ensemble import MEMBERS, NAME
from leuk.report.sections import Grid, Section, difference_text, p_text

MARGIN = 0.02
"""AUROC that may be lost where a hypothesis claims that nothing is."""

_ALPHA = 0.05

Judgement = Literal["supported", "refuted", "undecided", "not run"]

HYPOTHESES = {
    "H1": "The hybrid with GAN-made cells classifies better and more efficiently than CNN or ViT "
    "alone.",
    "H2": "Attention-based fusion beats plain addition and a simple ensemble of CNN and ViT.",
    "H3": "Prototypes make the model explain itself without losing accuracy.",
    "H4": "Regularising the attention maps helps.",
}
"""What is claimed; the first is the thesis's primary one."""

NEEDS = {
    "H1": "hybrid with dcgan, wgan or cgan, and cnn and vit with none",
    "H2": "hybrid with fusion=attention and with fusion=add, and cnn and vit, all otherwise alike",
    "H3": "a model with head=prototype and the same one without",
    "H4": "a model with attention_loss above 0 and the same one without",
}

NOTES = f"""\
A claim of better holds if the 95 % interval of the difference in AUROC lies above 0 with a Holm
p below {_ALPHA}, and is contradicted if it lies below 0 with such a p. A claim of no loss holds if
the interval lies above -{MARGIN}, and is contradicted if it does not and lies below 0 with such
a p. Supported: every claim of the hypothesis holds; refuted: one is contradicted; undecided:
neither. H1 is judged for each GAN (better than CNN and ViT without made cells and with the same
ones; fewer FLOPs and a shorter latency than both), supported if one of them supports it and refuted
if all refute it."""


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


def cheaper(one: Cost, other: Cost) -> bool | None:
    """Whether it needs fewer FLOPs and less time: True, False if more of both, else None.

    Times of different devices are not compared: the answer is None.
    """
    if one["device"] != other["device"]:
        return None
    fewer = [one[name] < other[name] for name in ("flops", "latency_ms")]
    more = [one[name] > other[name] for name in ("flops", "latency_ms")]
    if all(fewer):
        return True
    return False if all(more) else None


def verdicts(comparisons: Sequence[Comparison], costs: Mapping[Cell, Cost]) -> list[Verdict]:
    """A verdict on each hypothesis for each split that can tell, or that nothing can."""
    honest = [c for c in comparisons if not c.one.cell.split.endswith(LEAKY)]
    splits = list(dict.fromkeys(c.one.cell.split for c in honest))
    judged = []
    for hypothesis, judge in _JUDGES.items():
        found = [judge([c for c in honest if c.one.cell.split == split], costs) for split in splits]
        told = [
            Verdict(hypothesis, split, verdict, figures)
            for split, (verdict, figures) in zip(splits, found, strict=True)
            if verdict != "not run"
        ]
        missing = Verdict(hypothesis, "", "not run", (f"needs {NEEDS[hypothesis]}",))
        judged += told or [missing]
    return judged


_Judged = tuple[Judgement, tuple[str, ...]]


def _all_hold(claims: Sequence[bool | None]) -> Judgement:
    if not claims:
        return "not run"
    if False in claims:
        return "refuted"
    return "undecided" if None in claims else "supported"


def _hybrid_with_gan(comparisons: Sequence[Comparison], costs: Mapping[Cell, Cost]) -> _Judged:
    """H1, each GAN by itself."""
    hybrids = dict.fromkeys(
        c.one.cell for c in comparisons if c.family == "gan_hybrid" and _plain(c.one.cell)
    )
    judged: list[Judgement] = []
    figures: list[str] = []
    for cell in hybrids:
        asked = [c for c in comparisons if c.one.cell == cell and c.other.cell.model in MEMBERS]
        alone = {c.other.cell.model for c in asked if c.family == "gan_hybrid"}
        if alone != set(MEMBERS):
            continue
        asked = [c for c in asked if c.family in ("gan_hybrid", "model")]
        price, said = _efficiency(cell, costs)
        judged.append(_all_hold([*map(better, asked), *price]))
        figures += [*map(_said, asked), *said]
    if not judged:
        return "not run", ()
    if "supported" in judged:
        return "supported", tuple(figures)
    return "refuted" if set(judged) == {"refuted"} else "undecided", tuple(figures)


def _efficiency(cell: Cell, costs: Mapping[Cell, Cost]) -> tuple[list[bool | None], list[str]]:
    """Whether a hybrid costs less than each model alone, and the figures."""
    claims: list[bool | None] = []
    said = []
    for model in MEMBERS:
        one, other = costs.get(cell), costs.get(replace(cell.plain, model=model))
        if one is None or other is None:
            claims.append(None)
            said.append(f"cost of {cell.title} or of {model} not measured")
            continue
        claims.append(cheaper(one, other))
        said.append(
            f"{cell.title} needs {one['flops'] / other['flops']:.2f} times the FLOPs and "
            f"{one['latency_ms'] / other['latency_ms']:.2f} times the latency of {model}"
        )
    return claims, said


def _attention_fusion(comparisons: Sequence[Comparison], costs: Mapping[Cell, Cost]) -> _Judged:
    """H2, wherever attention-based fusion has both to be compared with."""
    asked = [
        c
        for c in comparisons
        if c.family == "fusion" and setting(c.one.cell, "fusion") == "attention"
    ]
    against = [
        {c.other.cell.model == NAME for c in asked if c.one.cell == cell}
        for cell in dict.fromkeys(c.one.cell for c in asked)
    ]
    if {True, False} not in against:
        return "not run", ()
    return _all_hold([better(c) for c in asked]), tuple(map(_said, asked))


def _of_family(family: str, claim: Callable[[Comparison], bool | None]) -> "_Judge":
    """H3 and H4: the claim holds in every comparison of the family."""

    def judge(comparisons: Sequence[Comparison], costs: Mapping[Cell, Cost]) -> _Judged:
        asked = [c for c in comparisons if c.family == family]
        return _all_hold([claim(c) for c in asked]), tuple(map(_said, asked))

    return judge


_Judge = Callable[[Sequence[Comparison], Mapping[Cell, Cost]], _Judged]

_JUDGES: dict[str, _Judge] = {
    "H1": _hybrid_with_gan,
    "H2": _attention_fusion,
    "H3": _of_family("head", no_worse),
    "H4": _of_family("attention_loss", better),
}


def _plain(cell: Cell) -> bool:
    """Whether none of the settings that have a hypothesis of their own is changed."""
    return all(setting(cell, name) is None for name in SETTINGS)


def _said(comparison: Comparison) -> str:
    found = comparison.result
    if found is None or comparison.p is None:
        return f"{comparison.title}: {comparison.note}"
    interval = difference_text(found.difference, found.low, found.high)
    return f"{comparison.title}: AUROC {interval}, Holm p {p_text(comparison.p)}"


def verdicts_section(judged: Sequence[Verdict]) -> Section:
    """The verdicts as a table, and below it the figures behind each."""
    rows = [(HYPOTHESES[one.hypothesis], one.split or "-", one.verdict) for one in judged]
    parts: list[Grid | str] = [Grid(("hypothesis", "split", "verdict"), tuple(rows)), NOTES]
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
