"""Differences between lines of a sweep: which are planned, and what each came to.

Every difference is paired (the same test cells, seed and fold), clustered by person and corrected
by Holm's method within its family and split. A family holds the tests of one question, no others:
the ensemble is computed from CNN and ViT, so its tests are families of their own, and so are those
of oversampling and class weights by themselves. Verdicts and the forest plot are made of these.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from leuk.evaluate.resampling import PATIENTS
from leuk.evaluate.significance import Difference, holm, paired_difference
from leuk.grid.run_id import RunId
from leuk.report.baselines import AREA, baseline_of
from leuk.report.ensemble import MEMBERS, NAME
from leuk.report.naming import in_order
from leuk.report.results import Configuration, matching
from leuk.report.rows import draws_for
from leuk.report.sections import Grid, Section, difference_text, p_text
from leuk.report.workers import spread

FAMILIES = {
    "area": "each line minus the area of the cell alone",
    "augmentation": "each GAN's images minus no augmentation",
    "control": "each GAN's images minus oversampling and minus class weights",
    "control_alone": "oversampling and class weights minus no augmentation",
    "model": "models of one augmentation",
    "ensemble": "the ensemble minus its members and the hybrid",
    "gan_hybrid": "the hybrid with made cells minus CNN and ViT without",
    "fusion": "other fusions minus addition, and minus the ensemble",
    "head": "prototypes minus the model's own head",
    "attention_loss": "regularized attention minus free attention",
}
"""Families of tests that answer one question together, and what their differences are."""

_ENSEMBLE = "ensemble_"
"""Prefix of the families of the ensemble's own tests."""

FAMILIES |= {
    f"{_ENSEMBLE}{family}": f"the ensemble: {FAMILIES[family]}"
    for family in ("area", "augmentation", "control", "control_alone")
}

GANS = ("dcgan", "wgan", "cgan")
CONTROLS = ("oversample", "class_weights")
"""Augmentations that make no cells: what a GAN has to beat to be worth its hours."""

_PERMUTATIONS, _PERMUTATIONS_EACH = 2000, 60

SETTINGS = {"fusion": "add", "head": "linear", "attention_loss": "0.0"}
"""Settings with a question of their own, and what a model has where its variant does not
name them."""

NOTES = """\
Differences of the test AUROC, mean over matching seeds and folds, with 95 % intervals: paired by
cell image and clustered by person, from as many resamples as in the main table. p is the larger of
a test that swaps both models' scores per patient and of a t test over patients. p (Holm) is
corrected for all tests of the family on the split, whose number each heading says. AUROC
(patients): the same difference where every patient of a class weighs the same; its p is
uncorrected. Detectable is the smallest
difference that this test part would have shown with a power of 80 %: a smaller one cannot be ruled
out."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """One planned difference, ``one`` minus ``other``.

    Attributes:
        family: a key of :data:`FAMILIES`.
        one: the line a claim is about.
        other: the line it is compared with.
        runs: how many seeds and folds both have.
        result: the difference in AUROC; None where there is none.
        p: of ``result``, after Holm's correction.
        note: why there is no result.
        patients: the same difference where every patient of a class weighs the same.
        tests: how many tests the correction is for.
    """

    family: str
    one: Configuration
    other: Configuration
    runs: int
    result: Difference | None
    p: float | None = None
    note: str = ""
    patients: Difference | None = None
    tests: int = 0

    @property
    def title(self) -> str:
        """``<line> - <other line>``."""
        return f"{self.one.title} - {self.other.title}"


def compare(groups: Sequence[Configuration], workers: int = 1) -> list[Comparison]:
    """Every planned difference between lines of one split, corrected within its family.

    Args:
        groups: lines of a sweep, the ensembles among them.
        workers: processes.
    """
    pairs = planned(groups)
    sizes = Counter((family, one.run.split) for family, one, _ in pairs)
    # The smallest p, times the size of its family, must be able to fall below 0.05.
    permutations = max(_PERMUTATIONS, _PERMUTATIONS_EACH * max(sizes.values(), default=0))
    draws = draws_for(groups)
    results = spread(lambda pair: _compared(*pair[1:], draws, permutations), pairs, workers)
    found = [
        Comparison(*pair, runs, result, note=note, patients=patients)
        for pair, (runs, result, patients, note) in zip(pairs, results, strict=True)
    ]
    for asked in sizes:
        places = [
            place
            for place, it in enumerate(found)
            if it.result is not None and (it.family, it.one.run.split) == asked
        ]
        corrected = holm([r.p for place in places if (r := found[place].result) is not None])
        for place, p in zip(places, corrected, strict=True):
            found[place] = replace(found[place], p=p, tests=len(places))
    return found


def _compared(
    one: Configuration, other: Configuration, draws: int, permutations: int
) -> tuple[int, Difference | None, Difference | None, str]:
    """Number of common runs, their difference by images and by patients, or why there is none."""
    pairs = matching(one, other)
    if not pairs:
        return 0, None, None, "no seed and fold in common"
    samples = [[run.test.sample for run in runs] for runs in zip(*pairs, strict=True)]
    try:
        result, patients = (
            paired_difference(
                samples[1], samples[0], metric, draws=draws, permutations=permutations
            )
            for metric in ("auroc", f"auroc{PATIENTS}")
        )
    except ValueError as error:
        return len(pairs), None, None, str(error)
    return len(pairs), result, patients, ""


def planned(groups: Sequence[Configuration]) -> list[tuple[str, Configuration, Configuration]]:
    """Family and the two lines of every question the sweep can answer, in the order of families."""
    lines = {group.run: group for group in groups if group.runs}
    pairs = {pair for cell in lines for pair in _questions(cell, lines)}
    order = list(FAMILIES)
    ordered = sorted(
        pairs, key=lambda pair: (order.index(pair[0]), in_order(pair[1]), in_order(pair[2]))
    )
    alone = [
        (_family("area", group.run), group, area)
        for group in lines.values()
        if (area := baseline_of(group, AREA))
    ]
    return alone + [(family, lines[one], lines[other]) for family, one, other in ordered]


_Pair = tuple[str, RunId, RunId]


def _questions(cell: RunId, lines: Mapping[RunId, Configuration]) -> Iterator[_Pair]:
    """What is asked of one line; only lines that are there are compared."""
    alone = "control_alone" if cell.augmentation in CONTROLS else "augmentation"
    asked = [(alone, cell.plain)]
    if cell.augmentation in GANS:
        asked += [
            ("control", other)
            for other in lines
            if other.augmentation in CONTROLS and other.plain == cell.plain
        ]
    if cell.model == NAME:
        asked += [("ensemble", replace(cell, model=model)) for model in _models(lines)]
    elif cell.model == "hybrid" and cell.augmentation in GANS:
        asked += [("gan_hybrid", replace(cell.plain, model=model)) for model in MEMBERS]
    for other in lines:
        if replace(other, model=cell.model) == cell and _comes_before(other, cell):
            asked.append(("model", other))
    for family in SETTINGS:
        asked += [(family, other) for other in _without(family, cell, lines)]
    if setting(cell, "fusion") not in (None, SETTINGS["fusion"]):
        for plain in _without("fusion", cell, lines):
            asked.append(("fusion", replace(plain, model=NAME, variant=_bare(cell, "fusion"))))
    for family, other in asked:
        if other in lines and other != cell:
            yield _family(family, cell), cell, other


def _family(family: str, cell: RunId) -> str:
    """The family of a test of a line: the ensemble has its own."""
    own = f"{_ENSEMBLE}{family}"
    return own if cell.model == NAME and own in FAMILIES else family


def _models(lines: Mapping[RunId, Configuration]) -> list[str]:
    return sorted({cell.model for cell in lines} - {NAME})


def _comes_before(one: RunId, other: RunId) -> bool:
    """Whether the difference is to be ``other`` minus ``one``: later models minus earlier."""
    if NAME in (one.model, other.model):
        return False

    return in_order(one) < in_order(other)


def setting(cell: RunId, name: str) -> str | None:
    """The value that a cell's variant gives a setting, such as ``attention``; None for no value."""
    for text in cell.settings:
        if found := re.fullmatch(rf"(?:.*\.)?{name}_(.+)", text):
            return found[1]
    return None


