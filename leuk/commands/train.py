"""``leuk train``: one cell of the grid, or a sweep of them."""

from omegaconf import DictConfig

from leuk.errors import ConfigError, StoreError
from leuk.report.sweep_report import write_report
from leuk.runs.dry_run import plan
from leuk.runs.identity import folder_of, sweep_of
from leuk.runs.launching import check_launcher
from leuk.runs.preconditions import (
    check_components,
    check_existing,
    check_image_sizes,
    check_paths,
    set_aside,
)
from leuk.runs.summary import incomplete_runs
from leuk.runs.train import FAILED, train_run


def run(cfg: DictConfig) -> None:
    """Run one cell; as a function of this module, so that a process of its own knows our words."""
    train_run(cfg)


def check(cells: list[DictConfig]) -> None:
    """Refuse, before any work, what cannot be built, written or told apart.

    Nothing is written but what a sweep that begins has to put out of its way.
    """
    check_launcher(cells[0])
    for cfg in cells:
        check_components(cfg)
    check_image_sizes(cells)
    ignored = [cfg for cfg in cells if cfg.augmentation.name in ("none", "class_weights")]
    if len(ignored) == len(cells) and cells[0].augmentation.count is not None:
        raise ConfigError(
            f"augmentation.count={cells[0].augmentation.count}: augmentation="
            f"{cells[0].augmentation.name} adds no images; choose oversample or a GAN, or leave "
            "the count out"
        )
    replaced = [cfg for cfg in cells if check_existing(cfg)]
    check_paths(cells, [folder_of(cfg, cfg.hydra) for cfg in cells])
    for cfg in replaced:
        set_aside(cfg)
    for sweep in {sweep_of(cfg) for cfg in cells}:
        (sweep / FAILED).unlink(missing_ok=True)


def dry_run(cells: list[DictConfig]) -> int:
    """Say what a start would do, and write nothing."""
    check_launcher(cells[0])
    for cfg in cells:
        check_components(cfg)
    check_image_sizes(cells)
    print(plan(cells))
    return 0


def finish(cells: list[DictConfig]) -> int:
    """Write the sweep's report, say where everything is; 1 if a cell is not complete."""
    incomplete = incomplete_runs(cells)
    sweeps = list(dict.fromkeys(sweep_of(cfg) for cfg in cells))
    try:
        for sweep in sweeps:
            print(write_report(sweep))
    except StoreError as error:  # no cell came as far as a record
        print(error)
    finally:
        for line in incomplete:
            print(f"not complete: {line}")
        places = ", ".join(map(str, sweeps))
        done = len(cells) - len(incomplete)
        print(f"{done} of {len(cells)} runs complete; look in {places}")
    return 1 if incomplete else 0
