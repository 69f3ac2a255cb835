"""The section of a report on explanations, from records."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweeps import RUN, write_run

from leuk.report.explanations import explanations_section
from leuk.report.load import read_results
from leuk.report.page import write_report
from leuk.report.table import Section


def measures(value: float) -> dict[str, Any]:
    figure = {"value": value, "low": value - 0.1, "high": value + 0.1}
    names = (
        "insertion_minus_deletion_blur", "insertion_minus_deletion_blur_over_random", "infidelity",
        "positive_border", "area_border", "positive_border_ratio", "positive_background_ratio",
        "randomized_spearman",
    )  # fmt: skip
    return {"measures": dict.fromkeys(names, figure), "passes_randomization": value < 0.5}


def explained(checked: bool = True) -> dict[str, Any]:
    method = {
        "picture": "explanations/lime.png",
        "arrays": "explanations/lime.npz",
        "images": 100,
        "degenerate": 3,
        "seconds": 50.0,
        "seconds_per_image": 0.5,
        "checks": {"r2": 0.75, "stability": 0.9},
    }
    together: dict[str, Any] = {
        "manifest": "explanations/manifest.csv",
        "pictures": ["explanations/panels/00001.png", "explanations/cohort.png"],
        "left_out": {"rollout": "CNN has no patches"},
        "warnings": [],
    }
    if checked:
        method |= measures(0.2)
        together |= {"controls": {"random": measures(0.9)}, "curves": "explanations/curves.png"}
    return {"lime": method, "cohort": together}


def section(sweep: Path) -> Section:
    return explanations_section(read_results(sweep).configurations)


def test_methods_have_a_row_with_links(tmp_path: Path) -> None:
    write_run(tmp_path / "s", RUN, explanations=explained(checked=False))
    text = section(tmp_path / "s").markdown
    line, sanity = (line for line in text.splitlines() if " lime | " in line)
    assert [part.strip() for part in line.split("|")[2:7]] == ["lime", "100", "3", "0.5", "0.9"]
    assert text.index("## Sanity checks") < text.index(sanity)
    assert [part.strip() for part in sanity.split("|")[2:6]] == ["lime", "0.75", "", ""]
    assert "balanced by outcome" in text
    assert f"[figure](../{RUN.folder}/explanations/lime.png)" in line
    assert f"[cohort.png](../{RUN.folder}/explanations/cohort.png)" in text
    assert f"[1 single image](../{RUN.folder}/explanations/panels)" in text
    assert "rollout not available (CNN has no patches)" in text
    assert "Faithfulness was not measured" in text
    assert "## Faithfulness" not in text


def test_measures_of_methods_and_controls(tmp_path: Path) -> None:
    write_run(tmp_path / "s", RUN, explanations=explained())
    found = section(tmp_path / "s")
    text = found.markdown
    assert "+0.200 [+0.100, +0.300]" in text
    assert "control: random" in text
    assert "passes" in text
    assert "FAILS" in text
    assert "curves.png" in text
    table = found.table.set_index(["method", "metric"])
    assert table.loc[("lime", "degenerate"), "value"] == 3
    assert table.loc[("lime", "infidelity"), "low"] == pytest.approx(0.1)
    assert table.loc[("control: random", "infidelity"), "value"] == pytest.approx(0.9)
    # Records without the newer measures are shown.
    row = row_of(text, "## Faithfulness", "lime")
    assert row["randomized"] == "0.200 [0.10, 0.30]"
    assert (row["verdict"], row["sensitivity"], row["images (patients)"]) == ("passes", "", "")


def row_of(text: str, heading: str, method: str) -> dict[str, str]:
    """One row of the table below a heading, by column."""
    lines = text.split(heading)[1].splitlines()
    header, row = (
        [part.strip() for part in line.split("|")[1:-1]]
        for line in (
            next(line for line in lines if line.startswith("| configuration")),
            next(line for line in lines if f" {method} |" in line),
        )
    )
    return dict(zip(header, row, strict=True))


def checked_again(similarity: float, passes: bool | None) -> dict[str, Any]:
    """A record of the checks that explain again, with images and patients."""
    found = explained()
    again = {"low": 0.1, "high": 0.7, "images": 24, "subjects": 9}
    for one, sensitivity in ((found["lime"], 0.25), (found["cohort"]["controls"]["random"], 0.0)):
        one["measures"] |= {
            "randomized_similarity": {"value": similarity, **again},
            "sensitivity": {"value": sensitivity, **again},
        }
        one["passes_randomization"] = passes
    return found


def test_checks_have_intervals_and_patients_and_sanity_is_separate(tmp_path: Path) -> None:
    write_run(tmp_path / "s", RUN, explanations=checked_again(0.4, None))
    text = section(tmp_path / "s").markdown
    row = row_of(text, "## Faithfulness", "lime")
    assert row["sensitivity"] == "0.250 [0.10, 0.70]"
    assert row["randomized"] == "0.400 [0.10, 0.70]"
    assert row["images (patients)"] == "24 (9)"
    assert row["verdict"] == "undecided"
    evidence = text.split("## Sanity checks")[0]
    assert "R²" not in evidence
    assert "additivity error" not in evidence
    assert row_of(text, "## Faithfulness", "control: random")["sensitivity"] == ""
    sanity = row_of(text, "## Sanity checks", "control: random")
    assert sanity["sensitivity of a control"] == "0.000 [0.10, 0.70]"
    assert row_of(text, "## Sanity checks", "lime")["R²"] == "0.75"


def test_runs_of_a_configuration_share_a_row(tmp_path: Path) -> None:
    for seed, passes in enumerate((True, None, False)):
        write_run(tmp_path / "s", replace(RUN, seed=seed), explanations=checked_again(0.4, passes))
    found = section(tmp_path / "s")
    row = row_of(found.markdown, "## Faithfulness", "lime")
    assert row["verdict"] == "1 of 3 pass, 1 undecided"
    assert row["images (patients)"] == "72 (27)"
    table = found.table.set_index(["method", "metric"])
    assert table.loc[("lime", "images"), "value"] == 300
    assert table.loc[("lime", "seconds_per_image"), "value"] == pytest.approx(0.5)
    assert table.loc[("lime", "infidelity"), "runs"] == 3


def test_sweeps_without_explanations_and_of_older_records(tmp_path: Path) -> None:
    old = {"gradcam": {"picture": "explanations/gradcam.png", "images": 16, "degenerate": 0}}
    write_run(tmp_path / "s", RUN, explanations=old)
    assert "No run of the sweep has explanations" in section(tmp_path / "s").markdown
    write_report(tmp_path / "s")
    assert (tmp_path / "s/report/explanations.md").is_file()
