"""Finished run, opened from its folder: settings, classifier and data."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from hydra.utils import get_class
from omegaconf import DictConfig

from leuk.classifiers.classifier import Classifier
from leuk.config.stored import check_complete, read_stored
from leuk.config.targets import check_targets, instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.data.decode import Frame
from leuk.data.scale import Scale, View, training_sizes
from leuk.errors import ConfigError, DataError, StoreError
from leuk.grid.record import FILE, Record
from leuk.runs.checkpoints import older_arguments, read_checkpoint

CONFIG = ".hydra/config.yaml"
WEIGHTS = "checkpoints/best.ckpt"


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """Complete run of a sweep.

    Attributes:
        folder: folder of the run.
        record: results of the run.
        cfg: config of the run.
    """

    folder: Path
    record: Record
    cfg: DictConfig

    @classmethod
    def read(cls, run: str, key: str = "run") -> "FinishedRun":
        """Open the run in a folder.

        Args:
            run: the folder, under ``outputs/runs/<name>``.
            key: config key of the folder, for error messages.

        Raises:
            ConfigError: the folder has no finished run.
            StoreError: the record or the config cannot be read.
        """
        folder = Path(run).expanduser().resolve()
        advice = "name the folder of a finished run, under outputs/runs/NAME"
        if not folder.is_dir():
            raise ConfigError(f"{key}={run}: no such folder; {advice}")
        if not (folder / FILE).is_file():
            runs = sorted(path.parent.name for path in folder.glob(f"*/{FILE}"))
            remedy = f"it has several runs, choose one: {', '.join(runs)}" if runs else advice
            raise ConfigError(f"{key}={run}: no {FILE} in it; {remedy}")
        record = Record.read(folder)
        if record.status != "complete":
            raise ConfigError(
                f"{key}={run}: not finished ({record.state}); repeat its leuk train command"
            )
        for file in (CONFIG, WEIGHTS):
            if not (folder / file).is_file():
                raise ConfigError(f"{key}={run}: no {file} in it; {advice}")
        cfg = read_stored(folder / CONFIG)
        check_complete(folder / CONFIG, cfg)
        # The folder may have moved, and its artifacts with it. A separate data.cache stays.
        if folder.parent.parent.name == "runs":
            cfg.outputs = str(folder.parents[2])
        return cls(folder, record, cfg)

    @property
    def frame(self) -> Frame:
        """Framing and resolution of the classifier's input."""
        canvas = (self.record.data.get("scale") or {}).get("canvas")
        return Frame(int(self.cfg.data.resolution), self.cfg.data.framing, canvas)

    def scale(self, root: str | None = None) -> Scale:
        """Field of view of the training images.

        Older records lack it. For phantom data it then follows from the settings; otherwise the
        headers of the images are read, and it is unknown if these no longer exist.

        Args:
            root: new location of the images, if they have moved.
        """
        if recorded := self.record.data.get("scale"):
            return Scale.of_record(recorded)
        if "size" in self.cfg.data:
            size = int(self.cfg.data.size)
            return Scale(((size, size),), float(size))
        folder = Path(str(root or self.cfg.data.get("root"))).expanduser()
        return Scale.of_sizes(training_sizes(folder)) if folder.is_dir() else Scale()

    def view(self, cfg: DictConfig) -> View:
        """Frame that brings new images to the scale of the training images.

        Args:
            cfg: config of a command with ``root``, ``frame`` and ``pixel_size``.

        Raises:
            ConfigError: see :meth:`leuk.data.scale.Scale.view`.
        """
        return self.scale(cfg.root).view(self.frame, cfg.frame, cfg.pixel_size)

    @property
    def weights_digest(self) -> str:
        """Hash of the file with the best weights."""
        with (self.folder / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def classifier(self) -> Classifier:
        """Load the classifier with its best weights, on the CPU, in evaluation mode.

        Raises:
            ConfigError: ``model._target_`` is not a classifier.
            StoreError: the checkpoint cannot be read, or belongs to another run.
        """
        target = str(self.cfg.model._target_)
        check_targets({"model": {"_target_": target}})
        form = get_class(target)
        if not issubclass(form, Classifier):
            raise ConfigError(f"{self.folder / CONFIG}: {target} is not a classifier")
        stamp = {"form": form.__name__, "settings": self.record.fingerprint}
        if files := self.record.data.get("files"):
            stamp["data"] = files
        path = self.folder / WEIGHTS
        older = older_arguments(form, read_checkpoint(path, stamp))
        try:
            loaded = form.load_from_checkpoint(path, map_location="cpu", weights_only=True, **older)
        except (RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise StoreError(
                f"{path}: weights of another leuk version's {form.__name__} ({reason}); use the "
                f"version of the run ({self.record.versions.get('leuk')}), or repeat the run"
            ) from error
        assert isinstance(loaded, Classifier)
        return loaded.eval()

    def data(self, root: str | None = None) -> CNMCDataModule:
        """Set up the data module of the run.

        Args:
            root: new location of the images, if they have moved.

        Raises:
            ConfigError: ``root`` is set for phantom data, which has no image folder.
            DataError: the image folder does not exist.
            StoreError: the data differ from those of the run.
        """
        if root is not None:
            if "root" not in self.cfg.data:
                raise ConfigError(
                    f"root={root}: {self.folder.name} has phantom data, not a folder; remove root"
                )
            self.cfg.data.root = root
        images = self.cfg.data.get("root")
        if images is not None and not Path(images).expanduser().is_dir():
            raise DataError(f"{images}: no such folder; set the images' new folder with root=DIR")
        data: CNMCDataModule = instantiate(self.cfg.data, split=instantiate(self.cfg.split))
        if self.record.data.get("files") not in (None, data.listing()):
            raise StoreError(
                f"{data.root}: not the data that {self.folder.name} was trained on; set "
                "the folder of its data with root=DIR"
            )
        data.prepare_data()
        data.setup()
        return data
