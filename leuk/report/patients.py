"""Patient-level results of a sweep, pooled over folds: tables, figure and the images per decision.

With ``split=subject_kfold`` every patient is tested once, so the patients of all folds form a
single test set. Pooling assumes that a score has the same meaning in every fold: scores are
calibrated on the validation images of their fold, and each fold decides by its own threshold,
chosen on its own validation patients. With several seeds, values are means over seeds, with the
intervals of a single seed, since seeds add no patients.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from leuk.data.labels import Label
from leuk.metrics.classification import Sample
from leuk.metrics.comparison import paired_difference
from leuk.metrics.patients import (
    auroc,
    by_patient,
    image_count_curve,
    patient_metrics,
    patient_threshold,
)
from leuk.report.derived import AREA
from leuk.report.load import Configuration, Run
from leuk.report.table import (
    Column,
    Section,
    Table,
    Written,
    difference,
    estimate,
    number,
    p_value,
    text,
)

SCORE = "mean_logit"
"""Name of the patients' score in :data:`leuk.metrics.patients.SCORES`."""


def _repeats(configuration: Configuration) -> list[list[Run]]:
    """Group runs so that each group has a seed of every fold."""
    of_fold: dict[int, list[Run]] = defaultdict(list)
    for run in sorted(configuration.runs, key=lambda run: run.key):
        of_fold[run.id.fold].append(run)
    count = min(map(len, of_fold.values()), default=0)
    return [[runs[n] for runs in of_fold.values()] for n in range(count)]


