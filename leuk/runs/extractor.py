"""Classifier of a finished run as the feature extractor for image quality."""

from leuk.config.ranges import Count
from leuk.evaluate.features import Network
from leuk.runs.finished import FinishedRun


def from_run(run: str, batch_size: Count = 64, device: str = "cpu") -> Network:
    """Build an extractor from the classifier of a finished run.

    Args:
        run: folder of the run, under ``outputs/runs/<name>``.
        batch_size: images per forward pass.
        device: ``cpu`` or ``cuda``.

    Raises:
        ConfigError: the folder has no finished run, or its config names a target that is not
            allowed.
        StoreError: record, config or checkpoint cannot be read or belong to another model.
    """
    finished = FinishedRun.read(run, key="extractor.run")
    classifier = finished.classifier().to(device)
    name = f"classifier {finished.folder.name}"
    return Network(name, classifier.features, classifier, batch_size, device)
