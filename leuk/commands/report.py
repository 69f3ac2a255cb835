"""``leuk report``: the tables of a sweep, from its records."""

from pathlib import Path

from omegaconf import DictConfig

from leuk.config.nearest import hint
from leuk.errors import StoreError
from leuk.report.sweep_report import write_report
from leuk.runs.identity import register_resolvers, sweep_of

register_resolvers()


def check(cells: list[DictConfig]) -> None:
    """Refuse a sweep that is not there."""
    for cfg in cells:
        sweep = sweep_of(cfg)
        if not sweep.is_dir():
            runs = sweep.parent
            there = [path.name for path in runs.iterdir()] if runs.is_dir() else []
            raise StoreError(f"name={cfg.name}: no sweep in {sweep}; {hint(cfg.name, there)}")


def run(cfg: DictConfig) -> None:
    """Print the table of one sweep and write it as CSV and Markdown."""
    sweep = Path(sweep_of(cfg))
    print(write_report(sweep))
    print(f"written to {sweep / 'report'}")


def finish(cells: list[DictConfig]) -> int:
    """Nothing is left to do."""
    return 0
