"""A finished classifier written for use without leuk, once it is shown to say the same there."""

import json
import logging
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from leuk.classifiers.classifier import Classifier, dihedral
from leuk.config.nearest import hint
from leuk.data.labels import Label
from leuk.errors import ConfigError, StoreError
from leuk.evaluate.vectors import Images
from leuk.runs.finished import Finished
from leuk.runs.frozen import THRESHOLDS
from leuk.runs.paths import export_folder, said_of
from leuk.store.atomic import ensure_writable, whole_file, write_json
from leuk.store.replaced import Replaceable

log = logging.getLogger(__name__)

FACTS = "model.json"
"""Beside every model: what goes in, what comes out, and whose it is."""

NEEDS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torchscript": (),
    "safetensors": ("safetensors",),
}
"""Formats, and the packages that each needs; the extra ``export`` installs them."""

_SUFFIX = {"onnx": "onnx", "torchscript": "pt", "safetensors": "safetensors"}
_TRACED = 4
"""Cells that a network is followed with; any number goes in later."""

Ask = Callable[[Images], Tensor]
"""From ``uint8 (N, R, R, 3)`` to logits ``float32 (N, 2)``."""


class Judging(nn.Module):
    """A classifier as it judges: pixels in, logits out, turned views averaged where it does so.

    Args:
        classifier: fitted.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.views = int(classifier.optim.test_views)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``float32 (B, 2)``, healthy first, of ``uint8 (B, R, R, 3)`` RGB."""
        seen = images.permute(0, 3, 1, 2).float() / 255
        if self.views > 1:
            # In one pass, so that the network is there once.
            seen = torch.cat(dihedral(seen))
        logits: Tensor = self.classifier(seen).float()
        return logits.unflatten(0, (self.views, -1)).mean(dim=0) if self.views > 1 else logits


def check_exporting(cfg: DictConfig) -> None:
    """Refuse what cannot be exported, before anything is written.

    Raises:
        ConfigError: no finished run, no such format, or a package that is not installed.
        StoreError: nothing can be written there, or the checkpoint is not of the run.
    """
    if cfg.format not in NEEDS:
        raise ConfigError(f"format={cfg.format}: {hint(cfg.format, NEEDS)}")
    if missing := [name for name in NEEDS[cfg.format] if find_spec(name) is None]:
        raise ConfigError(
            f"format={cfg.format}: {', '.join(missing)} is not installed; "
            "pip install 'leuk[export]', or choose format=torchscript"
        )
    if not cfg.tolerance > 0:
        raise ConfigError(f"tolerance={cfg.tolerance}: it must be above 0")
    Finished.read(cfg.run).classifier()
    ensure_writable(Path(str(cfg.outputs)), "outputs")
    export_of(cfg).check()


def export_of(cfg: DictConfig) -> Replaceable:
    """The folder of the exported model of a config."""
    own = (FACTS, f"model.{_SUFFIX[cfg.format]}")
    return Replaceable(export_folder(cfg), FACTS, said_of(cfg, "run"), own, cfg.replace)


def export(cfg: DictConfig, folder: Path) -> float:
    """Write a run's classifier and :data:`FACTS` into a folder, and read it back to compare.

    Both are asked on the CPU in float32 about test cells of the run, several at once and one alone.

    Returns:
        The largest difference of a logit.

    Raises:
        DataError: the run's data is not there.
        StoreError: the written model says something else.
    """
    finished = Finished.read(cfg.run)
    classifier = finished.classifier().requires_grad_(False)
    data = finished.data(cfg.root)
    pixels = data.dataset.data[data.stage("test").index.to_numpy()[: cfg.cells]]
    path = folder / f"model.{_SUFFIX[cfg.format]}"
    with _silence(), whole_file(path) as temporary:
        ask = _WRITERS[cfg.format](classifier, temporary, pixels)
        difference = _difference(classifier, ask, pixels)
    if not difference <= cfg.tolerance:
        raise StoreError(
            f"format={cfg.format}: the written model differs by {difference:.2g} in a logit of "
            f"{len(pixels)} test cells, more than tolerance={cfg.tolerance:g}; nothing is kept"
        )
    agreement = {
        "images": len(pixels),
        "largest_difference": difference,
        "tolerance": float(cfg.tolerance),
    }
    facts = {"format": str(cfg.format), "file": path.name, **said_of(cfg, "run")}
    write_json(
        folder / FACTS, facts | _facts(finished, classifier, cfg.root) | {"agreement": agreement}
    )
    log.info("%s: agrees to %.2g in %d test cells", path.name, difference, len(pixels))
    return difference


