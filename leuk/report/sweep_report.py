"""The report of a sweep: reads its folder and writes the files in ``report/``."""

from collections.abc import Callable
from pathlib import Path

from leuk.report.blocks import pictures_of
from leuk.report.content import build_report
from leuk.report.explained import explained_pictures
from leuk.report.page import FILE, missing_page, report_page
from leuk.report.results import NoRecordsError, Results, read_results
from leuk.report.verdicts import LATENCY_MS
from leuk.store import write_text

FIGURES = "figures"
"""Folder of the figures, below ``report/``."""


def write_report(
    sweep: Path,
    workers: int = 1,
    results: Callable[[], Results] | None = None,
    latency_ms: float = LATENCY_MS,
) -> str:
    """Write the report of a sweep (page, tables and figures) and return the main table.

    The folder ``report/`` then holds ``report.html``; Markdown and CSV files ``table``, ``answer``,
    ``grid``, ``verdicts``, ``comparisons``, ``referral``, ``thesis_tables``, ``costs``, ``area``,
    ``synthetic_images``, ``synthetic_quality``, ``explanations``, ``data`` and ``run``; and in
    ``figures/`` those of :func:`leuk.report.figures.figures_of`. The number of workers does not
    change the files.

    Args:
        sweep: folder of the sweep.
        workers: number of processes, see :func:`leuk.report.workers.spread`.
        results: function of :func:`leuk.report.results.reading` that waits for the results; by
            default they are read now.
        latency_ms: latency limit for deployment, in ms per image.

    Raises:
        StoreError: no readable record in the folder; the page then lists the problems.
    """
    folder = sweep / "report"
    try:
        read = results() if results else read_results(sweep, workers)
    except NoRecordsError as error:
        write_text(folder / FILE, missing_page(sweep.name, error.problems))
        raise
    report = build_report(sweep, read, workers, latency_ms)
    for section in report.sections:
        section.write(folder)
    figures = [pictures_of(one, one.write(folder / FIGURES)) for one in report.drawn]
    explained = explained_pictures(sweep, report.configurations)
    page = report_page(report, figures, explained)
    write_text(folder / FILE, page)
    return report.sections[0].markdown
