"""A sweep's report, from its folder to the files below ``report/``."""

from collections.abc import Callable
from pathlib import Path

from leuk.report.content import build_report
from leuk.report.explained import explained_pictures
from leuk.report.figures import writing
from leuk.report.page import FILE, missing_page, report_page
from leuk.report.results import NoRecordsError, Results, read_results
from leuk.report.verdicts import LATENCY_MS
from leuk.store.atomic import write_text

FIGURES = "figures"
"""Folder of the figures below that of the report."""


def write_report(
    sweep: Path,
    workers: int = 1,
    results: Callable[[], Results] | None = None,
    latency_ms: float = LATENCY_MS,
) -> str:
    """Write the report of a sweep: page, tables and figures; return the main table.

    They lie in ``report/``: ``report.html``; as Markdown and CSV ``table``, ``answer``, ``grid``,
    ``verdicts``, ``comparisons``, ``referral``, ``thesis_tables``, ``costs``, ``area``,
    ``synthetic_images``, ``synthetic_quality``, ``explanations``, ``data`` and ``run``; and below it in
    ``figures/`` those of :func:`leuk.report.figures.figures_of`. They are the same however many
    workers there are.

    Args:
        sweep: its folder.
        workers: processes, see :func:`leuk.report.workers.spread`.
        results: waits for what :func:`leuk.report.results.reading` has begun to read.
        latency_ms: within which a model is fit for deployment.

    Raises:
        StoreError: no record in the folder; the page then says what is missing.
    """
    folder = sweep / "report"
    try:
        read = results() if results else read_results(sweep, workers)
    except NoRecordsError as error:
        write_text(folder / FILE, missing_page(sweep.name, error.problems))
        raise
    report = build_report(sweep, read, workers, latency_ms)
    with writing(folder / FIGURES, report.drawn, workers) as figures:
        for section in report.sections:
            section.write(folder)
        explained = explained_pictures(sweep, report.groups)
        page = report_page(report, figures(), explained)
    write_text(folder / FILE, page)
    return report.sections[0].markdown
