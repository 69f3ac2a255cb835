"""A finished cell of the grid, read back: its settings, its classifier and its data."""

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
from leuk.data.scale import Scale, training_sizes
from leuk.errors import ConfigError, DataError, StoreError
from leuk.grid.record import FILE, Record
from leuk.runs.checkpoints import older_arguments, read_checkpoint

CONFIG = ".hydra/config.yaml"
WEIGHTS = "checkpoints/best.ckpt"


@dataclass(frozen=True, eq=False)
class Finished:
    """A complete cell of the grid.

    Attributes:
        folder: where it lies.
        record: what it left.
        cfg: the settings it was run with.
    """

    folder: Path
    record: Record
    cfg: DictConfig

    @classmethod
    def read(cls, run: str, key: str = "run") -> "Finished":
        """Read the cell in a folder.

        Args:
            run: the folder, below ``outputs/runs/<name>``.
            key: the setting that names it, as errors call it.

        Raises:
            ConfigError: no finished cell there, or its config names what may not be built.
            StoreError: its record or its config cannot be read.
        """
        folder = Path(run).expanduser().resolve()
        advice = "name the folder of a finished cell, below outputs/runs/NAME"
        if not folder.is_dir():
            raise ConfigError(f"{key}={run}: no such folder; {advice}")
        if not (folder / FILE).is_file():
            cells = sorted(path.parent.name for path in folder.glob(f"*/{FILE}"))
            below = f"it holds several cells, name one: {', '.join(cells)}" if cells else advice
            raise ConfigError(f"{key}={run}: no {FILE} in it; {below}")
        record = Record.read(folder)
        if record.status != "complete":
            raise ConfigError(
                f"{key}={run}: not finished ({record.state}); start leuk train again as it was"
            )
        for file in (CONFIG, WEIGHTS):
            if not (folder / file).is_file():
                raise ConfigError(f"{key}={run}: no {file} in it; {advice}")
        cfg = read_stored(folder / CONFIG)
        check_complete(folder / CONFIG, cfg)
        # Where a moved folder's artifacts are now; a cache of its own stays what it was.
        if folder.parent.parent.name == "runs":
            cfg.outputs = str(folder.parents[2])
        return cls(folder, record, cfg)

    @property
    def frame(self) -> Frame:
        """What part of each image its classifier sees, and at what size."""
        canvas = (self.record.data.get("scale") or {}).get("canvas")
        return Frame(int(self.cfg.data.resolution), self.cfg.data.framing, canvas)

    def scale(self, root: str | None = None) -> Scale:
        """Field of view of its training images.

        Runs from before it was recorded have the sizes of synthetic images in their settings; for
        others the headers of the images are read, and the scale is unknown where these are gone.

        Args:
            root: where the images are now, if they have moved.
        """
        if recorded := self.record.data.get("scale"):
            return Scale.of_record(recorded)
        if "size" in self.cfg.data:
            size = int(self.cfg.data.size)
            return Scale(((size, size),), float(size))
        folder = Path(str(root or self.cfg.data.get("root"))).expanduser()
        return Scale.of_sizes(training_sizes(folder)) if folder.is_dir() else Scale()

    @property
    def weights_digest(self) -> str:
        """Hash of the file of its best weights."""
        with (self.folder / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def classifier(self) -> Classifier:
        """The classifier with its best weights, on the CPU, in evaluation mode.

        Raises:
            ConfigError: the settings name something else than a classifier.
            StoreError: the checkpoint cannot be read, or is not of this cell.
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
            what = " ".join(str(error).split())
            raise StoreError(
                f"{path}: not weights of this leuk's {form.__name__}, but of another version's "
                f"({what}); use the leuk of the run ({self.record.versions.get('leuk')}), or run "
                "the cell again"
            ) from error
        assert isinstance(loaded, Classifier)
        return loaded.eval()

    def data(self, root: str | None = None) -> CNMCDataModule:
        """The cells that it was fitted and judged on, set up.

        Args:
            root: where the images lie now, if they have moved.

        Raises:
            ConfigError: ``root`` for stand-in cells, which have none.
            DataError: no such folder of images.
            StoreError: the data is not what it was.
        """
        if root is not None:
            if "root" not in self.cfg.data:
                raise ConfigError(f"root={root}: {self.folder.name} is of stand-in cells")
            self.cfg.data.root = root
        where = self.cfg.data.get("root")
        if where is not None and not Path(where).expanduser().is_dir():
            raise DataError(f"{where}: no such folder; say where the images lie now: root=DIR")
        data: CNMCDataModule = instantiate(self.cfg.data, split=instantiate(self.cfg.split))
        if self.record.data.get("files") not in (None, data.listing()):
            raise StoreError(
                f"{data.root}: not the data that {self.folder.name} was fitted on; say where that "
                "is: root=DIR"
            )
        data.prepare_data()
        data.setup()
        return data
