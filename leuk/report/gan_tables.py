"""The thesis's table 2 and figure 8, for all GANs of a sweep: our figures beside the published."""

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leuk.data.effective import FEWEST as FEWEST_PATIENTS
from leuk.errors import StoreError
from leuk.evaluate.sheets import save_rows
from leuk.evaluate.vectors import Images, check_images
from leuk.report.sections import Grid, Section
from leuk.store.foreign import file_in, read_arrays

QUALITY = "quality.json"
"""What ``leuk synthesize`` leaves beside a GAN's cells."""

_ROWS = {
    "synthetic": "{gan}",
    "real": "real, trained on (the floor)",
    "other_class": "real, held out, other class",
    "mean_image": "mean cell over and over",
    "black": "black",
}
_COLUMNS = {
    "FID": "fid",
    "KID": "kid",
    "Inception Score": "inception_score",
    "Frechet distance": "frechet_distance",
    "kernel distance": "kernel_distance",
    "class score": "class_score",
    "SSIM nearest": "ssim",
    "SSIM in cell": "ssim_mask",
    "MS-SSIM diversity": "diversity",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "morphology": "morphology",
    "told apart": "two_sample_auroc",
}
_PUBLISHED = {"FID": "fid", "Inception Score": "is_mean", "SSIM": "ssim"}

_NOTES = """\
Every line is compared with as many cells of held-out subjects ({held_out} part), of the class
named. A GAN is as good as can be asked for where it reaches the floor. Distances: smaller is
better; features of {extractor}{naming}. Precision and density: how real the cells are; recall,
coverage and diversity: how many kinds there are. SSIM is that of each cell and the nearest real
one, over the whole image, most of which is black, and inside the cells. Morphology: mean
Wasserstein distance over size, shape, color, texture and specks, in standard deviations of real
cells. Told apart: AUROC of a linear probe that tells the line's cells from held-out ones of other
patients than it was fitted on, 0.5 where it cannot. Spreads (±) are over halves of the patients;
where these are too few to tell, there is none."""

_THESIS = """\
Published in the thesis's table 2, which cannot be right: real images of one data set do not reach
its FID against each other, an Inception Score of 1.000 means constant features, and two genuine
cells have an SSIM of 0.86."""


_LARGE = 1000


def write_gan_report(sweep: Path) -> str:
    """Write ``table_2.csv``, ``table_2.md`` and ``figure_8.png`` of a sweep; return the second.

    Raises:
        StoreError: no GAN of the sweep has been judged.
    """
    reports = read_quality(sweep.glob(f"*/{QUALITY}"))
    if not reports:
        raise StoreError(f"{sweep}: no {QUALITY} below it; run leuk synthesize first")
    parts, table = quality_tables({folder.name: report for folder, report in reports.items()})
    section = Section("table_2", sweep.name, (*parts, *published_tables()), table)
    section.write(sweep)
    save_rows(sweep / "figure_8.png", synthesis_examples(list(reports)))
    return section.markdown


def read_quality(paths: Iterable[Path]) -> dict[Path, Any]:
    """What ``leuk synthesize`` found, by the folder of the GAN's cells."""
    return {path.parent: json.loads(path.read_text()) for path in sorted(paths)}


def quality_tables(reports: Mapping[str, Any]) -> tuple[list[Grid | str], pd.DataFrame]:
    """How good made cells are beside what they are compared with, and every figure of it.

    Args:
        reports: what was found, by what the GAN is called; at least one. Where they are of several
            folds or seeds, ``where`` says of which.
    """
    table = pd.DataFrame(
        [
            line
            for gan, report in reports.items()
            for name, quality in report["quality"].items()
            for line in _lines(gan, name, quality, report.get("where", ""))
        ]
    )
    first = next(iter(reports.values()))
    extractor = ", ".join(dict.fromkeys(table["extractor"]))
    naming = "" if "fid" in table else ", so they are not FID and KID"
    notes = _NOTES.format(held_out=first["held_out"], extractor=extractor, naming=naming)
    return [_grid(table), notes, _remarks(reports)], table


