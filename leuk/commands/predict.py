"""``leuk predict``: new cells judged by a finished cell of the grid."""

import json

from omegaconf import DictConfig

from leuk.errors import StoreError
from leuk.report.predicted_page import predicted_page
from leuk.runs.paths import predictions_folder
from leuk.runs.predicting import PAGE, SUMMARY, TABLE, check_predicting, predict, predictions_target
from leuk.store.atomic import write_text


def check(cells: list[DictConfig]) -> None:
    """Refuse, before any work, what is not there or would be written twice."""
    folders = [predictions_folder(cfg) for cfg in cells]
    for folder in folders:
        if folders.count(folder) > 1:
            raise StoreError(f"{folder}: two jobs would write there; give each a name=NAME")
    for cfg in cells:
        check_predicting(cfg)


def run(cfg: DictConfig) -> None:
    """Judge the images of one folder or list, and write what is said of them, whole."""
    with predictions_target(cfg).replaced() as folder:
        predicted = predict(cfg, folder)
        write_text(folder / PAGE, predicted_page(predicted, folder, int(cfg.page_images)))


def finish(cells: list[DictConfig]) -> int:
    """Say what was found and where it is; 1 if an image could not be read."""
    unreadable = 0
    for cfg in cells:
        folder = predictions_folder(cfg)
        counts = json.loads((folder / SUMMARY).read_text("utf-8"))["counts"]
        unreadable += counts["unreadable"]
        print(", ".join(f"{count} {what.replace('_', ' ')}" for what, count in counts.items()))
        print(f"look in {folder}: {TABLE}, {PAGE} and the overlays")
    return 1 if unreadable else 0
