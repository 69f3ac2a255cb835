"""Export of a finished classifier for use without leuk, verified by comparing the outputs."""

import json
import logging
import platform
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from leuk.classifiers.base import Classifier, dihedral
from leuk.config.targets import hint
from leuk.data.labels import Label
from leuk.data.pixels import to_float
from leuk.errors import ConfigError, StoreError
from leuk.metrics.arrays import Images
from leuk.runs.finished import THRESHOLDS, FinishedRun
from leuk.runs.run import export_folder, source_paths
from leuk.store import Replaceable, ensure_writable, whole_file, write_json

log = logging.getLogger(__name__)

FACTS = "model.json"
"""File beside the model that describes its input, output, thresholds and origin."""

NEEDS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torchscript": (),
    "safetensors": ("safetensors",),
}
"""Packages that each format requires; the extra ``export`` installs all."""

_SUFFIX = {"onnx": "onnx", "torchscript": "pt", "safetensors": "safetensors"}
_TRACED = 4
"""Number of images to trace a network with; the exported model takes any number."""

Forward = Callable[[Images], Tensor]
"""Function from images ``uint8 (N, R, R, 3)`` to logits ``float32 (N, 2)``."""


class Exportable(nn.Module):
    """Classifier with its preprocessing and test-time augmentation, from pixels to logits."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.views = int(classifier.optim.test_views)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits ``float32 (B, 2)``, healthy first, of RGB ``uint8 (B, R, R, 3)``."""
        scaled = to_float(images)
        if self.views > 1:
            # A single pass, so that the exported graph has the network only once.
            scaled = torch.cat(dihedral(scaled))
        logits: Tensor = self.classifier(scaled).float()
        return logits.unflatten(0, (self.views, -1)).mean(dim=0) if self.views > 1 else logits


def check_exporting(cfg: DictConfig) -> None:
    """Refuse what cannot be exported, before anything is written."""
    if cfg.format not in NEEDS:
        raise ConfigError(f"format={cfg.format}: {hint(cfg.format, NEEDS)}")
    if missing := [name for name in NEEDS[cfg.format] if find_spec(name) is None]:
        raise ConfigError(
            f"format={cfg.format}: {', '.join(missing)} is not installed; "
            "pip install 'leuk[export]', or choose format=torchscript"
        )
    if not cfg.tolerance > 0:
        raise ConfigError(f"tolerance={cfg.tolerance}: it must be above 0")
    FinishedRun.read(cfg.run).classifier()
    ensure_writable(Path(str(cfg.outputs)), "outputs")
    export_target(cfg).check()


def export_target(cfg: DictConfig) -> Replaceable:
    """Output folder of an exported model, which ``replace=true`` may overwrite."""
    own = (FACTS, f"model.{_SUFFIX[cfg.format]}")
    return Replaceable(export_folder(cfg), FACTS, source_paths(cfg, "run"), own, cfg.replace)


