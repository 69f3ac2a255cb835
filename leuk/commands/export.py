"""``leuk export``: the classifier of a finished cell of the grid for use without leuk."""

from omegaconf import DictConfig

from leuk.errors import StoreError
from leuk.runs.exporting import FACTS, check_exporting, export, export_target
from leuk.runs.paths import export_folder


def check(cells: list[DictConfig]) -> None:
    """Refuse, before any work, what is not there or would be written twice."""
    folders = [export_folder(cfg) for cfg in cells]
    for folder in folders:
        if folders.count(folder) > 1:
            raise StoreError(f"{folder}: two jobs would write there; give each a name=NAME")
    for cfg in cells:
        check_exporting(cfg)


def run(cfg: DictConfig) -> None:
    """Write one model and what has to be known of it, whole or not at all."""
    with export_target(cfg).replaced() as folder:
        difference = export(cfg, folder)
    print(f"largest difference of a logit: {difference:.2g}")


def finish(cells: list[DictConfig]) -> int:
    """Say where everything is; a job that failed ended it."""
    for cfg in cells:
        print(f"look in {export_folder(cfg)}: the model and {FACTS}")
    return 0
