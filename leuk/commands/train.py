"""``leuk train``: a run, or a sweep of runs."""

from omegaconf import DictConfig

from leuk.errors import ConfigError, StoreError
from leuk.report.page import SUMMARY, write_report
from leuk.runs.dry_run import plan
from leuk.runs.preconditions import (
    check_components,
    check_existing,
    check_image_sizes,
    check_launcher,
    check_paths,
    set_aside,
)
from leuk.runs.run import folder_of, initial_record, sweep_of
from leuk.runs.state import State, inspect_folder
from leuk.runs.train import FAILED, train_run

run = train_run

_REASONS = {
    State.MISSING: "not started",
    State.RUNNING: "in another process",
    State.STOPPED: "start again to resume",
}


def check(configs: list[DictConfig]) -> None:
    """Check launcher, configs and output folders before any work.

    Writes nothing, but moves old results out of the way if all checks pass.
    """
    _check_configs(configs)
    augmentation = configs[0].augmentation
    ignored = [cfg.augmentation.name in ("none", "class_weights") for cfg in configs]
    if all(ignored) and augmentation.count is not None:
        raise ConfigError(
            f"augmentation.count={augmentation.count}: augmentation={augmentation.name} adds no "
            "images; choose oversample or a GAN, or omit the count"
        )
    replaced = [cfg for cfg in configs if check_existing(cfg)]
    check_paths(configs, [folder_of(cfg, cfg.hydra) for cfg in configs])
    for cfg in replaced:
        set_aside(cfg)
    for sweep in {sweep_of(cfg) for cfg in configs}:
        (sweep / FAILED).unlink(missing_ok=True)


def dry_run(configs: list[DictConfig]) -> int:
    """Print the plan of a sweep without writing anything."""
    _check_configs(configs)
    print(plan(configs))
    return 0


def _check_configs(configs: list[DictConfig]) -> None:
    check_launcher(configs[0])
    for cfg in configs:
        check_components(cfg)
    check_image_sizes(configs)


_LISTED = 2
"""Number of incomplete runs that are listed; the report has all."""


def finish(configs: list[DictConfig]) -> int:
    """Write the sweep's report and print its summary; return 1 if a run is incomplete."""
    incomplete = []
    for cfg in configs:
        folder = folder_of(cfg, cfg.hydra)
        found = inspect_folder(folder, initial_record(cfg, cfg.hydra))
        if found.state != State.COMPLETE:
            reason = _REASONS.get(found.state, found.message)
            incomplete.append(f"{folder.name}: {found.state}: {reason}")
    sweeps = list(dict.fromkeys(sweep_of(cfg) for cfg in configs))
    try:
        for sweep in sweeps:
            write_report(sweep)
            print((sweep / "report" / SUMMARY).read_text("utf-8"), end="")
    except StoreError as error:  # no run has a record yet
        print(error)
    finally:
        for message in incomplete[:_LISTED]:
            print(f"incomplete: {message}")
        if len(incomplete) > _LISTED:
            print(f"and {len(incomplete) - _LISTED} more incomplete runs")
        folders = ", ".join(map(str, sweeps))
        complete = len(configs) - len(incomplete)
        print(f"{complete} of {len(configs)} runs complete; see {folders}")
    return 1 if incomplete else 0
