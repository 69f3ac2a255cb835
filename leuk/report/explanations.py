"""What the explanations of each line came to, and whether they are right, from the records."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import pandas as pd

from leuk.grid.record import Record
from leuk.report.results import Configuration
from leuk.report.sections import Grid, Section, difference_text, interval_text

_TOGETHER = "cohort"
"""The entry of a record's explanations that is of all methods together."""

_PANELS = "panels"
"""Subfolder with one picture per image."""

_CONTROL = "control: "
"""Begins the names of controls in tables."""

_GAIN = "insertion_minus_deletion_blur"

NOTES = """\
Cells: test cells, of all runs of the line, balanced by outcome (true and false positives and
negatives take turns): means and mean maps describe this sample, in which errors are far more
frequent than in the test population. Degenerate: maps that are constant or hold no number;
they count in nothing else. Seconds: of one cell, on the device of the run. Stability (rank
correlation over seeds) is LIME's."""

MEASURED = """\
Every figure is of the balanced sample. Maps are turned toward the class the model called.
Insertion - deletion: mean probability of it while the cell's pixels come, highest first, less that
while they go; blurred where they are hidden.
Over random: less that of random blobs on the same cell. Infidelity: share of what removing squares
does that the map does not foretell. Border: share of positive attribution in the band at the cell's
rim, a tenth of its diameter wide, beside the share of the image that the band has; over area: one
by the other, 1 is what chance gives. Sensitivity: the largest relative change of the map under
small noise on the cell's pixels; low is good. Randomized: size of the rank correlation with the
map of the same model with random weights. A method passes where the whole interval is below 0.5,
FAILS where none of it is, and is undecided in between. Records of before the interval give the
mean, and a verdict by the mean alone. Images (patients): those of this test, summed over the runs.
Controls ignore the model. 95 % intervals resample whole patients; of several runs the mean is
given."""

SANITY = """\
No evidence that a map is right: each holds unless something is broken. Additivity error is SHAP's,
the distance of a map's sum from what it should be over the range of the log-odds: 0 by construction
of regions and patches, and falling with the draws of pixels. R² is LIME's, on the samples that its
linear model was fitted to. Sensitivity of a control, a map that ignores the model."""


@dataclass(frozen=True)
class _Found:
    """One method of one line.

    Attributes:
        line: its name.
        method: its name; a control's begins with ``control: ``.
        runs: what each run's record says of it.
        picture: of the first run, relative to the report; empty where there is none.
    """

    line: str
    method: str
    runs: tuple[Mapping[str, Any], ...]
    picture: str

    def figure(self, measure: str) -> tuple[float | None, float | None, float | None]:
        """Value and bounds of a measure; of several runs their mean."""
        found = [
            run["measures"][measure] for run in self.runs if measure in run.get("measures", {})
        ]
        if not found:
            return None, None, None
        if len(found) == 1:
            return found[0]["value"], found[0]["low"], found[0]["high"]
        return mean(one["value"] for one in found), None, None

    def own(self, check: str) -> float | None:
        """Mean of what the method says of itself."""
        said = [run.get("checks", {}).get(check) for run in self.runs]
        values = [value for value in said if value is not None]
        return mean(values) if values else None

    @property
    def pace(self) -> float | None:
        """Seconds a cell; None in records of before it was taken down."""
        said = [run.get("seconds_per_image") for run in self.runs]
        values = [value for value in said if value is not None]
        return mean(values) if values else None

    @property
    def control(self) -> bool:
        """Whether its maps ignore the model."""
        return self.method.startswith(_CONTROL)

    @property
    def randomized(self) -> tuple[float | None, float | None, float | None]:
        """Similarity to maps of random weights; in older records the signed maps' alone."""
        found = self.figure("randomized_similarity")
        return self.figure("randomized_spearman") if found[0] is None else found

    @property
    def explained_again(self) -> str:
        """Images of the randomization test and their patients, empty in older records."""
        found = [run.get("measures", {}).get("randomized_similarity", {}) for run in self.runs]
        cells, subjects = (sum(one.get(key, 0) for one in found) for key in ("images", "subjects"))
        return f"{cells} ({subjects})" if cells else ""

    @property
    def passes(self) -> str:
        """``passes``, ``FAILS`` or ``undecided`` of the randomization test; how many runs pass."""
        # Records with this measure have an interval: without a verdict, it held the limit.
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


def explanations_section(groups: Sequence[Configuration]) -> Section:
    """What every method came to on every line, and how it was measured where it was."""
    methods = [found for group in groups for found in _methods(group)]
    if not methods:
        said = "No record of the sweep holds explanations; `leuk explain run=FOLDER` makes them."
        return Section("explanations", "Explanations", (said,), pd.DataFrame())
    measured = [
        found
        for group in groups
        for found in (*_methods(group), *_controls(group))
        if any(run.get("measures") for run in found.runs)
    ]
    parts: list[Grid | str] = [_overview(methods), NOTES]
    if measured:
        parts += ["## Are they right?", _measures(measured), MEASURED]
    else:
        parts.append("Whether they are right was not measured; `leuk explain run=FOLDER` does it.")
    if sanity := _sanity(methods, measured):
        parts += ["## Sanity checks", sanity, SANITY]
    parts.append(_pictures(groups))
    return Section("explanations", "Explanations", tuple(parts), _table(methods, measured))


