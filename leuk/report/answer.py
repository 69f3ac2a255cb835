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

Tested = Mapping[str, Comparison]
"""Comparisons of a model trained with a GAN's images, by the other augmentation: ``none``, and
controls as far as available."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The first paragraph of a report."""

    conclusion: Conclusion
    headline: str  # the answer in a sentence
    sentences: tuple[str, ...]  # the evidence
    command: str  # completes the evidence; empty if nothing is missing
    section: Section  # the evidence as a table


def answer(
    configurations: Sequence[Configuration],
    comparisons: Sequence[Comparison],
    name: str,
    overrides: Sequence[str] = (),
) -> Answer:
    """Answer the question from the comparisons of the sweep ``name``, leaky splits excluded.

    ``overrides``, common to all runs, are for the suggested command, which skips complete runs.
    """
    models = dict.fromkeys(one.run.model for one in configurations if one.records)
    chosen = {"name": name, "model": ",".join(models), "augmentation": ",".join(augmentations())}
    kept = [override for override in overrides if override.partition("=")[0] not in chosen]
    command = ["leuk", "train", "-m", *(f"{key}={value}" for key, value in chosen.items()), *kept]
    suggested = shlex.join(command)
    found: dict[RunId, dict[str, Comparison]] = {}
    for c in comparisons:
        run = c.one.run
        synthetic = c.family in ("augmentation", "control") and run.kind == "gan"
        if synthetic and c.result is not None and not run.leaky:
            found.setdefault(run, {}).setdefault(c.other.run.augmentation, c)
    tested = [against for against in found.values() if "none" in against]
    section = _section(tested)
    if not tested:
        headline = "This sweep cannot answer the question yet."
        return Answer("cannot say", headline, (_obstacle(configurations),), suggested, section)
    alone = [against["none"] for against in tested]
    gains = [against for against in tested if better(against["none"])]
    losses = [c for c in alone if better(c) is False]
    several = f"Among {len(tested)} configurations with synthetic images, the"
    sentences = [
        f"{several if len(tested) > 1 else 'The'} largest AUROC difference from no augmentation is "
        f"{_largest(alone)}."
    ]
    for control in CONTROLS:
        compared = [against[control] for against in tested if control in against]
        results = [better(c) for c in compared]
        words = {"better": True, "worse": False, "undecided": None}
        counts = [f"{results.count(one)} {word}" for word, one in words.items() if one in results]
        sentences.append(
            f"Compared with {reference(control)}: {', '.join(counts)}; the largest AUROC "
            f"difference is {_largest(compared)}."
            if compared
            else f"No comparison with {reference(control)}: the sweep has no complete run with it."
        )
    if losses and gains:
        sentences.append(f"Synthetic images worsen {_names(losses)}.")
    detectable = [c.result.detectable for c in alone if c.result]
    span = " to ".join(dict.fromkeys((f"{min(detectable):.3f}", f"{max(detectable):.3f}")))
    sentences.append(
        f"Minimum detectable difference (80 % power): {span}; smaller effects cannot be excluded."
    )
    complete = all(any(control in against for against in tested) for control in CONTROLS)
    conclusion, headline = _conclusion(gains, losses)
    return Answer(conclusion, headline, tuple(sentences), "" if complete else suggested, section)


def _conclusion(gains: Sequence[Tested], losses: Sequence[Comparison]) -> tuple[Conclusion, str]:
    """Conclusion and headline from the comparisons that show a gain or a loss."""
    controls = [reference(control) for control in CONTROLS]
    proven = [
        against["none"]
        for against in gains
        if all(control in against and better(against[control]) for control in CONTROLS)
    ]
    if proven:
        return "helps", (
            f"Yes, for {_names(proven)}: better than "
            f"{', '.join(['no augmentation', *controls[:-1]])} and {controls[-1]}."
        )
    if gains:
        compared = [reference(c) for c in CONTROLS if any(c in against for against in gains)]
        names = _names([against["none"] for against in gains])
        return "in part", f"In part: better than no augmentation for {names}, but " + (
            f"not significantly better than {' and '.join(compared)} (no GAN needed)."
            if compared
            else f"this sweep has no comparison with {' and '.join(controls)}."
        )
    if losses:
        return "harms", f"No: synthetic images worsen {_names(losses)} and improve no model."
    return "not shown", "Not shown: no significant gain or loss for any model."


def _names(comparisons: Sequence[Comparison], most: int = 3) -> str:
    titles = [c.one.title for c in comparisons]
    more = f" and {len(titles) - most} more" if len(titles) > most else ""
    return ", ".join(titles[:most]) + more


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
    every = [(name, c) for against in tested for name, c in against.items()]
    table = pd.DataFrame(
        [
            {
                "configuration": c.one.title,
                "minus": name,
                **{key: getattr(c.result, key) for key in ("difference", "low", "high", "p")},
                "p_holm": c.p,
                "tests": c.tests,
                "detectable": c.result.detectable if c.result else None,
            }
            for name, c in every
        ]
    )
    shown: Written | str = "No comparison is possible."
    if tested:
        columns = {"with synthetic images": text("configuration")}
        columns |= {f"minus {reference(name)}": Column((name,), _shown) for name, _ in every}
        rows = [{"configuration": against["none"].one.title, **against} for against in tested]
        title = "Difference in test AUROC by configuration with synthetic images"
        shown = Table(pd.DataFrame(rows), columns, title)
    notes = NOTES
    if sizes := dict.fromkeys(f"{c.tests} for {FAMILIES[c.family]}" for _, c in every if c.tests):
        notes += f" Tests corrected together: {'; '.join(sizes)}."
    if tested and all(len(c.one.first_seed.runs) == len(c.one.runs) for _, c in every):
        notes += f" {ONCE}"
    return Section("answer", QUESTION, (shown, notes), table)


def _shown(comparison: Comparison | None) -> Shown:
    if comparison is None or comparison.result is None or comparison.p is None:
        return Shown("-")
    found = comparison.result
    interval = f"[{found.low:+.3f}, {found.high:+.3f}], p {p_text(comparison.p)}"
    return Shown(f"{found.difference:+.3f}", interval)
