"""Explanations of a sweep: methods, faithfulness measures, sanity checks and pictures."""

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd
from PIL import Image

from leuk.report.html import png_uri
from leuk.report.load import Configuration
from leuk.report.table import (
    Block,
    Column,
    Heading,
    Items,
    Paragraph,
    Picture,
    Pictures,
    Section,
    Shown,
    Table,
    Text,
    Written,
    code,
    difference,
    estimate,
    link,
    number,
    text,
)
from leuk.runs.record import Record
from leuk.store import file_in

_COHORT = "cohort"
"""Entry of a record's explanations that concerns all methods."""

_PANELS = ("panels", "cells")
"""Folder of the figures of single images, below the explanations; ``cells`` in older runs."""

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

_NAMES = {"configuration": text("configuration"), "method": text("method")}

_OVERVIEW = _NAMES | {
    "images": number("images", "d"),
    "degenerate": number("degenerate", "d"),
    "seconds per image": number("seconds_per_image", ".3g"),
    "stability": number("stability", ".2g"),
    "figure": Column(("picture",), lambda to: Shown((link("figure", to),)), numeric=False),
}

_GAIN = "insertion_minus_deletion_blur"


def _gain(key: str) -> Column:
    return difference((key, f"{key}_low", f"{key}_high"))


def _border(share: float | None, area: float | None) -> str:
    return "" if share is None or area is None else f"{share:.2f} ({area:.2f})"


_MEASURES = _NAMES | {
    "insertion - deletion": _gain(_GAIN),
    "over random": _gain(f"{_GAIN}_over_random"),
    "infidelity": estimate("infidelity"),
    "border (area)": Column(("positive_border", "area_border"), _border),
    "border over area": estimate("positive_border_ratio"),
    "background over area": estimate("positive_background_ratio"),
    "sensitivity": estimate("sensitivity"),
    "randomized": estimate("randomized"),
    "verdict": text("verdict"),
    "images (patients)": text("tested"),
}

_OF_SANITY = {
    "R²": number("r2", ".2g"),
    "additivity error": number("additivity_error", ".2g"),
    "sensitivity of a control": estimate("sensitivity_of_control"),
}


_Bounded = tuple[float | None, float | None, float | None]
"""Value and the bounds of its interval."""

_Entries = Sequence[Mapping[str, Any]]
"""Entries of a method, or of a control, in the records of the runs of a configuration."""


def explanations_section(configurations: Sequence[Configuration]) -> Section:
    """Methods of every configuration, with their measures where they were computed."""
    explained = {
        one.title: own
        for one in configurations
        if (own := [record for record in one.records if _COHORT in record.explanations])
    }
    rows, values = [], []
    for title, records in explained.items():
        for name, runs, picture in _methods(records):
            row = _row(title, name, runs, picture)
            rows.append(row)
            found: dict[str, _Bounded] = {
                key: (value, None, None) for key, value in _plain(runs, picture).items()
            }
            for key, (value, low, high) in (found | _measures(runs)).items():
                kept = {"value": value, "low": low, "high": high}
                values.append(
                    {"configuration": title, "method": name, "metric": key, **kept}
                    | {"runs": len(runs)}
                )
    explain = code("leuk explain run=FOLDER")
    methods = [row for row in rows if row["picture"]]
    if not methods:
        nothing = Paragraph(("No run of the sweep has explanations; ", explain, " computes them."))
        return Section("explanations", "Explanations", (nothing,), pd.DataFrame())
    blocks: list[Written | str] = [Table(pd.DataFrame(methods), _OVERVIEW), NOTES]
    measured = [row for row in rows if row["measured"]]
    if measured:
        blocks += [Heading("Faithfulness"), Table(pd.DataFrame(measured), _MEASURES), MEASURED]
    else:
        blocks.append(Paragraph(("Faithfulness was not measured; ", explain, " measures it.")))
    keys = [column.keys[0] for column in _OF_SANITY.values()]
    controls = [row for row in measured if not row["picture"]]
    sanity = [row for row in methods + controls if any(row.get(key) is not None for key in keys)]
    if sanity:
        table = Table(pd.DataFrame(sanity), _NAMES | _OF_SANITY)
        blocks += [Heading("Sanity checks"), table, SANITY]
    links = (_links(title, records[0]) for title, records in explained.items())
    blocks += [Heading("Figures"), Items(tuple(links))]
    return Section("explanations", "Explanations", blocks, pd.DataFrame(values))


