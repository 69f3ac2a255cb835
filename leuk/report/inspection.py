"""An audit from a config: the folder, the split of its cells, and pictures of every recipe."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from leuk.config.targets import instantiate
from leuk.data.audit import Audit, audit
from leuk.data.datamodule import CNMCDataModule
from leuk.data.layouts import Problem
from leuk.data.phantom import PhantomDataModule
from leuk.data.scale import check_field
from leuk.errors import DataError
from leuk.report.audit_page import audit_page
from leuk.report.contact_sheet import save_contact_sheet
from leuk.runs.identity import choice_of
from leuk.store.atomic import write_json, write_text

CITATION = (
    "Cells: A. Gupta and R. Gupta, ALL Challenge dataset of ISBI 2019 (C-NMC 2019), The Cancer "
    "Imaging Archive, 2019, doi:10.7937/tcia.2019.dc64i46r, CC BY 3.0."
)
STAND_IN = "Stand-in cells, made by leuk."

_ON_SHEET = 6


def inspect_data(cfg: DictConfig) -> tuple[Audit, Path]:
    """Audit the folder of ``cfg.data`` and write ``audit.json``, ``audit.html`` and pictures.

    Returns:
        What was found, and the folder it was written to.
    """
    data: CNMCDataModule = instantiate(cfg.data, split=instantiate(cfg.split))
    data.on_corrupt = "skip"
    check_field(data.field, data.pixel_size)
    stated = data.field is not None or data.pixel_size is not None
    found = audit(data.root, data.view, data.cache, mixed=stated)
    folder = Path(cfg.outputs) / "data" / str(cfg.name)
    split = _split(cfg, data)
    if split["error"]:
        problem = Problem("split", split["name"], split["error"])
        found = replace(found, problems=[*found.problems, problem])
    sheets = _sheets(cfg, data, folder)
    source = STAND_IN if isinstance(data, PhantomDataModule) else CITATION
    write_json(folder / "audit.json", {**found.to_dict(), "split": split})
    write_text(folder / "audit.html", audit_page(found, data.root, split, source, sheets))
    return found, folder


def _split(cfg: DictConfig, data: CNMCDataModule) -> dict[str, Any]:
    name = choice_of("split", cfg)
    try:
        data.setup()
    except DataError as error:
        return {"name": name, "error": str(error)}
    return {
        "name": name,
        "error": None,
        "counts": data.counts(),
        "dropped": data.split.dropped,
        "leaky": data.split.leaky,
    }


def _sheets(cfg: DictConfig, data: CNMCDataModule, folder: Path) -> dict[str, Path]:
    """One picture a recipe, of cells spread over the table."""
    dataset = data.open()
    rows = np.linspace(0, len(dataset) - 1, min(_ON_SHEET, len(dataset))).astype(int)
    images = torch.from_numpy(dataset.data[rows]).permute(0, 3, 1, 2) / 255
    sheets = {}
    for name, node in cfg.sheets.items():
        sheets[str(name)] = folder / f"augmentation-{name}.png"
        save_contact_sheet(sheets[str(name)], images, instantiate(node))
    return sheets
