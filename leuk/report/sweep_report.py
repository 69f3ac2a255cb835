"""A sweep's report, from its folder to the files below ``report/``."""

from collections.abc import Callable
from pathlib import Path

from leuk.report.content import build_report, reached_in
from leuk.report.explained import explained_pictures
from leuk.report.figures import writing
from leuk.report.page import FILE, missing_page, report_page
from leuk.report.results import NoRecordsError, Results, read_results
from leuk.store.atomic import write_text

FIGURES = "figures"
"""Folder of the figures below that of the report."""


def write_report(
    sweep: Path, workers: int = 1, results: Callable[[], Results] | None = None
) -> str:
    """Write the report of a sweep: page, tables and figures; return the main table.

    They lie in ``report/``: ``report.html``; as Markdown and CSV ``table``, ``answer``, ``grid``,
    ``verdicts``, ``comparisons``, ``thesis_tables``, ``costs``, ``area``, ``made_cells``,
    ``made_quality``, ``explanations``, ``data`` and ``run``; and below it in ``figures/`` those of
    :func:`leuk.report.figures.figures_of_lines` and
    :func:`leuk.report.figures.figures_of_differences`. They are the same however many workers there
    are.

    Args:
        sweep: its folder.
        workers: processes, see :func:`leuk.report.workers.spread`.
        results: waits for what :func:`leuk.report.results.reading` has begun to read.

    Raises:
        StoreError: no record in the folder; the page then says what is missing.
    """
    folder = sweep / "report"
    try:
        read = results() if results else read_results(sweep, workers)
    except NoRecordsError as error:
        write_text(folder / FILE, missing_page(sweep.name, error.problems))
        raise
    reached = reached_in(sweep, read, workers)
    # What is drawn takes longest: it begins as soon as there is something to draw.
    with writing(folder / FIGURES, reached.drawn, workers) as of_lines:
        report = build_report(reached)
        with writing(folder / FIGURES, report.drawn, workers) as of_differences:
            for section in report.sections:
                section.write(folder)
            explained = explained_pictures(sweep, reached.groups)
            figures = [*of_differences(), *of_lines()]
    write_text(folder / FILE, report_page(report, figures, explained))
    return report.sections[0].markdown
