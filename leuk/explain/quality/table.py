"""Results of the explanation checks: CSV files, a figure of the curves, values for the record."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leuk.explain.figures import Cohort, title_of
from leuk.explain.quality.checks import Checked
from leuk.store import csv_text, whole_file, write_text

REPORTED = (
    "insertion_minus_deletion_black",
    "insertion_minus_deletion_blur",
    "insertion_minus_deletion_black_over_random",
    "insertion_minus_deletion_blur_over_random",
    "infidelity",
    "sensitivity",
    "randomized_similarity",
    "randomized_spearman",
    "randomized_absolute",
    "area_border",
    "positive_border",
    "positive_border_ratio",
    "positive_interior_ratio",
    "positive_background_ratio",
    "positive_border_of_cell_ratio",
    "r2",
    "stability",
    "additivity_error",
)
"""Measures that go into the record; :mod:`leuk.explain.quality.checks` defines each."""

TABLES = ("methods", "measures", "curves", "randomization")
"""Tables of :class:`.checks.Checked` that are written unchanged."""

_COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colors of the methods, distinct for color-blind readers too (Okabe & Ito 2008)."""

_DASHES = ("-", "--", "-.", ":")


def save_checks(
    folder: Path, checked: Checked, cohort: Cohort, title: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the tables and the curves of a check.

    Files: ``methods.csv``, ``measures.csv``, ``curves.csv``, ``randomization.csv`` and
    ``agreement.csv``, see :class:`.checks.Checked`; ``measured_images.csv`` with every
    measure of every image, keyed by ``row``; and ``curves.png``.

    Args:
        folder: output folder of the explanations.
        checked: the results.
        cohort: the images that were checked.
        title: title of the figure, which names the model.

    Returns:
        Two mappings for the record. The first has, by method, ``measures`` (those of
        :data:`REPORTED` that apply, each with ``value``, ``low``, ``high``, ``images`` and
        ``subjects``) and ``passes_randomization``. The second covers all methods: ``controls`` (the
        same values for maps that ignore the model), ``agreement``, ``tables`` and ``curves``.
    """
    for name in TABLES:
        write_text(folder / f"{name}.csv", csv_text(getattr(checked, name)))
    write_text(folder / "agreement.csv", csv_text(checked.agreement, "method"))
    per_image = checked.per_image.copy()
    per_image.insert(1, "row", cohort.table["row"].to_numpy()[per_image.pop("image")])
    write_text(folder / "measured_images.csv", csv_text(per_image))
    _save_curves(folder / "curves.png", checked, title)
    summary = checked.summary()
    entries = {name: _entry(found) for name, found in summary["methods"].items()}
    controls = set(checked.methods.loc[checked.methods["control"], "method"])
    together = {
        "controls": {name: entry for name, entry in entries.items() if name in controls},
        "agreement": summary["agreement"],
        "tables": [f"{folder.name}/{name}.csv" for name in (*TABLES, "agreement")],
        "curves": f"{folder.name}/curves.png",
    }
    return {name: entry for name, entry in entries.items() if name not in controls}, together


def _entry(found: Mapping[str, Any]) -> dict[str, Any]:
    measures = {
        name: found["measures"][name]
        for name in REPORTED
        if found["measures"].get(name, {}).get("value") is not None
    }
    return {"measures": measures, "passes_randomization": found["passes_randomization"]}


def _save_curves(path: Path, checked: Checked, title: str) -> None:
    """Draw deletion above insertion, a column per way of hiding pixels; controls in thin gray."""
    ways = list(dict.fromkeys(checked.curves["hide"]))
    figure = Figure(figsize=(4.2 * len(ways) + 2.0, 6.6), layout="constrained")
    figure.suptitle(
        f"{title}\nprobability of the predicted class, mean over patients; sample balanced by "
        "outcome",
        fontsize=11,
        parse_math=False,
    )
    axes = figure.subplots(2, len(ways), squeeze=False, sharex=True, sharey=True)
    for row, curve, words in zip(
        axes,
        ("deletion", "insertion"),
        ("of the cell's pixels hidden", "of the cell's pixels shown"),
        strict=True,
    ):
        for axis, way in zip(row, ways, strict=True):
            own = checked.curves[
                (checked.curves["curve"] == curve) & (checked.curves["hide"] == way)
            ]
            _curves(axis, own, checked.methods)
            better = "lower is better" if curve == "deletion" else "higher is better"
            axis.set_title(f"{curve} ({way}): {better}", fontsize=9)
            axis.set_xlabel(f"share {words}, highest first", fontsize=8)
            axis.tick_params(labelsize=8, labelbottom=True)
            axis.grid(color="0.92")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _curves(axis: Axes, own: pd.DataFrame, methods: pd.DataFrame) -> None:
    turns = {True: 0, False: 0}
    for name, control in zip(methods["method"], methods["control"], strict=True):
        curve = own[own["method"] == name]
        turn = turns[bool(control)]
        turns[bool(control)] += 1
        style: dict[str, Any] = {
            "color": "0.6" if control else _COLORS[turn % len(_COLORS)],
            "linestyle": _DASHES[turn % len(_DASHES)],
            "linewidth": 1.0 if control else 1.6,
        }
        label = f"control: {name}" if control else title_of(name)
        axis.plot(
            np.asarray(curve["share"]), np.asarray(curve["probability"]), label=label, **style
        )
    axis.set_xlim(0, 1)
