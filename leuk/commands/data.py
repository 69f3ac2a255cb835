"""``leuk data``: what lies in a folder of cells, what is wrong with it, who is linked to whom."""

from pathlib import Path

from omegaconf import DictConfig

from leuk.config.targets import instantiate
from leuk.report.audit_page import FINDINGS, audit_text
from leuk.report.inspection import check_kept, inspect_data
from leuk.runs.preconditions import check_root
from leuk.store.atomic import ensure_writable

_wrong: list[Path] = []


def check(cells: list[DictConfig]) -> None:
    """Refuse, before any work, what cannot be written."""
    _wrong.clear()
    for cfg in cells:
        check_root(cfg)
        instantiate(cfg.split).check()
        ensure_writable(Path(cfg.outputs), "outputs")
        check_kept(cfg)


def run(cfg: DictConfig) -> None:
    """Audit one folder, print what was found and write it down."""
    audit, folder = inspect_data(cfg)
    print(audit_text(audit))
    print(f"look in {folder}: audit.html, audit.json, {FINDINGS} and the pictures of augmentation")
    if audit.problems:
        _wrong.append(folder)


def finish(cells: list[DictConfig]) -> int:
    """1 if something has to be mended."""
    return 1 if _wrong else 0