def _methods(records: Sequence[Record]) -> Iterator[tuple[str, _Entries, str]]:
    """Methods of the runs of a configuration, then the controls.

    Yields:
        Name, entries in the records, and the path of the first run's figure relative to the report;
        the path is empty for a control, which ignores the model.
    """
    methods: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    controls: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    pictures: dict[str, str] = {}
    for record in records:
        for name, entry in record.explanations.items():
            if "arrays" in entry:
                methods[name].append(entry)
                pictures.setdefault(name, f"../{record.run.folder}/{entry['picture']}")
        for name, entry in record.explanations[_COHORT].get("controls", {}).items():
            controls[name].append(entry)
    for name, entries in methods.items():
        yield name, entries, pictures[name]
    for name, entries in controls.items():
        yield f"control: {name}", entries, ""


def _plain(runs: _Entries, picture: str) -> dict[str, float | None]:
    """Average over the runs: counts, time, and the checks that a method reports itself."""
    if not picture:
        return {}
    checks = dict.fromkeys(name for run in runs for name in run.get("checks", {}))
    return {
        "images": sum(run["images"] for run in runs),
        "degenerate": sum(run["degenerate"] for run in runs),
        "seconds_per_image": _mean(run.get("seconds_per_image") for run in runs),
        **{name: _mean(run.get("checks", {}).get(name) for run in runs) for name in checks},
    }


def _measures(runs: _Entries) -> dict[str, _Bounded]:
    """Measures with bounds; means without bounds for several runs."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        for name, measure in run.get("measures", {}).items():
            found[name].append(measure)
    return {
        name: (mean(one["value"] for one in own), None, None)
        if len(own) > 1
        else (own[0]["value"], own[0]["low"], own[0]["high"])
        for name, own in found.items()
    }


def _row(configuration: str, name: str, runs: _Entries, picture: str) -> dict[str, Any]:
    """Values of the printed tables."""
    measures = _measures(runs)
    # Older records have the similarity of signed maps.
    for older in ("randomized_similarity", "randomized_spearman"):
        if older in measures:
            measures.setdefault("randomized", measures[older])
    if not picture and "sensitivity" in measures:
        measures["sensitivity_of_control"] = measures.pop("sensitivity")
    again = [run.get("measures", {}).get("randomized_similarity", {}) for run in runs]
    images, patients = (sum(one.get(key, 0) for one in again) for key in ("images", "subjects"))
    values: dict[str, Any] = {"configuration": configuration, "method": name}
    for key, bounded in measures.items():
        values |= dict(zip((key, f"{key}_low", f"{key}_high"), bounded, strict=True))
    return values | {
        **_plain(runs, picture),
        "picture": picture,
        "measured": any(run.get("measures") for run in runs),
        "verdict": _verdict(runs),
        "tested": f"{images} ({patients})" if images else "",
    }


def _verdict(runs: _Entries) -> str:
    """Return ``passes``, ``FAILS`` or ``undecided``; for several runs the number that pass."""
    # Records with this measure have an interval; no verdict means that it includes the limit.
    tried = [
        run.get("passes_randomization")
        for run in runs
        if run.get("passes_randomization") is not None
        or "randomized_similarity" in run.get("measures", {})
    ]
    if len(tried) < 2:
        words = {True: "passes", False: "FAILS", None: "undecided"}
        return words[tried[0]] if tried else ""
    undecided = f", {tried.count(None)} undecided" if None in tried else ""
    return f"{tried.count(True)} of {len(tried)} pass{undecided}"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _links(title: str, record: Record) -> Text:
    """Links to the figures of all methods, and the methods that are not available."""
    cohort, folder = record.explanations[_COHORT], f"../{record.run.folder}"
    paths = [*cohort["pictures"], *filter(None, [cohort.get("curves")])]
    single = [path for path in paths if Path(path).parent.name in _PANELS]
    links = [
        link(path.rpartition("/")[2], f"{folder}/{path}") for path in paths if path not in single
    ]
    if single:
        count = f"{len(single)} single image{'s'[: len(single) != 1]}"
        links.append(link(count, f"{folder}/{single[0].rpartition('/')[0]}"))
    skipped = [f"; {name} not available ({why})" for name, why in cohort["left_out"].items()]
    separated = [part for one in links for part in (", ", one)]
    return (f"{title}: ", *separated[1:], *skipped)


# --- Pictures for the page, reduced in size

_WIDEST = 1100
_LARGEST = 8000
"""Largest side in pixels that is read; pictures written by leuk have a few thousand."""

_COLORS = 192
_MOST = 24
"""Maximum number of pictures on the page; the others are in the folders of their runs."""

_READ_IMAGE = """\
A test image as the model sees it, and maps of {name}: orange parts support leukemia, purple parts
oppose it, by each method's own scale. Above it: score, true class, and patient."""


