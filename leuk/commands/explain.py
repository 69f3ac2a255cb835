"""``leuk explain``: explanations of the predictions of a finished run."""

from omegaconf import DictConfig

from leuk.errors import StoreError
from leuk.runs.explain import check_explaining, explain_run, explanations_folder

run = explain_run


def check(configs: list[DictConfig]) -> None:
    """Check runs, images and output folders before any work."""
    folders = [explanations_folder(cfg) for cfg in configs]
    for folder in folders:
        if folders.count(folder) > 1:
            raise StoreError(f"{folder}: two jobs have this folder; give each its own name=NAME")
    for cfg in configs:
        check_explaining(cfg)


def finish(configs: list[DictConfig]) -> int:
    """Print the output folders; a failed job has already raised its error."""
    for cfg in configs:
        folder = explanations_folder(cfg)
        print(f"written to {folder}: panels/, cohort.png, figures, arrays and manifest.csv")
    return 0
