"""The thesis's table 2 and figure 8, for all GANs of a sweep: our figures beside the published."""

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leuk.errors import StoreError
from leuk.evaluate.features import Images
from leuk.evaluate.sheets import save_rows
from leuk.store.atomic import write_text

_ROWS = {
    "made": "{gan}",
    "real": "real, trained on (the floor)",
    "other_class": "real, held out, other class",
    "mean_cell": "mean cell over and over",
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
    "SSIM in cell": "ssim_cell",
    "MS-SSIM diversity": "diversity",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "morphology": "morphology",
    "told apart": "told_apart",
}
_PUBLISHED = {"FID": "fid", "Inception Score": "is_mean", "SSIM": "ssim"}

_NOTES = """\
Every line is compared with as many cells of held-out subjects ({held_out} part), of the class
named. A GAN is as good as can be asked for where it reaches the floor. Distances: smaller is
better; features of {extractor}{naming}. Precision and density: how real the cells are; recall,
coverage and diversity: how many kinds there are. SSIM is that of each cell and the nearest real
one, over the whole image, most of which is black, and inside the cells. Morphology: mean
Wasserstein distance over size, shape, colour, texture and specks, in standard deviations of real
cells. Told apart: AUROC of a linear probe that tells the line's cells from held-out ones, 0.5 where
it cannot."""

_THESIS = """\
Published in the thesis's table 2, which cannot be right: real images of one data set do not reach
its FID against each other, an Inception Score of 1.000 means constant features, and two genuine
cells have an SSIM of 0.86."""


def write_gan_report(sweep: Path) -> str:
    """Write ``table_2.csv``, ``table_2.md`` and ``figure_8.png`` of a sweep; return the second.

    Raises:
        StoreError: no GAN of the sweep has been judged.
    """
    reports = {
        path.parent: json.loads(path.read_text()) for path in sorted(sweep.glob("*/quality.json"))
    }
    if not reports:
        raise StoreError(f"{sweep}: no quality.json below it; run leuk synthesize first")
    table = pd.DataFrame(
        [
            line
            for folder, report in reports.items()
            for name, quality in report["quality"].items()
            for line in _lines(folder.name, name, quality)
        ]
    )
    write_text(sweep / "table_2.csv", table.to_csv(index=False))
    text = _markdown(sweep.name, reports, table)
    write_text(sweep / "table_2.md", text + "\n")
    _figure(sweep / "figure_8.png", list(reports))
    return text


def _lines(folder: str, cls: str, quality: dict[str, Any]) -> list[dict[str, Any]]:
    """One line for the GAN, and one for each thing it is compared with."""
    lines = []
    for row, title in _ROWS.items():
        figures = dict(quality["rows"][row])
        if row == "made":
            for space, found in quality["memorisation"].items():
                figures |= {f"{space}_{name}": value for name, value in found.items()}
        lines.append(
            {
                "set": title.format(gan=folder),
                "row": row,
                "class": cls,
                "extractor": quality["extractor"],
                "n": quality["n"],
                **figures,
            }
        )
    return lines


def _markdown(name: str, reports: dict[Path, Any], table: pd.DataFrame) -> str:
    columns = {title: key for title, key in _COLUMNS.items() if key in table}
    # The sets beside the GANs are the same for all that were judged on the same cells.
    shown = table.drop_duplicates(["set", "class", "n", columns["precision"], "extractor"])
    shown = shown.sort_values(["class", "row"], kind="stable", key=_in_order)
    lines = [
        "| | class | n | " + " | ".join(columns) + " |",
        "|---|---|--:|" + "--:|" * len(columns),
    ]
    for row in shown.to_dict("records"):
        values = " | ".join(_cell(row, key) for key in columns.values())
        lines.append(f"| {row['set']} | {row['class']} | {row['n']} | {values} |")
    first = next(iter(reports.values()))
    extractor = ", ".join(dict.fromkeys(table["extractor"]))
    naming = "" if "fid" in table else ", so they are not FID and KID"
    notes = _NOTES.format(held_out=first["held_out"], extractor=extractor, naming=naming)
    return "\n\n".join(
        [f"# {name}", "\n".join(lines), notes, _remarks(reports), _published(), _THESIS]
    )


def _in_order(column: pd.Series) -> pd.Series:
    """Made cells first, then what they are compared with, as listed above."""
    return column.map(list(_ROWS).index) if column.name == "row" else column


def _cell(row: Mapping[Any, Any], key: str) -> str:
    value, spread = row[key], row.get(f"{key}_spread")
    if value is None or np.isnan(value):
        return ""
    return f"{value:.3f}" + ("" if spread is None or np.isnan(spread) else f" ± {spread:.3f}")


def _remarks(reports: dict[Path, Any]) -> str:
    """What the probes and the search for copies say, and what is wrong."""
    remarks = []
    for folder, report in reports.items():
        for cls, quality in report["quality"].items():
            use, copies = quality["usefulness"], quality["memorisation"]
            remarks.append(
                f"- {folder.name}, {cls}: a linear probe trained on made cells reaches AUROC "
                f"{use['made']:.3f} on real ones, trained on real cells {use['real']:.3f}. Closer "
                "to a training cell than 99 % of held-out cells are: "
                f"{copies['features']['closer_share']:.1%} by features, "
                f"{copies['pixels']['closer_share']:.1%} by pixels."
            )
            remarks += [f"- **{folder.name}, {cls}: {text}**" for text in quality["warnings"]]
    return "\n".join(remarks)


def published_figures() -> pd.DataFrame:
    """The thesis's figures: ``table``, ``group``, ``metric``, ``value``, ``averaging_or_note``."""
    with resources.as_file(resources.files("leuk.report") / "thesis_tables.csv") as path:
        return pd.read_csv(path)


def _published() -> str:
    table = published_figures()
    table = table[table["table"] == 2]
    lines = ["| thesis | " + " | ".join(_PUBLISHED) + " |", "|---|" + "--:|" * len(_PUBLISHED)]
    for gan, rows in table.groupby("group", sort=False):
        values = rows.set_index("metric")["value"]
        shown = " | ".join(f"{values[key]:.3f}" for key in _PUBLISHED.values())
        lines.append(f"| {gan} | {shown} |")
    return "\n".join(lines)


def _figure(path: Path, folders: list[Path]) -> None:
    """Real cells, and below them a row for each GAN and class."""
    rows: dict[str, Images] = {}
    for folder in folders:
        for file in sorted(folder.glob("cells_*.npz")):
            cls = file.stem.removeprefix("cells_")
            with np.load(file) as cells:
                rows.setdefault(f"real {cls}", cells["real"])
                rows[f"{folder.name.split('-')[0]} {cls}"] = cells["made"]
    save_rows(path, rows)