def _difference(classifier: Classifier, ask: Ask, pixels: Images) -> float:
    asked = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = classifier.predict_logits(asked)
        found, alone = ask(pixels), ask(pixels[:1])
    pairs = ((found, expected), (alone, expected[:1]))
    return max(float((one - other).abs().max()) for one, other in pairs)


def _write_onnx(classifier: Classifier, path: Path, pixels: Images) -> Ask:
    import onnxruntime

    torch.onnx.export(
        Judging(classifier).eval(),
        (torch.from_numpy(pixels[:_TRACED]),),
        path,
        dynamo=True,
        verbose=False,
        external_data=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"images": {0: torch.export.Dim("images")}},
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images})[0])


def _write_torchscript(classifier: Classifier, path: Path, pixels: Images) -> Ask:
    # As Lightning does itself where it is traced: without a trainer there is none to look at.
    classifier._jit_is_scripting = True
    example = torch.from_numpy(pixels[:_TRACED])
    torch.jit.trace(Judging(classifier).eval(), (example,), check_trace=False).save(str(path))
    loaded = torch.jit.load(path, map_location="cpu")
    return lambda images: loaded(torch.from_numpy(images))


def _write_safetensors(classifier: Classifier, path: Path, pixels: Images) -> Ask:
    from safetensors.torch import load_model, save_model

    save_model(classifier, str(path), {"form": type(classifier).__name__})
    loaded = type(classifier)(**classifier.hparams)
    load_model(loaded, path)
    judging = Judging(loaded).eval()
    return lambda images: judging(torch.from_numpy(images))


_WRITERS: dict[str, Callable[[Classifier, Path, Images], Ask]] = {
    "onnx": _write_onnx,
    "torchscript": _write_torchscript,
    "safetensors": _write_safetensors,
}


@contextmanager
def _silence() -> Iterator[None]:
    """Keep to ourselves what exporters say of every network: deprecations, steps left out."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _facts(finished: Finished, classifier: Classifier, root: str | None) -> dict[str, Any]:
    record, frame = finished.record, finished.frame
    chosen = record.metrics.get("thresholds", {})
    return {
        "input": {
            "name": "images",
            "type": "uint8",
            "shape": ["images", frame.resolution, frame.resolution, 3],
            "what": "RGB, 0 to 255; scaling and standardizing are the model's own",
            "resolution": frame.resolution,
            "framing": frame.framing,
            "scale": {
                **asdict(finished.scale(root)),
                "what": "each image has to show the field of view of the training images: bring it "
                "to a square of canvas pixels (its longer side where null), cropped or filled up "
                "with black about its middle; frame is the side of that field in pixels of the "
                "original frame or in µm, areas the least and largest share of it that the cells "
                "of the training images cover",
            },
        },
        "output": {
            "name": "logits",
            "type": "float32",
            "shape": ["images", len(Label)],
            "what": "softmax makes them probabilities; the second is the score",
        },
        "labels": {str(int(label)): label.name for label in Label},
        "views": int(classifier.optim.test_views),
        "temperature": record.calibration.get("temperature"),
        "thresholds": {
            said: chosen[name]["value"] for said, name in THRESHOLDS.items() if name in chosen
        },
        "referral": record.referral,
        "classifier": {
            "class": f"{type(classifier).__module__}.{type(classifier).__name__}",
            "arguments": json.loads(json.dumps(dict(classifier.hparams))),
        },
        "run": record.run.to_dict(),
        "fingerprint": record.fingerprint,
        "data": record.data.get("fingerprint"),
        "weights": finished.weights_digest,
        "warnings": [asdict(warning) for warning in record.warnings],
        "versions": {
            "run": record.versions,
            "export": {"python": platform.python_version()}
            | {name: version(name) for name in ("leuk", "torch")},
        },
    }
