"""leuk's own classifier as the extractor that image quality is measured with."""

from pathlib import Path

from hydra.utils import get_class
from omegaconf import OmegaConf

from leuk.classifiers.classifier import Classifier
from leuk.config.ranges import Count
from leuk.config.stored import read_stored
from leuk.config.targets import check_targets
from leuk.errors import ConfigError
from leuk.evaluate.features import Network
from leuk.runs.checkpoints import read_checkpoint

_CONFIG = ".hydra/config.yaml"
_WEIGHTS = "checkpoints/best.ckpt"


def from_run(run: str, batch_size: Count = 64, device: str = "cpu") -> Network:
    """Features and logits of the classifier of a finished cell of the grid.

    Args:
        run: the cell's folder, below ``outputs/runs/<name>``.
        batch_size: images at a time.
        device: ``cpu`` or ``cuda``.

    Raises:
        ConfigError: no finished cell there, or one whose config names what may not be built.
        StoreError: its checkpoint cannot be read, or is of another model.
    """
    folder = Path(run).expanduser()
    for file in (_CONFIG, _WEIGHTS):
        if not (folder / file).is_file():
            raise ConfigError(
                f"extractor.run={run}: no {file} in it; name the folder of a finished cell, "
                "below outputs/runs/NAME"
            )
    target = str(OmegaConf.select(read_stored(folder / _CONFIG), "model._target_"))
    check_targets({"extractor": {"_target_": target}})
    form = get_class(target)
    if not issubclass(form, Classifier):
        raise ConfigError(f"extractor.run={run}: {target} is not a classifier")
    read_checkpoint(folder / _WEIGHTS, {"form": form.__name__})
    loaded = form.load_from_checkpoint(
        folder / _WEIGHTS, map_location=device, weights_only=True
    ).eval()
    assert isinstance(loaded, Classifier)
    return Network(f"classifier {folder.name}", loaded.features, loaded, batch_size, device)
