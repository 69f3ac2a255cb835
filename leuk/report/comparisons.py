"""Planned comparisons between configurations of a sweep, and their results.

Every difference is paired (same test images, seed and fold), clustered by patient and corrected by
Holm's method within its family and split. A family holds the tests of one question and no others.
The ensemble is computed from the CNN and the ViT, so its tests form separate families; so do those
of oversampling and class weights alone. Verdicts and forest plots use these comparisons.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from leuk.metrics.classification import PATIENTS
from leuk.metrics.comparison import Difference, holm, paired_difference
from leuk.report.baselines import AREA, baseline_of
from leuk.report.ensemble import MEMBERS, NAME
from leuk.report.naming import sort_key
from leuk.report.results import Configuration, matching
from leuk.report.rows import draws_for
from leuk.report.sections import Grid, Section, difference_text, p_text
from leuk.report.workers import spread
from leuk.runs.record import RunId

FAMILIES = {
    "area": "each configuration minus cell area alone",
    "augmentation": "each GAN minus no augmentation",
    "control": "each GAN minus oversampling and minus class weights",
    "control_alone": "oversampling and class weights minus no augmentation",
    "model": "models with the same augmentation",
    "ensemble": "the ensemble minus its members and the hybrid",
    "gan_hybrid": "the hybrid with synthetic images minus CNN and ViT without",
    "fusion": "other fusions minus addition and minus the ensemble",
    "head": "prototype head minus linear head",
    "attention_loss": "regularized minus unregularized attention",
}
"""Families of tests, each of one question, and descriptions of their differences."""

_ENSEMBLE = "ensemble_"
"""Prefix of the families of the ensemble."""

FAMILIES |= {
    f"{_ENSEMBLE}{family}": f"the ensemble: {FAMILIES[family]}"
    for family in ("area", "augmentation", "control", "control_alone")
}

_PERMUTATIONS, _PERMUTATIONS_EACH = 2000, 60

SETTINGS = {"model.fusion": "add", "model.head": "linear", "model.attention_loss": 0.0}
"""Settings that answer a separate question, with their defaults."""

NOTES = """\
Difference in test AUROC, mean over matching seeds and folds, with its 95 % interval: paired by
image, clustered by patient, with as many resamples as in the main table. p is the larger p of two
tests: a permutation test that swaps the scores of both models by patient, and a t test over
patients. p (Holm) is corrected for all tests of the family on the split; their number is in the
heading. AUROC (patients) is the same difference with equal weight for every patient of a class; its
p is uncorrected. Detectable is the minimum detectable difference on these test images (80 % power);
smaller effects cannot be excluded."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Planned difference, ``one`` minus ``other``.

    Attributes:
        family: a key of :data:`FAMILIES`.
        one: the configuration that the claim is about.
        other: the configuration that it is compared with.
        runs: number of seeds and folds that both have.
        result: the difference in AUROC; None if it could not be computed.
        p: Holm-corrected p of ``result``.
        note: reason why there is no result.
        patients: the same difference with equal weight for every patient of a class.
        tests: number of tests that the correction accounts for.
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
        """``<configuration> minus <other configuration>``."""
        return f"{self.one.title} minus {self.other.title}"


def compare(configurations: Sequence[Configuration], workers: int = 1) -> list[Comparison]:
    """All planned comparisons, each corrected within its family and split.

    Args:
        configurations: all configurations of the report, ensembles included.
        workers: number of processes.
    """
    pairs = planned(configurations)
    sizes = Counter((family, one.run.split_name) for family, one, _ in pairs)
    # The smallest possible p, multiplied by the size of its family, must be below 0.05.
    permutations = max(_PERMUTATIONS, _PERMUTATIONS_EACH * max(sizes.values(), default=0))
    draws = draws_for(configurations)
    results = spread(lambda pair: _compared(*pair[1:], draws, permutations), pairs, workers)
    found = [
        Comparison(*pair, runs, result, note=note, patients=patients)
        for pair, (runs, result, patients, note) in zip(pairs, results, strict=True)
    ]
    for family in sizes:
        members = [
            index
            for index, it in enumerate(found)
            if it.result is not None and (it.family, it.one.run.split_name) == family
        ]
        corrected = holm([r.p for index in members if (r := found[index].result) is not None])
        for index, p in zip(members, corrected, strict=True):
            found[index] = replace(found[index], p=p, tests=len(members))
    return found


def _compared(
    one: Configuration, other: Configuration, draws: int, permutations: int
) -> tuple[int, Difference | None, Difference | None, str]:
    """Return the number of common runs, both differences, and the reason if there are none."""
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


