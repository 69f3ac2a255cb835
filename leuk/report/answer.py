"""Answer to the question of a sweep: do synthetic images help, which model, and by how much?

The criterion is that of :mod:`leuk.report.verdicts`: a difference counts if its 95 % interval
excludes 0 and its Holm-corrected p is below 0.05. Synthetic images *help* if they beat no
augmentation and every control: a GAN costs hours of training, the controls cost nothing.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from leuk.config import augmentations
from leuk.report.comparisons import FAMILIES, Comparison, reference
from leuk.report.load import Configuration
from leuk.report.table import Column, Section, Shown, Table, Written, difference_text, p_text, text
from leuk.report.verdicts import better
from leuk.runs.record import RunId

QUESTION = "Do synthetic images from a GAN improve a classifier on this data set?"

Conclusion = Literal["helps", "in part", "harms", "not shown", "cannot say"]

CONTROLS = [name for name, kind in augmentations().items() if kind == "control"]
"""Augmentations without synthetic images: a GAN must beat them to be worth its training time."""

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
        against: comparisons with no augmentation and with controls, by name, as far as available.
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
        overrides: overrides common to all runs, for the suggested command; complete runs are
            skipped when it is started.
    """
    models = dict.fromkeys(one.run.model for one in configurations if one.records)
    chosen = {"name": name, "model": ",".join(models), "augmentation": ",".join(augmentations())}
    kept = [override for override in overrides if override.partition("=")[0] not in chosen]
    command = ["leuk", "train", "-m", *(f"{key}={value}" for key, value in chosen.items()), *kept]
    suggested = shlex.join(command)
    tested = tested_configurations(comparisons)
    section = _section(tested)
    if not tested:
        headline = "This sweep cannot answer the question yet."
        return Answer("cannot say", headline, (_obstacle(configurations),), suggested, section)
    lacking = [control for control in CONTROLS if not any(control in one.against for one in tested)]
    gains = [one for one in tested if one.better("none")]
    losses = [one for one in tested if one.better("none") is False]
    conclusion, headline = _conclude(gains, losses)
    detectable = [c.result.detectable for one in tested if (c := one.against["none"]).result]
    span = " to ".join(dict.fromkeys((f"{min(detectable):.3f}", f"{max(detectable):.3f}")))
    several = f"Among {len(tested)} configurations with synthetic images, the"
    sentences = (
        f"{several if len(tested) > 1 else 'The'} largest AUROC difference from no augmentation is "
        f"{_largest([one.against['none'] for one in tested])}.",
        *(_control_sentence(tested, control) for control in CONTROLS),
        *([f"Synthetic images worsen {_names(losses)}."] if losses and gains else []),
        f"Minimum detectable difference (80 % power): {span}; smaller effects cannot be excluded.",
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


def _conclude(gains: Sequence[Tested], losses: Sequence[Tested]) -> tuple[Conclusion, str]:
    controls = [reference(control) for control in CONTROLS]
    proven = [one for one in gains if all(one.better(control) for control in CONTROLS)]
    if proven:
        return "helps", (
            f"Yes, for {_names(proven)}: better than "
            f"{', '.join(['no augmentation', *controls[:-1]])} and {controls[-1]}."
        )
    if gains:
        compared = [c for c in CONTROLS if any(c in one.against for one in gains)]
        return "in part", f"In part: better than no augmentation for {_names(gains)}, but " + (
            "not significantly better than "
            f"{' and '.join(map(reference, compared))} (no GAN needed)."
            if compared
            else f"this sweep has no comparison with {' and '.join(controls)}."
        )
    if losses:
        return "harms", f"No: synthetic images worsen {_names(losses)} and improve no model."
    return "not shown", "Not shown: no significant gain or loss for any model."


def _names(tested: Sequence[Tested], most: int = 3) -> str:
    titles = [one.configuration.title for one in tested]
    more = f" and {len(titles) - most} more" if len(titles) > most else ""
    return ", ".join(titles[:most]) + more


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
    largest = _largest([one.against[control] for one in compared])
    return f"Compared with {name}: {counted}; the largest AUROC difference is {largest}."


def _largest(comparisons: Sequence[Comparison]) -> str:
    """Text on the comparison with the largest difference, in either direction."""
    results = [(c, c.result) for c in comparisons if c.result is not None]
    one, found = max(results, key=lambda pair: abs(pair[1].difference))
    interval = difference_text(found.difference, found.low, found.high)
    p = "" if one.p is None else f", Holm p {p_text(one.p)}"
    return f"{interval} ({one.one.title}{p})"


def _obstacle(configurations: Sequence[Configuration]) -> str:
    """Reason why a sweep cannot answer the question."""
    complete = [one for one in configurations if one.runs]
    honest = [one for one in complete if not one.run.leaky]
    if not complete:
        return "No run is complete with readable predictions."
    if not honest:
        return (
            "Every complete run uses a split that leaks: the same patients are in training and "
            "test data, so no difference is reliable. Choose a split by patient."
        )
    if not any(one.run.kind == "gan" for one in honest):
        return "No complete run was trained with synthetic images."
    return (
        "Runs with synthetic images are complete, but there is no run without augmentation "
        "of the same model, split, seed and fold to compare them with."
    )


def _section(tested: Sequence[Tested]) -> Section:
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
    shown: Written | str = "No comparison is possible."
    if tested:
        names = dict.fromkeys(name for one in tested for name in one.against)
        columns = {"with synthetic images": text("configuration")}
        columns |= {f"minus {reference(name)}": Column((name,), _shown) for name in names}
        rows = [{"configuration": one.configuration.title, **one.against} for one in tested]
        title = "Difference in test AUROC by configuration with synthetic images"
        shown = Table(pd.DataFrame(rows), columns, title)
    sizes = dict.fromkeys(
        f"{c.tests} for {FAMILIES[c.family]}"
        for one in tested
        for c in one.against.values()
        if c.tests
    )
    notes = f"{NOTES} Tests corrected together: {'; '.join(sizes)}." if sizes else NOTES
    once = bool(tested) and all(one.configuration.fitted_once for one in tested)
    return Section("answer", QUESTION, (shown, f"{notes} {ONCE}" if once else notes), table)


def _shown(comparison: Comparison | None) -> Shown:
    if comparison is None or comparison.result is None or comparison.p is None:
        return Shown("-")
    found = comparison.result
    interval = f"[{found.low:+.3f}, {found.high:+.3f}], p {p_text(comparison.p)}"
    return Shown(f"{found.difference:+.3f}", interval)