def _bare(cell: RunId, name: str) -> str:
    """The variant without a setting."""
    kept = [text for text in cell.settings if not re.fullmatch(rf"(?:.*\.)?{name}_.+", text)]
    return "-".join(kept)


def _without(name: str, cell: RunId, lines: Mapping[RunId, Configuration]) -> list[RunId]:
    """The line that has the default of a setting and is ``cell`` in all else, if it is there."""
    value = setting(cell, name)
    if value is None or value == SETTINGS[name]:
        return []
    plain = replace(cell, variant=_bare(cell, name))
    named = [
        other
        for other in lines
        if setting(other, name) == SETTINGS[name]
        and replace(other, variant=_bare(other, name)) == plain
    ]
    return named or [plain]


def comparisons_section(comparisons: Sequence[Comparison]) -> Section:
    """Every difference, by family."""
    header = ("difference", "runs", "AUROC", "p", "p (Holm)", "detectable", *_BY_PATIENT)
    parts: list[Grid | str] = [NOTES]
    for family, meaning in FAMILIES.items():
        own = [one for one in comparisons if one.family == family]
        if own:
            heading = f"## {meaning[0].upper()}{meaning[1:]} ({_tests(own)})"
            parts += [heading, Grid(header, tuple(map(_row, own)))]
    if len(parts) == 1:
        parts.append("No two lines of the sweep can be compared.")
    table = pd.DataFrame([_values(one) for one in comparisons])
    return Section("comparisons", "Differences between lines", tuple(parts), table)


_BY_PATIENT = ("AUROC (patients)", "p (patients)")


def _tests(family: Sequence[Comparison]) -> str:
    """``9 tests``, of each split where these differ."""
    sizes = {one.one.run.split: one.tests for one in family if one.tests}
    if len(set(sizes.values())) > 1:
        return ", ".join(f"{_counted(size)} of {split}" for split, size in sizes.items())
    return _counted(max(sizes.values(), default=0))


def _counted(tests: int) -> str:
    return f"{tests} test{'s'[: tests != 1]}"


def _row(comparison: Comparison) -> tuple[str, ...]:
    found, by = comparison.result, comparison.patients
    if found is None or comparison.p is None:
        return (comparison.title, str(comparison.runs), comparison.note, "", "", "", "", "")
    return (
        comparison.title,
        str(comparison.runs),
        difference_text(found.difference, found.low, found.high),
        p_text(found.p),
        p_text(comparison.p),
        f"{found.detectable:.3f}",
        difference_text(by.difference, by.low, by.high) if by else "-",
        p_text(by.p) if by else "-",
    )


def _values(comparison: Comparison) -> dict[str, object]:
    found = comparison.result
    figures = ("difference", "low", "high", "p_swap", "p_t", "p", "detectable")
    by = comparison.patients
    return {
        "family": comparison.family,
        "split": comparison.one.run.split,
        "one": comparison.one.title,
        "other": comparison.other.title,
        "runs": comparison.runs,
        **{name: getattr(found, name) if found else None for name in figures},
        "p_holm": comparison.p,
        "tests": comparison.tests,
        **{f"{name}{PATIENTS}": getattr(by, name) if by else None for name in figures},
        "note": comparison.note,
    }
