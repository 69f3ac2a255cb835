"""Answer to the question of a sweep: do synthetic images help, which model, and by how much?

The criterion is that of :mod:`leuk.report.verdicts`: a difference counts if its 95 % interval
excludes 0 and its Holm-corrected p is below 0.05. Synthetic images *help* if they beat no
augmentation and both controls (oversampling and class weights): a GAN costs hours of training,
the controls cost nothing.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from leuk.config import augmentations
from leuk.report.comparisons import FAMILIES, Comparison
from leuk.report.figures import reference
from leuk.report.results import Configuration
from leuk.report.sections import Grid, Section, difference_text, p_text
from leuk.report.verdicts import better
from leuk.runs.record import RunId

QUESTION = "Do synthetic images from a GAN improve a classifier on this data set?"

Conclusion = Literal["helps", "in part", "harms", "not shown", "cannot say"]

CONTROLS = [name for name, kind in augmentations().items() if kind == "control"]
"""Augmentations without synthetic images: a GAN must beat them to be worth its training time."""

GRID = ",".join(augmentations())
"""Augmentations that together answer the question."""

NOTES = """\
Difference in test AUROC with its 95 % interval (patients resampled) and p, Holm-corrected for all
tests of the same question on the split. Positive: better with synthetic images. The ensemble is
computed from the CNN and the ViT and therefore not counted here; see the table of comparisons."""

ONCE = """\
Every fold was trained with one seed, so the intervals do not include the variation between
training runs; run seed=0,1,2 to include it."""


@dataclass(frozen=True, eq=False)
class Tested:
    """A configuration with synthetic images and its comparisons.

    Attributes:
        configuration: a model trained with a GAN's images.
        against: comparisons with ``none``, ``oversample`` and ``class_weights``, as far as
            available.
    """

    configuration: Configuration
    against: Mapping[str, Comparison]

    def better(self, reference: str) -> bool | None:
        """Return True if better than ``reference``, False if worse, None if not decided."""
        return better(self.against[reference]) if reference in self.against else None


@dataclass(frozen=True, eq=False)
class Answer:
    """The first paragraph of a report.

    Attributes:
        conclusion: the answer in a word or two.
        headline: the answer in a sentence.
        sentences: the evidence.
        command: command line that completes the evidence; empty if nothing is missing.
        section: the evidence as a table.
    """

    conclusion: Conclusion
    headline: str
    sentences: tuple[str, ...]
    command: str
    section: Section


def answer(
    configurations: Sequence[Configuration],
    comparisons: Sequence[Comparison],
    name: str,
    overrides: Sequence[str] = (),
) -> Answer:
    """Answer the question from the comparisons of a sweep, leaky splits excluded.

    Args:
        configurations: all configurations of the report.
        comparisons: comparisons between them.
        name: name of the sweep.
        overrides: overrides common to all runs, for the suggested command.
    """
    suggested = command(configurations, name, overrides)
    tested = tested_configurations(comparisons)
    section = _section(tested)
    if not tested:
        headline, sentences = _no_answer(configurations)
        return Answer("cannot say", headline, sentences, suggested, section)
    conclusion, headline = _conclude(tested)
    lacking = [control for control in CONTROLS if not any(control in one.against for one in tested)]
    sentences = (
        _largest(tested),
        *(_control_sentence(tested, control) for control in CONTROLS),
        *_losses(tested),
        _detectable(tested),
    )
    return Answer(conclusion, headline, sentences, suggested if lacking else "", section)


def tested_configurations(comparisons: Sequence[Comparison]) -> list[Tested]:
    """Configurations with synthetic images that have a counterpart without augmentation."""
    found: dict[RunId, dict[str, Comparison]] = {}
    configurations: dict[RunId, Configuration] = {}
    for comparison in comparisons:
        run = comparison.one.run
        if comparison.family not in ("augmentation", "control") or run.kind != "gan":
            continue
        if comparison.result is None or run.leaky:
            continue
        configurations[run] = comparison.one
        found.setdefault(run, {}).setdefault(comparison.other.run.augmentation, comparison)
    return [Tested(configurations[run], them) for run, them in found.items() if "none" in them]


def _conclude(tested: Sequence[Tested]) -> tuple[Conclusion, str]:
    gains = [one for one in tested if one.better("none")]
    proven = [one for one in gains if all(one.better(control) for control in CONTROLS)]
    losses = [one for one in tested if one.better("none") is False]
    if proven:
        return "helps", (
            f"Yes, for {_names(proven)}: better than no augmentation, oversampling and class "
            "weights."
        )
    if gains:
        compared = [control for control in CONTROLS if any(control in one.against for one in gains)]
        controls = " and ".join(reference(control) for control in compared)
        return "in part", f"In part: better than no augmentation for {_names(gains)}, but " + (
            f"not significantly better than {controls} (no GAN needed)."
            if compared
            else "this sweep has no comparison with oversampling and class weights."
        )
    if losses:
        return "harms", f"No: synthetic images worsen {_names(losses)} and improve no model."
    return "not shown", "Not shown: no significant gain or loss for any model."


def _names(tested: Sequence[Tested], most: int = 3) -> str:
    titles = [one.configuration.title for one in tested]
    more = f" and {len(titles) - most} more" if len(titles) > most else ""
    return ", ".join(titles[:most]) + more


def _largest(tested: Sequence[Tested]) -> str:
    """Sentence on the largest difference from no augmentation, in either direction."""
    one = max(tested, key=lambda one: abs(_difference(one.against["none"])))
    start = (
        f"Among {len(tested)} configurations with synthetic images, the"
        if len(tested) > 1
        else "The"
    )
    return (
        f"{start} largest AUROC difference from no augmentation is "
        f"{_difference_text(one.against['none'])}."
    )


def _control_sentence(tested: Sequence[Tested], control: str) -> str:
    """Sentence on the comparisons with a control, or on their absence."""
    name = reference(control)
    compared = [one for one in tested if control in one.against]
    if not compared:
        return f"No comparison with {name}: the sweep has no complete run with it."
    counts = [
        (sum(one.better(control) is wanted for one in compared), words)
        for wanted, words in ((True, "better"), (False, "worse"), (None, "undecided"))
    ]
    counted = ", ".join(f"{count} {words}" for count, words in counts if count)
    one = max(compared, key=lambda one: abs(_difference(one.against[control])))
    largest = _difference_text(one.against[control])
    return f"Compared with {name}: {counted}; the largest AUROC difference is {largest}."


def _losses(tested: Sequence[Tested]) -> list[str]:
    """Sentence on configurations that lose, where the headline names those that gain."""
    losses = [one for one in tested if one.better("none") is False]
    gains = any(one.better("none") for one in tested)
    return [f"Synthetic images worsen {_names(losses)}."] if losses and gains else []


def _detectable(tested: Sequence[Tested]) -> str:
    found = [c.result.detectable for one in tested if (c := one.against["none"]).result]
    low, high = min(found), max(found)
    span = f"{low:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f} to {high:.3f}"
    return (
        f"Minimum detectable difference (80 % power): {span}; smaller effects cannot be excluded."
    )


def _difference(comparison: Comparison) -> float:
    return comparison.result.difference if comparison.result else 0.0


def _difference_text(comparison: Comparison) -> str:
    found = comparison.result
    assert found is not None
    interval = difference_text(found.difference, found.low, found.high)
    p = "" if comparison.p is None else f", Holm p {p_text(comparison.p)}"
    return f"{interval} ({comparison.one.title}{p})"


def _no_answer(configurations: Sequence[Configuration]) -> tuple[str, tuple[str, ...]]:
    """Headline, and the reason why a sweep cannot answer the question."""
    complete = [one for one in configurations if one.runs]
    honest = [one for one in complete if not one.run.leaky]
    headline = "This sweep cannot answer the question yet."
    if not complete:
        return headline, ("No run is complete with readable predictions.",)
    if not honest:
        return headline, (
            "Every complete run uses a split that leaks: the same patients are in training and "
            "test data, so no difference is reliable. Choose a split by patient.",
        )
    if not any(one.run.kind == "gan" for one in honest):
        return headline, ("No complete run was trained with synthetic images.",)
    return headline, (
        "Runs with synthetic images are complete, but there is no run without augmentation "
        "of the same model, split, seed and fold to compare them with.",
    )


def command(
    configurations: Sequence[Configuration], name: str, overrides: Sequence[str] = ()
) -> str:
    """Command line that answers the question; complete runs are skipped when it is started.

    Args:
        configurations: all configurations of the sweep.
        name: name of the sweep.
        overrides: overrides common to all its runs.
    """
    models = dict.fromkeys(one.run.model for one in configurations if one.records) or {"cnn": None}
    kept = [text for text in overrides if text.partition("=")[0] not in _CHOSEN]
    chosen = [f"name={name}", f"model={','.join(models)}", f"augmentation={GRID}"]
    return shlex.join(["leuk", "train", "-m", *chosen, *kept])


_CHOSEN = ("name", "model", "augmentation")


def _section(tested: Sequence[Tested]) -> Section:
    columns = [name for name in augmentations() if any(name in one.against for one in tested)]
    header = ("with synthetic images", *(f"minus {reference(name)}" for name in columns))
    rows = [
        (one.configuration.title, *(_text(one.against.get(name)) for name in columns))
        for one in tested
    ]
    shown: Grid | str = Grid(header, tuple(rows)) if rows else "No comparison is possible."
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
                "configuration": one.configuration.title,
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
    once = bool(tested) and all(one.configuration.fitted_once for one in tested)
    return Section("answer", QUESTION, (shown, f"{notes} {ONCE}" if once else notes), table)


def _text(comparison: Comparison | None) -> str:
    if comparison is None or comparison.result is None or comparison.p is None:
        return "-"
    found = comparison.result
    interval = difference_text(found.difference, found.low, found.high)
    return f"{interval}, p {p_text(comparison.p)}"
