"""``leuk report``: page, tables and figures of a sweep, from its records."""

from pathlib import Path

from omegaconf import DictConfig

from leuk.config.nearest import hint
from leuk.errors import ConfigError, StoreError
from leuk.grid.run_id import sweep_folder
from leuk.runs.loading import load, one_thread

with one_thread():
    from leuk.report.results import reading
    from leuk.report.workers import free_workers

_DRAWS = ("leuk.report.sweep_report", "matplotlib.backends.backend_pdf", "scipy.optimize")
"""What computes and draws; the last two would else be loaded by each of its workers."""


def check(cells: list[DictConfig]) -> None:
    """Refuse a sweep that is not there, and a latency out of range."""
    for cfg in cells:
        if not cfg.latency_ms > 0:
            raise ConfigError(f"latency_ms={cfg.latency_ms}: it must be above 0")
        sweep = sweep_of(cfg)
        if not sweep.is_dir():
            runs = sweep.parent
            there = [path.name for path in runs.iterdir()] if runs.is_dir() else []
            known = hint(cfg.name, there) if there else "there is none yet; leuk train makes one"
            raise StoreError(f"name={cfg.name}: no sweep in {sweep}; {known}")


def run(cfg: DictConfig) -> None:
    """Print the main table of one sweep and write its report."""
    sweep = sweep_of(cfg)
    workers = free_workers()
    with reading(sweep, workers) as results:
        # Meanwhile: to load this takes as long as to read hundreds of records.
        with one_thread():
            sweep_report, *_ = load(*_DRAWS)
        print(sweep_report.write_report(sweep, workers, results, float(cfg.latency_ms)))
    print(f"written to {sweep / 'report'}; open {sweep_report.FILE} there in a browser")


def sweep_of(cfg: DictConfig) -> Path:
    """The folder of the sweep that a config names.

    What runs cells has the same, but takes seconds to load: it brings torch and Lightning.
    """
    return sweep_folder(str(cfg.outputs), str(cfg.name))


def finish(cells: list[DictConfig]) -> int:
    """Nothing is left to do."""
    return 0
