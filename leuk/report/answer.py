"""The question of a sweep, answered in words: do GAN-made cells help, which model, by how much?

The rule is that of :mod:`leuk.report.verdicts`: a difference counts where its 95 % interval lies on
one side of 0 with a Holm-corrected p below 0.05. Made cells *help* where they beat no augmentation
and both controls that make no cells, since a GAN costs hours and oversampling nothing.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from leuk.grid.run_id import LEAKY, RunId
from leuk.report.comparisons import CONTROLS, FAMILIES, GANS, Comparison
from leuk.report.forest import BESIDE
from leuk.report.results import Configuration
from leuk.report.sections import Grid, Section, difference_text, p_text
from leuk.report.verdicts import better

QUESTION = "Do GAN-made cells help a classifier here?"

Judgement = Literal["helps", "in part", "harms", "not shown", "cannot say"]

GRID = "none,oversample,class_weights,dcgan,wgan,cgan"
"""Augmentations that together answer the question."""

NOTES = """\
Difference in test AUROC, its 95 % interval over persons, and p after Holm's correction for all
tests of the question on the split. A positive one says that made cells are the better choice. Lines
of the ensemble, which is computed from CNN and ViT, are not counted here; see the comparisons."""

ONCE = """\
Every fold was fitted with one seed: how far another would have moved a difference is not in its
interval; seed=0,1,2 would show."""


@dataclass(frozen=True, eq=False)
class Tested:
    """One line with made cells, and what it was compared with.

    Attributes:
        line: the model with its GAN.
        against: by ``none``, ``oversample`` and ``class_weights`` those that have a result.
    """

    line: Configuration
    against: Mapping[str, Comparison]

    def better(self, other: str) -> bool | None:
        """Whether it is: None where neither is shown, or not compared."""
        return better(self.against[other]) if other in self.against else None


@dataclass(frozen=True, eq=False)
class Answer:
    """The first thing a reader sees.

    Attributes:
        judgement: in one word or two.
        headline: in a sentence.
        sentences: what it rests on.
        command: what to run for what cannot be said yet; empty if nothing is.
        section: the figures, as a table.
    """

    judgement: Judgement
    headline: str
    sentences: tuple[str, ...]
    command: str
    section: Section


def answer(
    groups: Sequence[Configuration],
    comparisons: Sequence[Comparison],
    name: str,
    overrides: Sequence[str] = (),
) -> Answer:
    """Answer the question from the comparisons of a sweep; leaky splits count for nothing.

    Args:
        groups: lines of the report.
        comparisons: between them.
        name: of the sweep.
        overrides: of all its lines, for what is to be run if something is missing.
    """
    asked = command(groups, name, overrides)
    tested = tested_rows(comparisons)
    section = _section(tested)
    if not tested:
        headline, sentences = _cannot(groups)
        return Answer("cannot say", headline, sentences, asked, section)
    judgement, headline = _judged(tested)
    lacking = [other for other in CONTROLS if not any(other in one.against for one in tested)]
    sentences = (
        _largest(tested),
        *(_beside(tested, other) for other in CONTROLS),
        *_worse(tested),
        _seen(tested),
    )
    return Answer(judgement, headline, sentences, asked if lacking else "", section)


def tested_rows(comparisons: Sequence[Comparison]) -> list[Tested]:
    """Every line with made cells that can be compared with the same model without any."""
    found: dict[RunId, dict[str, Comparison]] = {}
    lines: dict[RunId, Configuration] = {}
    for one in comparisons:
        cell = one.one.run
        if one.family not in ("augmentation", "control") or cell.augmentation not in GANS:
            continue
        if one.result is None or cell.split.endswith(LEAKY):
            continue
        lines[cell] = one.one
        found.setdefault(cell, {}).setdefault(one.other.run.augmentation, one)
    return [Tested(lines[cell], against) for cell, against in found.items() if "none" in against]


def _judged(tested: Sequence[Tested]) -> tuple[Judgement, str]:
    gains = [one for one in tested if one.better("none")]
    proven = [one for one in gains if all(one.better(other) for other in CONTROLS)]
    losses = [one for one in tested if one.better("none") is False]
    if proven:
        return "helps", (
            f"Yes, for {_named(proven)}: better than none, oversampling and class weights."
        )
    if gains:
        asked = [other for other in CONTROLS if any(other in one.against for one in gains)]
        beaten = " and ".join(BESIDE[other] for other in asked)
        return "in part", f"In part: {_named(gains)} gains over no augmentation, but " + (
            f"is not shown to do more than {beaten}, which cost nothing."
            if asked
            else "whether more than oversampling and class weights do, the sweep cannot say."
        )
    if losses:
        return "harms", f"No: made cells make {_named(losses)} worse, and no line better."
    return "not shown", "Not shown: no model gains or loses by more than chance."


def _named(tested: Sequence[Tested], most: int = 3) -> str:
    titles = [one.line.title for one in tested]
    more = f" and {len(titles) - most} more" if len(titles) > most else ""
    return ", ".join(titles[:most]) + more


def _largest(tested: Sequence[Tested]) -> str:
    """The largest difference from none either way, and of how many."""
    one = max(tested, key=lambda one: abs(_difference(one.against["none"])))
    count = f"Of {len(tested)} lines with made cells the" if len(tested) > 1 else "The"
    return f"{count} largest difference from no augmentation is {_said(one.against['none'])}."


def _beside(tested: Sequence[Tested], other: str) -> str:
    """How made cells do against a control, or that nobody asked."""
    name = BESIDE[other]
    asked = [one for one in tested if other in one.against]
    if not asked:
        return f"Against {name} nothing can be said: no complete cell of the sweep has it."
    counts = [
        (sum(one.better(other) is wanted for one in asked), words)
        for wanted, words in ((True, "better"), (False, "worse"), (None, "undecided"))
    ]
    said = ", ".join(f"{count} {words}" for count, words in counts if count)
    one = max(asked, key=lambda one: abs(_difference(one.against[other])))
    return f"Against {name}: {said}; the largest difference is {_said(one.against[other])}."


def _worse(tested: Sequence[Tested]) -> list[str]:
    """Who is worse for it; whoever gains is in the headline."""
    losses = [one for one in tested if one.better("none") is False]
    gains = any(one.better("none") for one in tested)
    return [f"Made cells make {_named(losses)} worse."] if losses and gains else []


def _seen(tested: Sequence[Tested]) -> str:
    """What could have been seen at all."""
    found = [c.result.detectable for one in tested if (c := one.against["none"]).result]
    low, high = min(found), max(found)
    span = f"{low:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f} to {high:.3f}"
    return (
        f"A difference below {span} would mostly not have been seen on these persons, so that it "
        "cannot be ruled out either."
    )


def _difference(comparison: Comparison) -> float:
    return comparison.result.difference if comparison.result else 0.0


def _said(comparison: Comparison) -> str:
    found = comparison.result
    assert found is not None
    interval = difference_text(found.difference, found.low, found.high)
    p = "" if comparison.p is None else f", Holm p {p_text(comparison.p)}"
    return f"{interval} ({comparison.one.title}{p})"


def _cannot(groups: Sequence[Configuration]) -> tuple[str, tuple[str, ...]]:
    """Why the sweep has no answer."""
    complete = [group for group in groups if group.runs]
    honest = [group for group in complete if not group.run.split.endswith(LEAKY)]
    headline = "This sweep cannot say."
    if not complete:
        return headline, ("No cell of it is complete, or none left predictions that can be read.",)
    if not honest:
        return headline, (
            "Every complete cell is of a split that leaks: persons are in two parts, so that no "
            "difference of theirs is to be believed. Choose a split of whole persons.",
        )
    made = [group for group in honest if group.run.augmentation in GANS]
    if not made:
        return headline, ("No complete cell of it was trained with GAN-made cells.",)
    return headline, (
        "It has GAN-made cells, but no complete cell of the same model, split, seed and fold "
        "without augmentation to compare them with.",
    )


def command(groups: Sequence[Configuration], name: str, overrides: Sequence[str] = ()) -> str:
    """What to run so that the question can be answered; started again, only what is missing.

    Args:
        groups: of the sweep.
        name: of the sweep.
        overrides: that all its lines were run with.
    """
    models = dict.fromkeys(g.run.model for g in groups if g.records) or {"cnn": None}
    kept = [text for text in overrides if text.partition("=")[0] not in _CHOSEN]
    chosen = [f"name={name}", f"model={','.join(models)}", f"augmentation={GRID}"]
    return shlex.join(["leuk", "train", "-m", *chosen, *kept])


_CHOSEN = ("name", "model", "augmentation")


def _section(tested: Sequence[Tested]) -> Section:
    columns = [name for name in BESIDE if any(name in one.against for one in tested)]
    header = ("with made cells", *(f"minus {BESIDE[name]}" for name in columns))
    rows = [(one.line.title, *(_text(one.against.get(name)) for name in columns)) for one in tested]
    shown: Grid | str = Grid(header, tuple(rows)) if rows else "Nothing to compare."
    sizes = {
        f"{c.tests} for {FAMILIES[c.family]}": None
        for one in tested
        for c in one.against.values()
        if c.tests
    }
    notes = f"{NOTES} Tests corrected together: {'; '.join(sizes)}." if sizes else NOTES
    table = pd.DataFrame(
        [
            {
                "configuration": one.line.title,
                "minus": name,
                **{key: getattr(c.result, key) for key in ("difference", "low", "high", "p")},
                "p_holm": c.p,
                "tests": c.tests,
                "detectable": c.result.detectable if c.result else None,
            }
            for one in tested
            for name, c in one.against.items()
        ]
    )
    once = bool(tested) and all(one.line.fitted_once for one in tested)
    return Section("answer", QUESTION, (shown, f"{notes} {ONCE}" if once else notes), table)


def _text(comparison: Comparison | None) -> str:
    if comparison is None or comparison.result is None or comparison.p is None:
        return "-"
    found = comparison.result
    interval = difference_text(found.difference, found.low, found.high)
    return f"{interval}, p {p_text(comparison.p)}"