def explained_image(sweep: Path, configurations: Sequence[Configuration]) -> Pictures | None:
    """Picture of the first single image that a run explained; None without explanations."""
    for one in configurations:
        for record in one.records:
            cohort = record.explanations.get(_COHORT)
            paths = cohort.get("pictures", ()) if isinstance(cohort, dict) else ()
            for path in map(str, paths):
                if Path(path).parent.name not in _PANELS:
                    continue
                if png := _small(sweep / record.run.folder, path):
                    alt = (
                        f"A test image, and maps of the parts that support leukemia in {one.title}."
                    )
                    caption = _READ_IMAGE.format(name=one.title)
                    picture = Picture(png_uri(png), alt)
                    return Pictures("One explained image", caption, (picture,))
    return None


def explained_pictures(sweep: Path, configurations: Sequence[Configuration]) -> list[Block]:
    """Pictures of the first run with any, of the first such configuration of each model."""
    shown: dict[str, list[Block]] = {}
    room = _MOST
    for one in configurations:
        if one.run.model in shown or not room:
            continue
        of_runs = (list(_of_record(sweep, one.title, record)) for record in one.records)
        if found := next(filter(None, of_runs), [])[:room]:
            shown[one.run.model] = [Heading(f"Pictures of {one.title}"), *found]
            room -= len(found)
    return [block for blocks in shown.values() for block in blocks]


def _of_record(sweep: Path, name: str, record: Record) -> Iterator[Pictures]:
    folder = sweep / record.run.folder
    for method, entry in record.explanations.items():
        if not isinstance(entry, dict) or method == _COHORT:
            continue
        if png := _small(folder, entry.get("picture")):
            count, blank = entry.get("images"), entry.get("degenerate")
            images = f"{count} test images, balanced by outcome" if count else "images"
            empty = f"; {blank} maps are degenerate" if blank else ""
            alt = f"{method} of {name}: regions of {images} that support or oppose leukemia{empty}."
            yield Pictures(method, "", (Picture(png_uri(png), alt),))
    cohort = record.explanations.get(_COHORT)
    if isinstance(cohort, dict) and (png := _small(folder, cohort.get("curves"))):
        alt = f"Deletion and insertion curves of every method for {name}, controls in gray."
        yield Pictures("deletion and insertion", "", (Picture(png_uri(png), alt),))


def _small(folder: Path, name: object) -> bytes | None:
    """Return a picture from the folder of a run as a small PNG; None if it is not readable."""
    if not isinstance(name, str):
        return None
    try:
        with Image.open(file_in(folder, name), formats=("PNG",)) as image:
            if max(image.size) > _LARGEST:
                return None
            image.thumbnail((_WIDEST, 4 * _WIDEST))
            small = image.convert("RGB").quantize(_COLORS, Image.Quantize.FASTOCTREE)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()
