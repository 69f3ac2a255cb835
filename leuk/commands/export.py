"""``leuk export``: the classifier of a finished run, for use without leuk."""

from omegaconf import DictConfig

from leuk.runs.export import FACTS, check_exporting, export, export_target
from leuk.runs.finished import check_own_folders
from leuk.runs.run import export_folder


def check(configs: list[DictConfig]) -> None:
    """Check runs and output folders before any work."""
    check_own_folders([export_folder(cfg) for cfg in configs])
    for cfg in configs:
        check_exporting(cfg)


def run(cfg: DictConfig) -> None:
    """Write a model with its description; a failure leaves no partial output."""
    with export_target(cfg).replaced() as folder:
        difference = export(cfg, folder)
    print(f"largest difference between logits: {difference:.2g}")


def finish(configs: list[DictConfig]) -> int:
    """Print the output folders; a failed job has already raised its error."""
    for cfg in configs:
        print(f"written to {export_folder(cfg)}: the model and {FACTS}")
    return 0
