"""Table 2 and figure 8 of the thesis for the GANs of a sweep, with the published values."""

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leuk.data.splits import FEWEST as FEWEST_PATIENTS
from leuk.errors import StoreError
from leuk.metrics.arrays import Images, check_images
from leuk.metrics.synthetic.quality import save_rows
from leuk.report.sections import Grid, Section
from leuk.store import file_in, read_arrays

QUALITY = "quality.json"
"""File with the quality of synthetic images, written by ``leuk synthesize``."""

_ROWS = {
    "synthetic": "{gan}",
    "real": "real, training images (best achievable)",
    "other_class": "real, held out, other class",
    "mean_image": "mean image, repeated",
    "black": "black images",
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
    "two-sample AUROC": "two_sample_auroc",
}
_PUBLISHED = {"FID": "fid", "Inception Score": "is_mean", "SSIM": "ssim"}

_NOTES = """\
Every row compares n images with as many images of held-out patients (stage {held_out}) of the class
(hem: healthy, all: leukemic). The best a GAN can achieve is the value of the real training images.
Distances: smaller is better; features: {extractor}{naming}. Precision and density: realism of the
images. Recall, coverage and diversity: variety of the images. SSIM: structural similarity of each
image to the nearest real image, over the whole image, most of which is black, and inside the cell.
Morphology: mean Wasserstein distance over size, shape, color, texture and specks, in standard
deviations of real cells. Two-sample AUROC: AUROC of a linear classifier that separates the images
of the row from held-out images, evaluated on patients it was not fitted on; 0.5 means
indistinguishable. Spreads (±) are over halves of the patients; they are omitted if the patients are
too few."""

_THESIS = """\
Values published in table 2 of the thesis. They are implausible: real images of one data set do not
reach such a low FID against each other, an Inception Score of 1.000 means constant features, and
even two real cells have an SSIM of 0.86."""


_LARGE = 1000


def write_gan_report(sweep: Path) -> str:
    """Write ``table_2.csv``, ``table_2.md`` and ``figure_8.png``; return the Markdown table.

    Args:
        sweep: folder of a sweep of ``leuk synthesize``.

    Raises:
        StoreError: no GAN of the sweep has been evaluated.
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
    """Quality reports by the folder of the synthetic images."""
    return {path.parent: json.loads(path.read_text()) for path in sorted(paths)}


def quality_tables(reports: Mapping[str, Any]) -> tuple[list[Grid | str], pd.DataFrame]:
    """Quality of synthetic images and their references, as tables and as numbers.

    Args:
        reports: quality reports by name of the GAN, not empty. With several folds or seeds,
            ``where`` names the one of the report.
    """
    table = pd.DataFrame(
        [
            row
            for gan, report in reports.items()
            for name, quality in report["quality"].items()
            for row in _rows(gan, name, quality, report.get("where", ""))
        ]
    )
    first = next(iter(reports.values()))
    extractor = ", ".join(dict.fromkeys(table["extractor"]))
    naming = "" if "fid" in table else ", so the distances are not FID and KID"
    notes = _NOTES.format(held_out=first["held_out"], extractor=extractor, naming=naming)
    return [_grid(table), notes, _remarks(reports)], table


def _rows(gan: str, cls: str, quality: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Return a row for the GAN and for each reference."""
    rows = []
    for row, title in _ROWS.items():
        values = dict(quality["rows"][row])
        if row == "synthetic":
            for space, found in quality["memorization"].items():
                values |= {f"{space}_{name}": value for name, value in found.items()}
        rows.append(
            {
                "set": title.format(gan=gan)
                + (f" ({where})" if where and row != "synthetic" else ""),
                "row": row,
                "class": cls,
                "extractor": quality["extractor"],
                "n": quality["n"],
                **values,
            }
        )
    return rows


def _grid(table: pd.DataFrame) -> Grid:
    columns = {
        title: key for title, key in _COLUMNS.items() if key in table and table[key].notna().any()
    }
    # GANs evaluated on the same images have the same references.
    shown = table.drop_duplicates(["set", "class", "n", *columns.values(), "extractor"])
    shown = shown.sort_values(["class", "row"], kind="stable", key=_in_order)
    rows = [
        (
            *(str(row[name]) for name in ("set", "class", "n")),
            *(_text(row, key) for key in columns.values()),
        )
        for row in shown.to_dict("records")
    ]
    return Grid(("images", "class", "n", *columns), tuple(rows))


def _in_order(column: pd.Series) -> pd.Series:
    """Synthetic images first, then the references in the order of ``_ROWS``."""
    return column.map(list(_ROWS).index) if column.name == "row" else column


def _text(row: Mapping[Any, Any], key: str) -> str:
    value, spread = row[key], row.get(f"{key}_spread")
    if value is None or np.isnan(value):
        return ""
    if abs(value) >= _LARGE:
        # Exact distances of useless images carry no information.
        return f"{value:,.0f}"
    return f"{value:.3f}" + ("" if spread is None or np.isnan(spread) else f" ± {spread:.3f}")


def _remarks(reports: Mapping[str, Any]) -> str:
    """List of usefulness, copies and warnings of each GAN."""
    remarks = []
    for gan, report in reports.items():
        for cls, quality in report["quality"].items():
            use, copies = quality["usefulness"], quality["memorization"]
            remarks.append(
                f"- {gan}, {cls}: a linear classifier trained on synthetic images reaches AUROC "
                f"{use['synthetic']:.3f} on real images, trained on real images {use['real']:.3f}. "
                "Share of synthetic images closer to a training image than 99 % of held-out images "
                f"are: {copies['features']['closer_share']:.1%} by features, "
                f"{copies['pixels']['closer_share']:.1%} by pixels (1 % expected without copying)."
            )
            remarks += [f"- **{gan}, {cls}: {text}**" for text in quality["warnings"]]
            # Older records do not count patients.
            few = {
                name: number
                for name, number in quality.get("patients", {}).items()
                if number < FEWEST_PATIENTS
            }
            if few:
                counted = ", ".join(f"{name} {number:.1f}" for name, number in few.items())
                remarks.append(
                    f"- {gan}, {cls}: fewer than {FEWEST_PATIENTS:.0f} effective patients in "
                    f"{counted}: the distances have no spread."
                )
    return "\n".join(remarks)


def published_figures() -> pd.DataFrame:
    """Values of the thesis: ``table``, ``group``, ``metric``, ``value``, ``averaging_or_note``."""
    with resources.as_file(resources.files("leuk.report") / "thesis_tables.csv") as path:
        return pd.read_csv(path)


def published_tables() -> list[Grid | str]:
    """Table 2 of the thesis, and why its values are implausible."""
    table = published_figures()
    rows = []
    for gan, published in table[table["table"] == 2].groupby("group", sort=False):
        values = published.set_index("metric")["value"]
        rows.append((str(gan), *(f"{values[key]:.3f}" for key in _PUBLISHED.values())))
    return [Grid(("thesis", *_PUBLISHED), tuple(rows)), _THESIS]


def synthesis_examples(folders: Iterable[Path]) -> dict[str, Images]:
    """Images kept by synthesis: rows of real images, then a row for each GAN and class."""
    rows: dict[str, Images] = {}
    for folder in folders:
        for file in sorted(folder.glob("images_*.npz")):
            cls = file.stem.removeprefix("images_")
            kept = read_arrays(file_in(folder, file.name))
            for images in (kept["real"], kept["synthetic"]):
                check_images(images)
            rows.setdefault(f"real {cls}", kept["real"])
            rows[f"{folder.name.split('-')[0]} {cls}"] = kept["synthetic"]
    return rows