def _records(group: Configuration) -> list[Record]:
    return [record for record in group.records if _TOGETHER in record.explanations]


def _methods(group: Configuration) -> Iterator[_Found]:
    records = _records(group)
    names = [
        name for record in records for name, said in record.explanations.items() if "arrays" in said
    ]
    for name in dict.fromkeys(names):
        own = [record for record in records if name in record.explanations]
        runs = tuple(record.explanations[name] for record in own)
        yield _Found(group.title, name, runs, f"../{own[0].run.folder}/{runs[0]['picture']}")


def _controls(group: Configuration) -> Iterator[_Found]:
    of_runs = [record.explanations[_TOGETHER].get("controls", {}) for record in _records(group)]
    for name in dict.fromkeys(name for controls in of_runs for name in controls):
        runs = tuple(controls[name] for controls in of_runs if name in controls)
        yield _Found(group.title, f"{_CONTROL}{name}", runs, "")


def _overview(methods: Sequence[_Found]) -> Grid:
    header = (
        "configuration", "method", "images", "degenerate", "s a cell", "stability", "picture",
    )  # fmt: skip
    rows = [
        (
            found.line,
            found.method,
            str(sum(run["images"] for run in found.runs)),
            str(sum(run["degenerate"] for run in found.runs)),
            "" if found.pace is None else f"{found.pace:.3g}",
            _number(found.own("stability")),
            f"[picture]({found.picture})",
        )
        for found in methods
    ]
    return Grid(header, tuple(rows))


def _measures(measured: Sequence[_Found]) -> Grid:
    header = (
        "configuration", "method", "insertion - deletion", "over random", "infidelity", "border (area)",
        "border over area", "background over area", "sensitivity", "randomized", "verdict",
        "images (patients)",
    )  # fmt: skip
    rows = [
        (
            found.line,
            found.method,
            _signed(*found.figure(_GAIN)),
            _signed(*found.figure(f"{_GAIN}_over_random")),
            interval_text(*found.figure("infidelity")),
            _beside(found),
            interval_text(*found.figure("positive_border_ratio")),
            interval_text(*found.figure("positive_background_ratio")),
            "" if found.control else interval_text(*found.figure("sensitivity")),
            interval_text(*found.randomized),
            found.passes,
            found.explained_again,
        )
        for found in measured
    ]
    return Grid(header, tuple(rows))


def _sanity(methods: Sequence[_Found], measured: Sequence[_Found]) -> Grid | None:
    """Measures that hold by construction; None where no record has any."""
    rows = [
        (
            found.line,
            found.method,
            _number(found.own("r2")),
            _number(found.own("additivity_error")),
            interval_text(*found.figure("sensitivity")) if found.control else "",
        )
        for found in (*methods, *(one for one in measured if one.control))
    ]
    rows = [row for row in rows if any(row[2:])]
    header = ("configuration", "method", "R²", "additivity error", "sensitivity of a control")
    return Grid(header, tuple(rows)) if rows else None


def _beside(found: _Found) -> str:
    share, area = (found.figure(name)[0] for name in ("positive_border", "area_border"))
    return "" if share is None or area is None else f"{share:.2f} ({area:.2f})"


def _signed(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    return f"{value:+.3f}" if low is None or high is None else difference_text(value, low, high)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _pictures(groups: Sequence[Configuration]) -> str:
    """Links to the pictures of all methods together, a line each."""
    lines = [
        f"- {group.title}: {_links(record)}" for group in groups for record in _records(group)[:1]
    ]
    return "\n".join(["## Pictures", "", *lines])


def _links(record: Record) -> str:
    together, folder = record.explanations[_TOGETHER], f"../{record.run.folder}"
    places = [*together["pictures"], *filter(None, [together.get("curves")])]
    of_all = [place for place in places if f"/{_PANELS}/" not in place]
    links = [f"[{place.rpartition('/')[2]}]({folder}/{place})" for place in of_all]
    if of_all:
        below = of_all[0].rpartition("/")[0]
        links.append(f"[{len(places) - len(of_all)} images]({folder}/{below}/{_PANELS})")
    left_out = [f"{name} left out ({why})" for name, why in together["left_out"].items()]
    return "; ".join([", ".join(links), *left_out])


def _table(methods: Sequence[_Found], measured: Sequence[_Found]) -> pd.DataFrame:
    """One line a method and figure."""
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
        rows += [_row(found, name, *found.figure(name)) for name in names]
    return pd.DataFrame(rows)


def _row(
    found: _Found, name: str, value: float | None, low: float | None, high: float | None
) -> dict[str, Any]:
    return {
        "configuration": found.line,
        "method": found.method,
        "figure": name,
        "value": value,
        "low": low,
        "high": high,
        "runs": len(found.runs),
    }
