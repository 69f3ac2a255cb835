"""``leuk report``: page, tables and figures of a sweep, from its records."""

from omegaconf import DictConfig

from leuk.config.targets import hint
from leuk.errors import ConfigError, StoreError
from leuk.runs.run import sweep_of


def check(configs: list[DictConfig]) -> None:
    """Refuse a missing sweep or a latency out of range."""
    for cfg in configs:
        if not cfg.latency_ms > 0:
            raise ConfigError(f"latency_ms={cfg.latency_ms}: it must be above 0")
        sweep = sweep_of(cfg)
        if not sweep.is_dir():
            runs = sweep.parent
            names = [path.name for path in runs.iterdir()] if runs.is_dir() else []
            advice = hint(cfg.name, names) if names else "run leuk train first"
            raise StoreError(f"name={cfg.name}: no sweep in {sweep}; {advice}")


def run(cfg: DictConfig) -> None:
    """Write the report of a sweep and print its summary."""
    # Mistakes in the command are reported without the seconds of this import.
    from leuk.report.page import SUMMARY, write_report

    sweep = sweep_of(cfg)
    write_report(sweep, float(cfg.latency_ms))
    print((sweep / "report" / SUMMARY).read_text("utf-8"), end="")


def finish(configs: list[DictConfig]) -> int:
    """Return 0: all output is written by :func:`run`."""
    return 0
