"""The explanations section: methods, faithfulness measures and sanity checks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd

from leuk.report.results import Configuration
from leuk.report.sections import Grid, Section, difference_text, interval_text
from leuk.runs.record import Record

_COHORT = "cohort"
"""Entry of a record's explanations that concerns all methods."""

_PANELS = ("panels", "cells")
"""Folder of the figures of single images, below the explanations; ``cells`` in older runs."""

_CONTROL = "control: "
"""Prefix of the names of controls in tables."""

_GAIN = "insertion_minus_deletion_blur"

NOTES = """\
Images: test images of all runs of the configuration, balanced by outcome: sampled in turn from true
and false positives and negatives. Means and mean maps describe this sample, in which errors are far
more frequent than in the test set. Degenerate: constant maps and maps with undefined values,
excluded from everything else. Seconds per image: on the device of the run. Stability: rank
correlation of LIME maps over random seeds."""

MEASURED = """\
All measures are computed on the balanced sample. Maps are oriented toward the predicted class.
Insertion - deletion: mean probability of that class while the pixels of the cell are revealed,
highest attribution first, minus its mean while they are removed; hidden pixels are blurred. Over
random: the same minus its value for random blobs on the same image. Infidelity: share of the effect
of removing squares that the map does not predict. Border (area): share of positive attribution in a
band at the edge of the cell, a tenth of its diameter wide, and in parentheses the band's share of
the image; border over area: their ratio, 1 by chance. Background over area: the same for the
background. Sensitivity: largest relative change of the map under small noise on the pixels of the
cell; low is good. Randomized: absolute rank correlation with the map of the same model with random
weights. A method passes if the whole interval is below 0.5, FAILS if no part of it is, and is
undecided otherwise. Older records have no interval; their verdict uses the mean. Images (patients):
numbers in this test, summed over the runs. Controls ignore the model. 95 % intervals resample
patients; several runs are averaged."""

SANITY = """\
These checks detect errors; passing them is no evidence that a map is correct. Additivity error
(SHAP): difference between the sum of a map and its theoretical value, relative to the range of the
log-odds; 0 by construction for regions and patches, and decreasing with the number of samples for
pixels. R² (LIME): fit of the linear model to its own samples. Sensitivity of a control: sensitivity
of a map that ignores the model."""


@dataclass(frozen=True)
class _Found:
    """Method of a configuration.

    Attributes:
        configuration: name of the configuration.
        method: name of the method; that of a control starts with ``control: ``.
        runs: entry of the method in the record of each run.
        picture: path of the first run's figure relative to the report; empty for a control.
    """

    configuration: str
    method: str
    runs: tuple[Mapping[str, Any], ...]
    picture: str

    def measured(self, measure: str) -> tuple[float | None, float | None, float | None]:
        """Value and bounds of a measure; the mean without bounds for several runs."""
        found = [
            run["measures"][measure] for run in self.runs if measure in run.get("measures", {})
        ]
        if not found:
            return None, None, None
        if len(found) == 1:
            return found[0]["value"], found[0]["low"], found[0]["high"]
        return mean(one["value"] for one in found), None, None

    def own(self, check: str) -> float | None:
        """Mean over runs of a check that the method reports itself, such as ``r2``."""
        found = [run.get("checks", {}).get(check) for run in self.runs]
        values = [value for value in found if value is not None]
        return mean(values) if values else None

    @property
    def pace(self) -> float | None:
        """Mean seconds per image; None in older records."""
        found = [run.get("seconds_per_image") for run in self.runs]
        values = [value for value in found if value is not None]
        return mean(values) if values else None

    @property
    def control(self) -> bool:
        """True for a control, whose maps ignore the model."""
        return self.method.startswith(_CONTROL)

    @property
    def randomized(self) -> tuple[float | None, float | None, float | None]:
        """Similarity to maps of a model with random weights; of signed maps in older records."""
        found = self.measured("randomized_similarity")
        return self.measured("randomized_spearman") if found[0] is None else found

    @property
    def explained_again(self) -> str:
        """``<images> (<patients>)`` of the randomization test, empty in older records."""
        found = [run.get("measures", {}).get("randomized_similarity", {}) for run in self.runs]
        images, patients = (sum(one.get(key, 0) for one in found) for key in ("images", "subjects"))
        return f"{images} ({patients})" if images else ""

    @property
    def passes(self) -> str:
        """``passes``, ``FAILS`` or ``undecided``; for several runs the number that pass."""
        # Records with this measure have an interval; no verdict means that it includes the limit.
        tried = [
            run.get("passes_randomization")
            for run in self.runs
            if run.get("passes_randomization") is not None
            or "randomized_similarity" in run.get("measures", {})
        ]
        if len(tried) < 2:
            words = {True: "passes", False: "FAILS", None: "undecided"}
            return words[tried[0]] if tried else ""
        undecided = f", {tried.count(None)} undecided" if None in tried else ""
        return f"{tried.count(True)} of {len(tried)} pass{undecided}"


def explanations_section(configurations: Sequence[Configuration]) -> Section:
    """Methods of every configuration, with their measures where they were computed."""
    methods = [found for configuration in configurations for found in _methods(configuration)]
    if not methods:
        text = "No run of the sweep has explanations; `leuk explain run=FOLDER` computes them."
        return Section("explanations", "Explanations", (text,), pd.DataFrame())
    measured = [
        found
        for configuration in configurations
        for found in (*_methods(configuration), *_controls(configuration))
        if any(run.get("measures") for run in found.runs)
    ]
    parts: list[Grid | str] = [_overview(methods), NOTES]
    if measured:
        parts += ["## Faithfulness", _measures(measured), MEASURED]
    else:
        parts.append("Faithfulness was not measured; `leuk explain run=FOLDER` measures it.")
    if sanity := _sanity(methods, measured):
        parts += ["## Sanity checks", sanity, SANITY]
    parts.append(_pictures(configurations))
    return Section("explanations", "Explanations", tuple(parts), _table(methods, measured))


