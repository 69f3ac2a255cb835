"""Referral to an expert: what each line's bands promised on validation and achieved on test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leuk.data.effective import FEWEST as FEWEST_PATIENTS
from leuk.evaluate.referral import AIM, Achieved, Band, choose_band, outcomes
from leuk.report.curves import pooled_images
from leuk.report.results import Configuration
from leuk.report.sections import Grid, Section, interval_text
from leuk.report.workers import spread

THRESHOLD = "youden"

NOTES = f"""\
Images with a calibrated score about the threshold (Youden's) are referred to an expert, the others
are decided. The band is chosen on validation images so that of the others, of those called healthy
and of those called leukemic each, {AIM:.0%} are correct by a 95 % lower confidence bound that
resamples patients and is corrected for the cuts that are tried; a side that cannot promise this is
referred whole. Nothing is promised with
fewer than {FEWEST_PATIENTS:.0f} effective validation patients of a class. All shares are of test
images, over all runs of a line, in brackets their 95 % interval over patients."""


@dataclass(frozen=True, eq=False)
class Referral:
    """The bands of one line.

    Attributes:
        line: its name.
        bands: of each run, in the order of the line's runs.
        test: what they achieved on the test images of all runs together.
    """

    line: str
    bands: tuple[Band, ...]
    test: Achieved


def referral_of(group: Configuration) -> Referral | None:
    """Bands of a line's runs, from their validation scores; None without thresholds."""
    if not group.runs or any(THRESHOLD not in run.thresholds for run in group.runs):
        return None
    bands = [choose_band(run.val.sample, run.thresholds[THRESHOLD]) for run in group.runs]
    found = [
        outcomes(run.test.sample, run.thresholds[THRESHOLD], band)
        for run, band in zip(group.runs, bands, strict=True)
    ]
    right, kept = (np.concatenate(flags, axis=1) for flags in zip(*found, strict=True))
    achieved = Achieved.of(pooled_images(group), right, kept, bands)
    return Referral(group.title, tuple(bands), achieved)


def referral_section(groups: Sequence[Configuration], workers: int = 1) -> Section:
    """What referral promised and achieved, by line.

    Args:
        groups: lines of the report.
        workers: processes, see :func:`leuk.report.workers.spread`.
    """
    found = [one for one in spread(referral_of, groups, workers) if one is not None]
    header = (
        "configuration", "runs", "referred", "bands, called healthy", "correct of these",
        "bands, called leukemic", "correct of these ",
    )  # fmt: skip
    rows = [
        (
            one.line,
            str(len(one.bands)),
            _text(one.test, "referred"),
            str(sum(band.low is not None for band in one.bands)),
            _text(one.test, "healthy"),
            str(sum(band.high is not None for band in one.bands)),
            _text(one.test, "leukemic"),
        )
        for one in found
    ]
    reasons: dict[str, list[str]] = {}
    for one in found:
        for reason in dict.fromkeys(band.reason for band in one.bands if band.reason):
            reasons.setdefault(reason, []).append(one.line)
    shown: Grid | str = Grid(header, tuple(rows)) if rows else "No run has a threshold."
    parts: list[Grid | str] = [shown, NOTES]
    if reasons:
        texts = [f"- {', '.join(lines)}: {reason}." for reason, lines in reasons.items()]
        parts += ["## Why bands are missing", "\n".join(texts)]
    table = pd.DataFrame([_values(one) for one in found])
    return Section("referral", "Referral to an expert", tuple(parts), table)


def _text(test: Achieved, name: str) -> str:
    share = getattr(test, name)
    return interval_text(share.value, share.low, share.high) or "-"


def _values(one: Referral) -> dict[str, object]:
    values: dict[str, object] = {"configuration": one.line, "runs": len(one.bands), "aim": AIM}
    for name, cut in (("healthy", "low"), ("leukemic", "high")):
        values[f"bands_{name}"] = sum(getattr(band, cut) is not None for band in one.bands)
    for name in ("referred", "healthy", "leukemic"):
        share = getattr(one.test, name)
        prefix = name if name == "referred" else f"right_{name}"
        values |= {prefix: share.value, f"{prefix}_low": share.low, f"{prefix}_high": share.high}
        values |= {f"{prefix}_images": share.images, f"{prefix}_patients": share.patients}
    return values