def export(cfg: DictConfig, folder: Path) -> float:
    """Write a run's classifier and :data:`FACTS` into a folder, and verify the written model.

    The written model is loaded and compared with the classifier, on the CPU in float32, on test
    images of the run, as a batch and singly.

    Returns:
        Largest absolute difference of a logit.

    Raises:
        DataError: the run's data do not exist.
        StoreError: the logits differ by more than ``tolerance``; the model is removed.
    """
    finished = FinishedRun.read(cfg.run)
    classifier = finished.classifier().requires_grad_(False)
    data = finished.data(cfg.root)
    pixels = data.dataset.data[data.stage("test").index.to_numpy()[: cfg.test_images]]
    expected = classifier.predict_logits(to_float(torch.from_numpy(pixels)))
    path = folder / f"model.{_SUFFIX[cfg.format]}"
    # The exporters warn for every network.
    silenced = (logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx"))
    with warnings.catch_warnings(), ExitStack() as stack, whole_file(path) as temporary:
        warnings.simplefilter("ignore")
        for logger in silenced:
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        exported = _WRITERS[cfg.format](classifier, temporary, pixels)
        with torch.no_grad():
            batch, single = exported(pixels), exported(pixels[:1])
    pairs = ((batch, expected), (single, expected[:1]))
    difference = max(float((found - wanted).abs().max()) for found, wanted in pairs)
    if not difference <= cfg.tolerance:
        raise StoreError(
            f"format={cfg.format}: logits of the exported model differ by up to {difference:.2g} "
            f"on {len(pixels)} test images, more than tolerance={cfg.tolerance:g}; it is not kept; "
            "choose another format, or a larger tolerance"
        )
    facts = {
        "format": str(cfg.format),
        "file": path.name,
        **source_paths(cfg, "run"),
        **_facts(finished, classifier),
        "agreement": {
            "images": len(pixels),
            "largest_difference": difference,
            "tolerance": float(cfg.tolerance),
        },
    }
    write_json(folder / FACTS, facts)
    log.info(
        "%s: logits differ by at most %.2g on %d test images", path.name, difference, len(pixels)
    )
    return difference


def _write_onnx(classifier: Classifier, path: Path, pixels: Images) -> Forward:
    import onnxruntime

    torch.onnx.export(
        Exportable(classifier).eval(),
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


def _write_torchscript(classifier: Classifier, path: Path, pixels: Images) -> Forward:
    # Lightning sets this flag during tracing; otherwise the tracer reads the missing trainer.
    classifier._jit_is_scripting = True
    example = torch.from_numpy(pixels[:_TRACED])
    torch.jit.trace(Exportable(classifier).eval(), (example,), check_trace=False).save(str(path))
    loaded = torch.jit.load(path, map_location="cpu")
    return lambda images: loaded(torch.from_numpy(images))


def _write_safetensors(classifier: Classifier, path: Path, pixels: Images) -> Forward:
    from safetensors.torch import load_model, save_model

    save_model(classifier, str(path), {"form": type(classifier).__name__})
    loaded = type(classifier)(**classifier.hparams)
    load_model(loaded, path)
    exportable = Exportable(loaded).eval()
    return lambda images: exportable(torch.from_numpy(images))


_WRITERS: dict[str, Callable[[Classifier, Path, Images], Forward]] = {
    "onnx": _write_onnx,
    "torchscript": _write_torchscript,
    "safetensors": _write_safetensors,
}


def _facts(finished: FinishedRun, classifier: Classifier) -> dict[str, Any]:
    record, frame = finished.record, finished.frame
    chosen = record.metrics.get("thresholds", {})
    return {
        "input": {
            "name": "images",
            "type": "uint8",
            "shape": ["images", frame.resolution, frame.resolution, 3],
            "description": "RGB, 0 to 255; the model itself scales and standardizes",
            "resolution": frame.resolution,
            "framing": frame.framing,
            "scale": {
                **asdict(finished.scale),
                "description": "each image has to show the field of view of the training images: "
                "crop or pad it with black, centered, to a square with a side of canvas pixels "
                "(its longer side if null); frame is the side of that field in pixels of the "
                "original frame or in µm; areas are the smallest and largest share of it that "
                "cells of the training images cover",
            },
        },
        "output": {
            "name": "logits",
            "type": "float32",
            "shape": ["images", len(Label)],
            "description": "softmax converts them to probabilities; the second is the score",
        },
        "labels": {str(int(label)): label.name for label in Label},
        "views": int(classifier.optim.test_views),
        "temperature": record.calibration.get("temperature"),
        "thresholds": {
            key: chosen[name]["value"] for key, name in THRESHOLDS.items() if name in chosen
        },
        "referral": record.referral,
        "classifier": {
            "class": f"{type(classifier).__module__}.{type(classifier).__name__}",
            "arguments": json.loads(json.dumps(dict(classifier.hparams))),
        },
        "run_id": asdict(record.run),
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