def _records(configuration: Configuration) -> list[Record]:
    return [record for record in configuration.records if _COHORT in record.explanations]


def _methods(configuration: Configuration) -> Iterator[_Found]:
    records = _records(configuration)
    names = [
        name
        for record in records
        for name, entry in record.explanations.items()
        if "arrays" in entry
    ]
    for name in dict.fromkeys(names):
        own = [record for record in records if name in record.explanations]
        runs = tuple(record.explanations[name] for record in own)
        yield _Found(
            configuration.title, name, runs, f"../{own[0].run.folder}/{runs[0]['picture']}"
        )


def _controls(configuration: Configuration) -> Iterator[_Found]:
    of_runs = [
        record.explanations[_COHORT].get("controls", {}) for record in _records(configuration)
    ]
    for name in dict.fromkeys(name for controls in of_runs for name in controls):
        runs = tuple(controls[name] for controls in of_runs if name in controls)
        yield _Found(configuration.title, f"{_CONTROL}{name}", runs, "")


def _overview(methods: Sequence[_Found]) -> Grid:
    header = (
        "configuration", "method", "images", "degenerate", "seconds per image", "stability",
        "figure",
    )  # fmt: skip
    rows = [
        (
            found.configuration,
            found.method,
            str(sum(run["images"] for run in found.runs)),
            str(sum(run["degenerate"] for run in found.runs)),
            "" if found.pace is None else f"{found.pace:.3g}",
            _number(found.own("stability")),
            f"[figure]({found.picture})",
        )
        for found in methods
    ]
    return Grid(header, tuple(rows))


def _measures(measured: Sequence[_Found]) -> Grid:
    header = (
        "configuration", "method", "insertion - deletion", "over random", "infidelity",
        "border (area)", "border over area", "background over area", "sensitivity", "randomized",
        "verdict", "images (patients)",
    )  # fmt: skip
    rows = [
        (
            found.configuration,
            found.method,
            _signed(*found.measured(_GAIN)),
            _signed(*found.measured(f"{_GAIN}_over_random")),
            interval_text(*found.measured("infidelity")),
            _beside(found),
            interval_text(*found.measured("positive_border_ratio")),
            interval_text(*found.measured("positive_background_ratio")),
            "" if found.control else interval_text(*found.measured("sensitivity")),
            interval_text(*found.randomized),
            found.passes,
            found.explained_again,
        )
        for found in measured
    ]
    return Grid(header, tuple(rows))


def _sanity(methods: Sequence[_Found], measured: Sequence[_Found]) -> Grid | None:
    """Return checks that hold unless something is broken; None if no record has any."""
    rows = [
        (
            found.configuration,
            found.method,
            _number(found.own("r2")),
            _number(found.own("additivity_error")),
            interval_text(*found.measured("sensitivity")) if found.control else "",
        )
        for found in (*methods, *(one for one in measured if one.control))
    ]
    rows = [row for row in rows if any(row[2:])]
    header = ("configuration", "method", "R²", "additivity error", "sensitivity of a control")
    return Grid(header, tuple(rows)) if rows else None


def _beside(found: _Found) -> str:
    share, area = (found.measured(name)[0] for name in ("positive_border", "area_border"))
    return "" if share is None or area is None else f"{share:.2f} ({area:.2f})"


def _signed(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    return f"{value:+.3f}" if low is None or high is None else difference_text(value, low, high)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _pictures(configurations: Sequence[Configuration]) -> str:
    """Links to the figures of all methods, an item per configuration."""
    items = [
        f"- {configuration.title}: {_links(record)}"
        for configuration in configurations
        for record in _records(configuration)[:1]
    ]
    return "\n".join(["## Figures", "", *items])


def _links(record: Record) -> str:
    cohort, folder = record.explanations[_COHORT], f"../{record.run.folder}"
    paths = [*cohort["pictures"], *filter(None, [cohort.get("curves")])]
    single = [path for path in paths if Path(path).parent.name in _PANELS]
    of_all = [path for path in paths if path not in single]
    links = [f"[{path.rpartition('/')[2]}]({folder}/{path})" for path in of_all]
    if single:
        below = single[0].rpartition("/")[0]
        links.append(f"[{len(single)} single image{'s'[: len(single) != 1]}]({folder}/{below})")
    skipped = [f"{name} not available ({why})" for name, why in cohort["left_out"].items()]
    return "; ".join([", ".join(links), *skipped])


def _table(methods: Sequence[_Found], measured: Sequence[_Found]) -> pd.DataFrame:
    """Return a row per method and metric."""
    rows: list[dict[str, Any]] = []
    for found in methods:
        plain = {
            "images": sum(run["images"] for run in found.runs),
            "degenerate": sum(run["degenerate"] for run in found.runs),
            "seconds_per_image": found.pace,
        }
        checks = dict.fromkeys(name for run in found.runs for name in run.get("checks", {}))
        plain |= {name: found.own(name) for name in checks}
        rows += [_row(found, name, value, None, None) for name, value in plain.items()]
    for found in measured:
        names = dict.fromkeys(name for run in found.runs for name in run.get("measures", {}))
        rows += [_row(found, name, *found.measured(name)) for name in names]
    return pd.DataFrame(rows)


def _row(
    found: _Found, name: str, value: float | None, low: float | None, high: float | None
) -> dict[str, Any]:
    return {
        "configuration": found.configuration,
        "method": found.method,
        "metric": name,
        "value": value,
        "low": low,
        "high": high,
        "runs": len(found.runs),
    }
