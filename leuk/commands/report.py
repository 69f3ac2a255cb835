"""``leuk report``: page, tables and figures of a sweep, from its records."""

from pathlib import Path

from omegaconf import DictConfig

from leuk.config.nearest import hint
from leuk.errors import StoreError
from leuk.grid.cell import sweep_folder
from leuk.report.page import FILE
from leuk.report.sweep_report import write_report
from leuk.report.workers import free_workers


def check(cells: list[DictConfig]) -> None:
    """Refuse a sweep that is not there."""
    for cfg in cells:
        sweep = sweep_of(cfg)
        if not sweep.is_dir():
            runs = sweep.parent
            there = [path.name for path in runs.iterdir()] if runs.is_dir() else []
            known = hint(cfg.name, there) if there else "there is none yet; leuk train makes one"
            raise StoreError(f"name={cfg.name}: no sweep in {sweep}; {known}")


def run(cfg: DictConfig) -> None:
    """Print the main table of one sweep and write its report."""
    sweep = sweep_of(cfg)
    print(write_report(sweep, free_workers()))
    print(f"written to {sweep / 'report'}; open {FILE} there in a browser")


def sweep_of(cfg: DictConfig) -> Path:
    """The folder of the sweep that a config names.

    What runs cells has the same, but takes seconds to load: it brings torch and Lightning.
    """
    return sweep_folder(str(cfg.outputs), str(cfg.name))


def finish(cells: list[DictConfig]) -> int:
    """Nothing is left to do."""
    return 0
