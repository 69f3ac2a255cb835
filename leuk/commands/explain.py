"""``leuk explain``: why a finished cell of the grid decides as it does, without training it."""

from omegaconf import DictConfig

from leuk.errors import StoreError
from leuk.runs.explaining import check_explaining, explain_run, explanations_folder

run = explain_run


def check(cells: list[DictConfig]) -> None:
    """Refuse, before any work, what is not there or cannot be explained."""
    folders = [explanations_folder(cfg) for cfg in cells]
    for folder in folders:
        if folders.count(folder) > 1:
            raise StoreError(f"{folder}: two jobs would write there; give each a name=NAME")
    for cfg in cells:
        check_explaining(cfg)


def finish(cells: list[DictConfig]) -> int:
    """Say where everything is; a job that failed ended it."""
    for cfg in cells:
        folder = explanations_folder(cfg)
        print(f"look in {folder}: cells/, cohort.png, figures, arrays and manifest.csv")
    return 0