def _lines(gan: str, cls: str, quality: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """One line for the GAN, and one for each thing it is compared with."""
    lines = []
    for row, title in _ROWS.items():
        figures = dict(quality["rows"][row])
        if row == "synthetic":
            for space, found in quality["memorization"].items():
                figures |= {f"{space}_{name}": value for name, value in found.items()}
        lines.append(
            {
                "set": title.format(gan=gan)
                + (f" ({where})" if where and row != "synthetic" else ""),
                "row": row,
                "class": cls,
                "extractor": quality["extractor"],
                "n": quality["n"],
                **figures,
            }
        )
    return lines


def _grid(table: pd.DataFrame) -> Grid:
    columns = {
        title: key for title, key in _COLUMNS.items() if key in table and table[key].notna().any()
    }
    # The sets beside the GANs are the same for all that were judged on the same cells.
    shown = table.drop_duplicates(["set", "class", "n", *columns.values(), "extractor"])
    shown = shown.sort_values(["class", "row"], kind="stable", key=_in_order)
    rows = [
        (
            *(str(row[name]) for name in ("set", "class", "n")),
            *(_cell(row, key) for key in columns.values()),
        )
        for row in shown.to_dict("records")
    ]
    return Grid(("images", "class", "n", *columns), tuple(rows))


def _in_order(column: pd.Series) -> pd.Series:
    """Made cells first, then what they are compared with, as listed above."""
    return column.map(list(_ROWS).index) if column.name == "row" else column


def _cell(row: Mapping[Any, Any], key: str) -> str:
    value, spread = row[key], row.get(f"{key}_spread")
    if value is None or np.isnan(value):
        return ""
    if abs(value) >= _LARGE:
        # How far off something useless is, to the last digit, tells nobody anything.
        return f"{value:,.0f}"
    return f"{value:.3f}" + ("" if spread is None or np.isnan(spread) else f" ± {spread:.3f}")


def _remarks(reports: Mapping[str, Any]) -> str:
    """What the probes and the search for copies say, and what is wrong."""
    remarks = []
    for gan, report in reports.items():
        for cls, quality in report["quality"].items():
            use, copies = quality["usefulness"], quality["memorization"]
            remarks.append(
                f"- {gan}, {cls}: a linear probe trained on made cells reaches AUROC "
                f"{use['synthetic']:.3f} on real ones, trained on real cells {use['real']:.3f}. Closer "
                "to a training cell than 99 % of held-out cells are: "
                f"{copies['features']['closer_share']:.1%} by features, "
                f"{copies['pixels']['closer_share']:.1%} by pixels."
            )
            remarks += [f"- **{gan}, {cls}: {text}**" for text in quality["warnings"]]
            # Records from before patients were counted have none.
            few = {
                name: number
                for name, number in quality.get("patients", {}).items()
                if number < FEWEST_PATIENTS
            }
            if few:
                counted = ", ".join(f"{name} {number:.1f}" for name, number in few.items())
                remarks.append(
                    f"- {gan}, {cls}: effective patients are fewer than {FEWEST_PATIENTS:.0f} in "
                    f"{counted}: no spread of a distance to them can be given."
                )
    return "\n".join(remarks)


def published_figures() -> pd.DataFrame:
    """The thesis's figures: ``table``, ``group``, ``metric``, ``value``, ``averaging_or_note``."""
    with resources.as_file(resources.files("leuk.report") / "thesis_tables.csv") as path:
        return pd.read_csv(path)


def published_tables() -> list[Grid | str]:
    """The thesis's table 2, and why it cannot be right."""
    table = published_figures()
    rows = []
    for gan, figures in table[table["table"] == 2].groupby("group", sort=False):
        values = figures.set_index("metric")["value"]
        rows.append((str(gan), *(f"{values[key]:.3f}" for key in _PUBLISHED.values())))
    return [Grid(("thesis", *_PUBLISHED), tuple(rows)), _THESIS]


def synthesis_examples(folders: Iterable[Path]) -> dict[str, Images]:
    """Real cells, and below them a row for each GAN and class, as synthesis left them."""
    rows: dict[str, Images] = {}
    for folder in folders:
        for file in sorted(folder.glob("images_*.npz")):
            cls = file.stem.removeprefix("images_")
            cells = read_arrays(file_in(folder, file.name))
            for images in (cells["real"], cells["synthetic"]):
                check_images(images)
            rows.setdefault(f"real {cls}", cells["real"])
            rows[f"{folder.name.split('-')[0]} {cls}"] = cells["synthetic"]
    return rows
