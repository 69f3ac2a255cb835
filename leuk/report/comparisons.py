"""Planned comparisons between configurations of a sweep, and their results.

Every difference is paired (same test images, seed and fold), clustered by patient and corrected by
Holm's method within its family and split. A family holds the tests of one question and no others.
The ensemble is computed from the CNN and the ViT, so its tests form separate families; so do those
of the controls alone. Verdicts and forest plots use these comparisons.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from leuk.metrics.classification import PATIENTS
from leuk.metrics.comparison import Difference, holm, paired_difference
from leuk.report.derived import AREA, ENSEMBLE, MEMBERS, baseline_of
from leuk.report.load import Configuration, matching, sort_key
from leuk.report.rows import draws_for
from leuk.report.table import (
    Column,
    Heading,
    Section,
    Shown,
    Table,
    Written,
    difference,
    number,
    p_value,
    signed,
)
from leuk.runs.record import RunId

FAMILIES = {
    "area": "each configuration minus cell area alone",
    "augmentation": "each GAN minus no augmentation",
    "control": "each GAN minus each control",
    "control_alone": "each control minus no augmentation",
    "model": "models with the same augmentation",
    "ensemble": "the ensemble minus its members and the hybrid",
    "gan_hybrid": "the hybrid with synthetic images minus CNN and ViT without",
    "fusion": "other fusions minus addition and minus the ensemble",
    "head": "prototype head minus linear head",
    "attention_loss": "regularized minus unregularized attention",
}
"""Families of tests, each of one question, and descriptions of their differences."""

FAMILIES |= {
    f"ensemble_{family}": f"the ensemble: {FAMILIES[family]}"
    for family in ("area", "augmentation", "control", "control_alone")
}

SETTINGS = {"model.fusion": "add", "model.head": "linear", "model.attention_loss": 0.0}
"""Settings that answer a separate question, with their defaults."""

_COMBINED = "hybrid"
"""Model that combines others, whose differences are from them."""

NOTES = """\
Difference in test AUROC, mean over matching seeds and folds, with its 95 % interval: paired by
image, clustered by patient, with as many resamples as in the main table. p is the larger p of two
tests: a permutation test that swaps the scores of both models by patient, and a t test over
patients. p (Holm) is corrected for all tests of the family on the split; their number is in the
heading. AUROC (patients) is the same difference with equal weight for every patient of a class; its
p is uncorrected. Detectable is the minimum detectable difference on these test images (80 % power);
smaller effects cannot be excluded."""


def reference(augmentation: str) -> str:
    """Augmentation that synthetic images are compared with, in words."""
    words = {"none": "no augmentation", "oversample": "oversampling"}
    return words.get(augmentation, augmentation.replace("_", " "))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Planned difference, ``one`` minus ``other``, on the seeds and folds that both have."""

    family: str  # a key of FAMILIES
    one: Configuration
    other: Configuration
    runs: int  # number of common seeds and folds
    result: Difference | None  # in AUROC; None if it could not be computed
    p: float | None = None  # of the result, corrected for all tests of the family
    note: str = ""  # reason why there is no result
    patients: Difference | None = None  # with equal weight for every patient of a class
    tests: int = 0  # number of tests that the correction accounts for

    @property
    def title(self) -> str:
        """``<configuration> minus <other configuration>``."""
        return f"{self.one.title} minus {self.other.title}"


def compare(configurations: Sequence[Configuration]) -> list[Comparison]:
    """All comparisons of configurations and ensembles, corrected within their family and split."""
    pairs = planned(configurations)
    families: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, (family, one, _) in enumerate(pairs):
        families[family, one.run.split_name].append(index)
    # The smallest possible p, multiplied by the size of its family, must be below 0.05.
    permutations = max(2000, 60 * max(map(len, families.values()), default=0))
    draws = draws_for(configurations)
    found = [_compared(*pair, draws, permutations) for pair in pairs]
    for indices in families.values():
        known = {index: result.p for index in indices if (result := found[index].result)}
        for index, p in zip(known, holm(list(known.values())), strict=True):
            found[index] = replace(found[index], p=p, tests=len(known))
    return found


def _compared(
    family: str, one: Configuration, other: Configuration, draws: int, permutations: int
) -> Comparison:
    pairs = matching(one, other)
    if not pairs:
        return Comparison(family, one, other, 0, None, note="no seed and fold in common")
    ours, theirs = ([run.test.sample for run in runs] for runs in zip(*pairs, strict=True))
    try:
        result, patients = (
            paired_difference(theirs, ours, metric, draws=draws, permutations=permutations)
            for metric in ("auroc", f"auroc{PATIENTS}")
        )
    except ValueError as error:
        return Comparison(family, one, other, len(pairs), None, note=str(error))
    return Comparison(family, one, other, len(pairs), result, patients=patients)


# --- Planned comparisons


