"""leuk's own classifier as the extractor that image quality is measured with."""

from leuk.config.ranges import Count
from leuk.evaluate.features import Network
from leuk.runs.finished import Finished


def from_run(run: str, batch_size: Count = 64, device: str = "cpu") -> Network:
    """Features and logits of the classifier of a finished cell of the grid.

    Args:
        run: the cell's folder, below ``outputs/runs/<name>``.
        batch_size: images at a time.
        device: ``cpu`` or ``cuda``.

    Raises:
        ConfigError: no finished cell there, or one whose config names what may not be built.
        StoreError: its record, config or checkpoint cannot be read, or is of another model.
    """
    finished = Finished.read(run, key="extractor.run")
    classifier = finished.classifier().to(device)
    name = f"classifier {finished.folder.name}"
    return Network(name, classifier.features, classifier, batch_size, device)