def patient_scores(configuration: Configuration, score: str) -> pd.DataFrame:
    """Tabulate each test patient of each fold and repeat.

    Args:
        configuration: runs of a configuration or baseline.
        score: a name of :data:`leuk.metrics.patients.SCORES`.

    Returns:
        Columns ``repeat`` (from 0), ``fold``, ``patient``, ``label``, ``images`` (number),
        ``score``, ``threshold`` and ``called`` (True for patients called leukemic), and the
        balanced accuracy of the threshold on the validation patients of the fold, ``val``.
    """
    tables = []
    for repeat, runs in enumerate(_repeats(configuration)):
        for run in runs:
            val, test = (by_patient(one.sample, score) for one in (run.val, run.test))
            threshold = patient_threshold(val.scores, val.labels)
            right = (val.scores >= threshold) == (val.labels == Label.ALL)
            balanced = np.mean([right[val.labels == label].mean() for label in Label])
            tables.append(
                pd.DataFrame(
                    {
                        "repeat": repeat,
                        "fold": run.id.fold,
                        "patient": test.subjects.astype(str),
                        "label": test.labels,
                        "images": run.test.sample.images,
                        "score": test.scores,
                        "threshold": threshold,
                        "called": test.scores >= threshold,
                        "val": balanced,
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def patient_row(table: pd.DataFrame) -> dict[str, float | int]:
    """Pool the patients of a configuration over its folds.

    Args:
        table: from :func:`patient_scores`.

    Returns:
        ``leukemic`` and ``healthy`` (numbers of patients), ``images`` (median per patient), each
        metric of :func:`leuk.metrics.patients.patient_metrics` with the ends of its interval
        (``auroc``, ``auroc_low``, ``auroc_high``), ``auroc_folds`` (mean of the folds' AUROC) and
        ``val`` (balanced accuracy of the thresholds on validation patients).
    """
    repeats = [repeat for _, repeat in table.groupby("repeat")]
    found = [
        patient_metrics(
            one["score"].to_numpy(),
            one["label"].to_numpy(),
            one["called"].to_numpy(),
            one["images"].to_numpy(),
        )
        for one in repeats
    ]
    folds = [
        auroc(one["score"].to_numpy(), one["label"].to_numpy())
        for _, one in table.groupby(["repeat", "fold"])
    ]
    row: dict[str, float | int] = {
        "leukemic": found[0].leukemic,
        "healthy": found[0].healthy,
        "images": found[0].images[1],
        "auroc_folds": float(np.nanmean(folds)),
        "val": float(table.groupby(["repeat", "fold"])["val"].first().mean()),
    }
    for name in found[0].values:
        row[name] = float(np.mean([one.values[name] for one in found]))
        for end, position in (("low", 0), ("high", 1)):
            row[f"{name}_{end}"] = float(np.mean([one.intervals[name][position] for one in found]))
    return row


def pooled_samples(table: pd.DataFrame) -> list[Sample]:
    """Patients of all folds as a sample per repeat, in the order of their names.

    Args:
        table: from :func:`patient_scores`.
    """
    table = table.sort_values(["repeat", "patient"])
    return [
        Sample(
            one["score"].to_numpy(),
            one["label"].to_numpy(np.int64),
            one["patient"].to_numpy().astype(str),
        )
        for _, one in table.groupby("repeat")
    ]


def patient_difference(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """Difference in patients' AUROC, ``one`` minus ``other``, paired by patient.

    Args:
        one: from :func:`patient_scores`.
        other: the same of another configuration or baseline.

    Returns:
        ``difference``, ``low``, ``high`` and ``p``, see
        :func:`leuk.metrics.comparison.paired_difference`; empty if the two were not tested on the
        same patients. With a dozen healthy patients the test rejects 2.5 % of true null hypotheses
        at the 5 % level, and 0.5 % with three (``tests/unit/test_patients.py``).
    """
    first, second = pooled_samples(one), pooled_samples(other)
    if len(second) == 1:  # baselines have no seeds
        second *= len(first)
    if first[0].fingerprint != second[0].fingerprint:
        return {}
    found = paired_difference(second, first, "auroc")
    return {
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "p": found.p,
    }


def images_per_decision(configuration: Configuration, score: str, draws: int = 100) -> pd.DataFrame:
    """AUROC and error of patients against the number of images drawn per patient.

    Args:
        configuration: runs of a configuration or baseline.
        score: a name of :data:`leuk.metrics.patients.SCORES`.
        draws: repeated draws of images per run.

    Returns:
        Columns ``images`` (0 for all), ``auroc`` and ``error`` (mean of both classes' error at the
        threshold), means over the folds and seeds.
    """
    rows = []
    for run in configuration.runs:
        val = by_patient(run.val.sample, score)
        threshold = patient_threshold(val.scores, val.labels)
        curve = image_count_curve(run.test.sample, threshold, score, draws, seed=run.id.seed)
        rows += [(count, *values) for count, values in curve.items()]
    table = pd.DataFrame(rows, columns=["images", "auroc", "error"])
    return table.groupby("images", sort=False, as_index=False).mean()


# --- Section of the report

NOTES = """\
A patient's score is the mean log odds of the patient's images, calibrated on validation images. A
patient is called leukemic at the threshold that separates the validation patients of the fold best;
"at validation" is its balanced accuracy there, so a fall to the test column is what the threshold
loses on new patients. Patients of all folds are pooled, which assumes that calibrated scores mean
the same in every fold; "mean of folds" does not assume it. Brackets are 95 % intervals over
patients: of AUROC by the method 5 of Newcombe (2006), of shares by Wilson, of balanced accuracy by
MOVER. In simulations with 3 to 12 healthy patients they contained the truth in 94 to 98 % of cases.
Values are means over seeds."""

COUNT_NOTES = """\
Mean over 30 random draws of so many images of each patient; patients with fewer images keep all.
Error is the mean of both classes' errors at the threshold, averaged over folds."""

_DRAWS = 30


def patients_section(
    configurations: Sequence[Configuration], baselines: Sequence[Configuration]
) -> Section:
    """Return the patients' results, their difference from area alone, and images per decision."""
    usable = [one for one in configurations if one.runs]
    every = [*usable, *(one for one in baselines if one.runs)]
    if not every:
        return Section("patients", "Results by patient", ("No predictions.",), pd.DataFrame())
    scores = {one: patient_scores(one, SCORE) for one in every}
    table = pd.DataFrame([{"name": one.title} | patient_row(own) for one, own in scores.items()])
    area = next((one for one in every if one.name.startswith(f"baseline: {AREA}")), None)
    if area is not None:
        differences = [patient_difference(scores[one], scores[area]) for one in usable]
        found = pd.DataFrame(differences, index=range(len(usable))).add_prefix("from_area_")
        table = table.join(found)
    columns: dict[str, Column] = {
        "configuration": text("name"),
        "leukemic": number("leukemic", ".0f"),
        "healthy": number("healthy", ".0f"),
        "AUROC": estimate("auroc"),
        "mean of folds": number("auroc_folds"),
        "balanced accuracy": estimate("balanced_accuracy"),
        "at validation": number("val"),
        "sensitivity": estimate("sensitivity", form=".2f"),
        "specificity": estimate("specificity", form=".2f"),
    }
    if area is not None:
        keys = ("from_area_difference", "from_area_low", "from_area_high")
        columns["AUROC minus area"] = difference(keys, missing="-")
        columns["p"] = p_value("from_area_p", missing="-")
    curves = pd.DataFrame(
        {"name": one.title, "measure": measure}
        | dict(zip(curve["images"], curve[key], strict=True))
        for one in every
        for curve in [images_per_decision(one, SCORE, _DRAWS)]
        for measure, key in (("AUROC", "auroc"), ("error", "error"))
    )
    counts = [count for count in curves if isinstance(count, int)]
    headings: dict[str, Column] = {
        "configuration": text("name"),
        "": text("measure"),
        **{str(count) if count else "all": _count(count) for count in counts},
    }
    blocks: list[Written | str] = [
        Table(table, columns, "Patients of all folds"),
        NOTES,
        Table(curves, headings, "Images per patient"),
        COUNT_NOTES,
    ]
    return Section("patients", "Results by patient", blocks, table)


def _count(count: int) -> Column:
    return Column((count,), lambda value: f"{value:.3f}")  # type: ignore[arg-type]
