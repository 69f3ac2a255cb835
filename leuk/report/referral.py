"""Referral to an expert: bands chosen on validation images and their results on test images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leuk.data.splits import FEWEST as FEWEST_PATIENTS
from leuk.metrics.referral import AIM, Achieved, Band, choose_band, outcomes
from leuk.report.figures import pooled_images
from leuk.report.results import Configuration
from leuk.report.sections import Grid, Section, interval_text
from leuk.report.workers import spread

THRESHOLD = "youden"

NOTES = f"""\
Images with a calibrated score near the threshold (Youden) are referred to an expert; the others are
decided by the model. The limits of this band are chosen on validation images: of the images decided
as healthy, and of those decided as leukemic, {AIM * 100:.0f} % must be correct by a 95 % lower
confidence bound that resamples patients and is corrected for the number of limits tried. If no
limit reaches this for a decision, or validation has fewer than {FEWEST_PATIENTS:.0f} effective
patients of a class, all images with that decision are referred. Shares are of the test images of
all runs of a configuration, with 95 % intervals (patients resampled)."""


@dataclass(frozen=True, eq=False)
class Referral:
    """The bands of one configuration.

    Attributes:
        configuration: name of the configuration.
        bands: the band of each run.
        test: results on the test images of all runs.
    """

    configuration: str
    bands: tuple[Band, ...]
    test: Achieved


def referral_of(configuration: Configuration) -> Referral | None:
    """Bands of a configuration's runs, from validation scores; None without thresholds."""
    if not configuration.runs or any(THRESHOLD not in run.thresholds for run in configuration.runs):
        return None
    bands = [choose_band(run.val.sample, run.thresholds[THRESHOLD]) for run in configuration.runs]
    found = [
        outcomes(run.test.sample, run.thresholds[THRESHOLD], band)
        for run, band in zip(configuration.runs, bands, strict=True)
    ]
    right, kept = (np.concatenate(flags, axis=1) for flags in zip(*found, strict=True))
    achieved = Achieved.of(pooled_images(configuration), right, kept, bands)
    return Referral(configuration.title, tuple(bands), achieved)


def referral_section(configurations: Sequence[Configuration], workers: int = 1) -> Section:
    """Bands and their results, by configuration.

    Args:
        configurations: all configurations of the report.
        workers: number of processes, see :func:`leuk.report.workers.spread`.
    """
    found = [one for one in spread(referral_of, configurations, workers) if one is not None]
    header = (
        "configuration", "runs", "referred", "runs that decide healthy", "correct if healthy",
        "runs that decide leukemic", "correct if leukemic",
    )  # fmt: skip
    rows = [
        (
            one.configuration,
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
            reasons.setdefault(reason, []).append(one.configuration)
    shown: Grid | str = Grid(header, tuple(rows)) if rows else "No run has a chosen threshold."
    parts: list[Grid | str] = [shown, NOTES]
    if reasons:
        shared = {reason: len(names) == len(found) > 2 for reason, names in reasons.items()}
        texts = [
            f"- {'all configurations' if shared[reason] else ', '.join(names)}: {reason}."
            for reason, names in reasons.items()
        ]
        parts += ["## Reasons for missing bands", "\n".join(texts)]
    table = pd.DataFrame([_values(one) for one in found])
    return Section("referral", "Referral to an expert", tuple(parts), table)


def _text(test: Achieved, name: str) -> str:
    share = getattr(test, name)
    return interval_text(share.value, share.low, share.high) or "-"


def _values(one: Referral) -> dict[str, object]:
    values: dict[str, object] = {
        "configuration": one.configuration,
        "runs": len(one.bands),
        "aim": AIM,
    }
    for name, cut in (("healthy", "low"), ("leukemic", "high")):
        values[f"bands_{name}"] = sum(getattr(band, cut) is not None for band in one.bands)
    for name in ("referred", "healthy", "leukemic"):
        share = getattr(one.test, name)
        prefix = name if name == "referred" else f"right_{name}"
        values |= {prefix: share.value, f"{prefix}_low": share.low, f"{prefix}_high": share.high}
        values |= {f"{prefix}_images": share.images, f"{prefix}_patients": share.patients}
    return values