def planned(
    configurations: Sequence[Configuration],
) -> list[tuple[str, Configuration, Configuration]]:
    """Family and both configurations of every possible comparison, sorted by family."""
    known = {one.run: one for one in configurations if one.runs}
    pairs = {
        (_family(family, run), run, other)
        for run in known
        for family, others in _rules(run, known).items()
        for other in others
        if other in known and other != run
    }
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


def _rules(run: RunId, known: Collection[RunId]) -> dict[str, list[RunId]]:
    """Return the runs that a configuration is compared with in each family, known or not."""
    gan, combined = run.kind == "gan", run.model == _COMBINED
    # The same run with another model, and with the default of a setting that differs.
    alike = [replace(run, model=model) for model in dict.fromkeys(one.model for one in known)]
    defaults = {key: _with_default(key, run, known) for key in SETTINGS if changed(run, key)}
    rules = {
        "augmentation": [run.plain] if gan else [],
        "control": [
            one for one in known if gan and one.kind == "control" and one.plain == run.plain
        ],
        "control_alone": [run.plain] if run.kind == "control" else [],
        "model": [one for one in alike if _comes_before(one, run)],
        "ensemble": alike if run.model == ENSEMBLE else [],
        "gan_hybrid": [replace(run.plain, model=one) for one in MEMBERS if gan and combined],
        **{key.removeprefix("model."): [default] for key, default in defaults.items()},
    }
    if "model.fusion" in defaults:
        rules["fusion"].append(replace(_bare(run, "model.fusion"), model=ENSEMBLE))
    return rules


def _family(family: str, run: RunId) -> str:
    """Family of a test of a configuration; the ensemble has separate families."""
    own = f"ensemble_{family}"
    return own if run.model == ENSEMBLE and own in FAMILIES else family


def _comes_before(one: RunId, other: RunId) -> bool:
    """Return True if the difference is ``other`` minus ``one``: the hybrid minus other models."""
    if ENSEMBLE in (one.model, other.model):
        return False
    return (one.model == _COMBINED, sort_key(one)) < (other.model == _COMBINED, sort_key(other))


def changed(run: RunId, key: str) -> bool:
    """Return True if a key of :data:`SETTINGS` has another value than its default."""
    return bool(run.settings.get(key, SETTINGS[key]) != SETTINGS[key])


def _with_default(key: str, run: RunId, known: Collection[RunId]) -> RunId:
    """Return the run with the default of a setting, which its id may name."""
    named = replace(run, settings={**run.settings, key: SETTINGS[key]})
    return named if named in known else _bare(run, key)


def _bare(run: RunId, key: str) -> RunId:
    """Return the run without a setting."""
    return replace(run, settings={k: v for k, v in run.settings.items() if k != key})


# --- Section

_VALUES = ("difference", "low", "high", "p_swap", "p_t", "p", "detectable")

_COLUMNS = {
    "difference": Column(("one", "other"), "{} minus {}".format, numeric=False),
    "runs": number("runs", "d"),
    # The difference with its interval, or the reason why there is none.
    "AUROC": Column(
        ("note", "difference", "low", "high"),
        lambda note, *values: Shown(note) if values[0] is None else signed(*values),
    ),
    "p": p_value("p"),
    "p (Holm)": p_value("p_holm"),
    "detectable": number("detectable"),
    "AUROC (patients)": difference((f"difference{PATIENTS}", f"low{PATIENTS}", f"high{PATIENTS}")),
    "p (patients)": p_value(f"p{PATIENTS}"),
}


def comparisons_section(comparisons: Sequence[Comparison]) -> Section:
    """All comparisons, by family."""
    table = pd.DataFrame(
        [
            {
                "family": one.family,
                "split": one.one.run.split_name,
                "one": one.one.title,
                "other": one.other.title,
                "runs": one.runs,
                **{name: getattr(one.result, name, None) for name in _VALUES},
                "p_holm": one.p,
                "tests": one.tests,
                **{f"{name}{PATIENTS}": getattr(one.patients, name, None) for name in _VALUES},
                "note": one.note,
            }
            for one in comparisons
        ]
    )
    blocks: list[Written | str] = [NOTES]
    for family, meaning in FAMILIES.items():
        if any(one.family == family for one in comparisons):
            own = table[table["family"] == family]
            sizes = own[own["tests"] > 0].groupby("split", sort=False)["tests"].last()
            counts = {split: f"{size} test{'s'[: size != 1]}" for split, size in sizes.items()}
            texts = [*dict.fromkeys(counts.values())] or ["0 tests"]
            if len(texts) > 1:  # the splits differ
                texts = [f"{count} of {split}" for split, count in counts.items()]
            heading = f"{meaning[0].upper()}{meaning[1:]} ({', '.join(texts)})"
            blocks += [Heading(heading), Table(own, _COLUMNS)]
    if not comparisons:
        blocks.append("No two configurations of the sweep can be compared.")
    return Section("comparisons", "Comparisons between configurations", blocks, table)
