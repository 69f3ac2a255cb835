"""``leuk predict``: predictions of a finished run for new images."""

import json

from omegaconf import DictConfig

from leuk.report.predicted_page import predicted_page
from leuk.runs.finished import check_own_folders
from leuk.runs.predict import PAGE, SUMMARY, TABLE, check_predicting, predict, predictions_target
from leuk.runs.run import predictions_folder
from leuk.store import write_text


def check(configs: list[DictConfig]) -> None:
    """Check runs, images and output folders before any work."""
    check_own_folders([predictions_folder(cfg) for cfg in configs])
    for cfg in configs:
        check_predicting(cfg)


def run(cfg: DictConfig) -> None:
    """Predict the images of a folder or list; a failure leaves no partial output."""
    with predictions_target(cfg).replaced() as folder:
        predicted = predict(cfg, folder)
        write_text(folder / PAGE, predicted_page(predicted, folder, int(cfg.page_images)))


def finish(configs: list[DictConfig]) -> int:
    """Print counts and output folders; return 1 if an image could not be read."""
    unreadable = 0
    for cfg in configs:
        folder = predictions_folder(cfg)
        counts = json.loads((folder / SUMMARY).read_text("utf-8"))["counts"]
        unreadable += counts["unreadable"]
        print(", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counts.items()))
        print(f"written to {folder}: {TABLE}, {PAGE} and the overlays")
    return 1 if unreadable else 0
