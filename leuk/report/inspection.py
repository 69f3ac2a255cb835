"""An audit from a config: the folder, the split of its cells, and pictures of every recipe."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from leuk.config.targets import instantiate
from leuk.data.audit import Audit, audit
from leuk.data.datamodule import CNMCDataModule
from leuk.data.layouts import MERGED, PRELIM, Problem
from leuk.data.phantom import PhantomDataModule
from leuk.data.rules import Folds, SubjectKFold
from leuk.data.scale import check_field
from leuk.data.splits import Rule
from leuk.errors import DataError, StoreError
from leuk.report.audit_page import FINDINGS, audit_page, findings
from leuk.report.contact_sheet import save_contact_sheet
from leuk.runs.identity import choice_of, current_hydra
from leuk.store.atomic import write_json, write_text

CITATION = (
    "Cells: A. Gupta and R. Gupta, ALL Challenge dataset of ISBI 2019 (C-NMC 2019), The Cancer "
    "Imaging Archive, 2019, doi:10.7937/tcia.2019.dc64i46r, CC BY 3.0."
)
STAND_IN = "Stand-in cells, made by leuk."

_AUDIT = "audit.json"
_ON_SHEET = 6


def check_kept(cfg: DictConfig) -> None:
    """Refuse to lose the audit of another folder; that of the same folder is written anew.

    Raises:
        StoreError: naming the folder whose audit would be lost.
    """
    path = _folder(cfg) / _AUDIT
    if cfg.replace or not path.exists():
        return
    try:
        root = Path(json.loads(path.read_text("utf-8"))["root"]).resolve()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: no readable audit; move it away or give this audit a name of its own: "
            "name=NAME"
        ) from error
    now = Path(cfg.data.get("root") or cfg.data.cache).expanduser().resolve()
    # Phantom images have no root of their own; they are artifacts.
    if root != now and ("root" in cfg.data or now not in root.parents):
        raise StoreError(
            f"{path.parent}: holds the audit of {root}; write beside it with name=NAME, or replace "
            "it with replace=true"
        )


def _folder(cfg: DictConfig) -> Path:
    return Path(cfg.outputs) / "data" / str(cfg.name)


def inspect_data(cfg: DictConfig) -> tuple[Audit, Path]:
    """Audit the folder of ``cfg.data``; write ``audit.json``, the page, findings and pictures.

    A split that does not fit the data is a problem where the user chose it or where no other fits.

    Returns:
        What was found, and the folder it was written to.
    """
    data: CNMCDataModule = instantiate(cfg.data, split=instantiate(cfg.split))
    data.on_corrupt = "skip"
    check_field(data.field, data.pixel_size)
    stated = data.field is not None or data.pixel_size is not None
    found = audit(data.root, data.view, data.cache, mixed=stated)
    folder = _folder(cfg)
    split = _split(cfg, data)
    if split["error"]:
        other = _fitting_split(data)
        chosen = any(
            text.lstrip("+").startswith("split") for text in current_hydra().overrides.task
        )
        if other:
            note = (
                f"The split {split['name']} does not fit: {split['error']}. This one does: {other}"
            )
            found = replace(found, notes=[note])
        if chosen or not other:
            problem = Problem("split", split["name"], split["error"])
            found = replace(found, problems=[*found.problems, problem])
    sheets = _sheets(cfg, data, folder)
    source = STAND_IN if isinstance(data, PhantomDataModule) else CITATION
    write_json(folder / _AUDIT, {**found.to_dict(), "split": split})
    write_text(folder / FINDINGS, findings(found))
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


def _fitting_split(data: CNMCDataModule) -> str:
    """Overrides of a split that fits the data, preferring parts over folds; empty if none does."""
    try:
        cells = data.open().index
    except DataError:
        return ""
    parts = sorted({*cells["source_fold"]} - {MERGED})
    candidates: dict[str, Rule] = {}
    if len(parts) > 1:
        test = PRELIM if PRELIM in parts else parts[-1]
        train = [part for part in parts if part != test]
        named = f"split=folds 'split.train=[{','.join(train)}]' 'split.test=[{test}]'"
        candidates[named] = Folds(train=train, test=[test])
    candidates["split=subject_kfold"] = SubjectKFold()
    for folds in (4, 3):
        candidates[f"split=subject_kfold split.n_folds={folds}"] = SubjectKFold(n_folds=folds)
    for overrides, rule in candidates.items():
        try:
            rule(cells)
        except DataError:
            continue
        return overrides
    return ""


def _sheets(cfg: DictConfig, data: CNMCDataModule, folder: Path) -> dict[str, Path]:
    """One picture per recipe, of images spread over the table; none without labeled images."""
    try:
        dataset = data.open()
    except DataError:
        return {}
    rows = np.linspace(0, len(dataset) - 1, min(_ON_SHEET, len(dataset))).astype(int)
    images = torch.from_numpy(dataset.data[rows]).permute(0, 3, 1, 2) / 255
    sheets = {}
    for name, node in cfg.sheets.items():
        sheets[str(name)] = folder / f"augmentation-{name}.png"
        save_contact_sheet(sheets[str(name)], images, instantiate(node))
    return sheets
