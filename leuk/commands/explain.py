"""``leuk explain``: explanations of the predictions of a finished run."""

from omegaconf import DictConfig

from leuk.runs.explain import check_explaining, explain_run, explanations_folder
from leuk.runs.finished import check_own_folders

run = explain_run


def check(configs: list[DictConfig]) -> None:
    """Check runs, images and output folders before any work."""
    check_own_folders([explanations_folder(cfg) for cfg in configs])
    for cfg in configs:
        check_explaining(cfg)


def finish(configs: list[DictConfig]) -> int:
    """Print the output folders; a failed job has already raised its error."""
    for cfg in configs:
        folder = explanations_folder(cfg)
        print(f"written to {folder}: panels/, cohort.png, figures, arrays and manifest.csv")
    return 0