def planned(
    configurations: Sequence[Configuration],
) -> list[tuple[str, Configuration, Configuration]]:
    """Family and both configurations of every possible comparison, sorted by family."""
    known = {one.run: one for one in configurations if one.runs}
    pairs = {pair for run in known for pair in _questions(run, known)}
    order = list(FAMILIES)
    ordered = sorted(
        pairs, key=lambda pair: (order.index(pair[0]), sort_key(pair[1]), sort_key(pair[2]))
    )
    alone = [
        (_family("area", one.run), one, area)
        for one in known.values()
        if (area := baseline_of(one, AREA))
    ]
    return alone + [(family, known[one], known[other]) for family, one, other in ordered]


_COMBINED = "hybrid"
"""Model that combines others, whose differences are from them."""

_Pair = tuple[str, RunId, RunId]


def _questions(run: RunId, known: Mapping[RunId, Configuration]) -> Iterator[_Pair]:
    """Comparisons planned for a configuration, as far as the sweep has the other one."""
    alone = "control_alone" if run.kind == "control" else "augmentation"
    pairs = [(alone, run.plain)]
    if run.kind == "gan":
        pairs += [
            ("control", other)
            for other in known
            if other.kind == "control" and other.plain == run.plain
        ]
    if run.model == NAME:
        pairs += [("ensemble", replace(run, model=model)) for model in _models(known)]
    elif run.model == _COMBINED and run.kind == "gan":
        pairs += [("gan_hybrid", replace(run.plain, model=model)) for model in MEMBERS]
    for other in known:
        if replace(other, model=run.model) == run and _comes_before(other, run):
            pairs.append(("model", other))
    for key in SETTINGS:
        family = key.removeprefix("model.")
        pairs += [(family, other) for other in _without(key, run, known)]
    if changed(run, "model.fusion"):
        pairs.append(("fusion", replace(_bare(run, "model.fusion"), model=NAME)))
    for family, other in pairs:
        if other in known and other != run:
            yield _family(family, run), run, other


def _family(family: str, run: RunId) -> str:
    """Family of a test of a configuration; the ensemble has separate families."""
    own = f"{_ENSEMBLE}{family}"
    return own if run.model == NAME and own in FAMILIES else family


def _models(runs: Iterable[RunId]) -> list[str]:
    return sorted({run.model for run in runs} - {NAME})


def _comes_before(one: RunId, other: RunId) -> bool:
    """Return True if the difference is ``other`` minus ``one``: the hybrid minus other models."""
    if NAME in (one.model, other.model):
        return False
    return (one.model == _COMBINED, sort_key(one)) < (other.model == _COMBINED, sort_key(other))


def changed(run: RunId, key: str) -> bool:
    """Return True if a key of :data:`SETTINGS` has another value than its default."""
    return bool(run.settings.get(key, SETTINGS[key]) != SETTINGS[key])


def _without(key: str, run: RunId, known: Iterable[RunId]) -> list[RunId]:
    """Return the configuration that has the default of a setting and otherwise equals ``run``."""
    if not changed(run, key):
        return []
    plain = _bare(run, key)
    named = [
        other
        for other in known
        if key in other.settings and not changed(other, key) and _bare(other, key) == plain
    ]
    return named or [plain]


def _bare(run: RunId, key: str) -> RunId:
    """Return the run without a setting."""
    return replace(run, settings={k: v for k, v in run.settings.items() if k != key})


def comparisons_section(comparisons: Sequence[Comparison]) -> Section:
    """All comparisons, by family."""
    header = ("difference", "runs", "AUROC", "p", "p (Holm)", "detectable", *_BY_PATIENT)
    parts: list[Grid | str] = [NOTES]
    for family, meaning in FAMILIES.items():
        own = [one for one in comparisons if one.family == family]
        if own:
            heading = f"## {meaning[0].upper()}{meaning[1:]} ({_tests(own)})"
            parts += [heading, Grid(header, tuple(map(_row, own)))]
    if len(parts) == 1:
        parts.append("No two configurations of the sweep can be compared.")
    table = pd.DataFrame([_values(one) for one in comparisons])
    return Section("comparisons", "Comparisons between configurations", tuple(parts), table)


_BY_PATIENT = ("AUROC (patients)", "p (patients)")


def _tests(family: Sequence[Comparison]) -> str:
    """``9 tests``, or the number for each split if they differ."""
    sizes = {one.one.run.split_name: one.tests for one in family if one.tests}
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
    names = ("difference", "low", "high", "p_swap", "p_t", "p", "detectable")
    by = comparison.patients
    return {
        "family": comparison.family,
        "split": comparison.one.run.split_name,
        "one": comparison.one.title,
        "other": comparison.other.title,
        "runs": comparison.runs,
        **{name: getattr(found, name) if found else None for name in names},
        "p_holm": comparison.p,
        "tests": comparison.tests,
        **{f"{name}{PATIENTS}": getattr(by, name) if by else None for name in names},
        "note": comparison.note,
    }
