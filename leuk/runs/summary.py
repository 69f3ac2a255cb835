"""Incomplete runs of a sweep, from the records in their folders."""

from collections.abc import Sequence

from omegaconf import DictConfig

from leuk.grid.state import State, inspect_folder
from leuk.runs.identity import folder_of, initial_record

_REASONS = {
    State.MISSING: "not started",
    State.RUNNING: "in another process",
    State.STOPPED: "start again to resume",
}


def incomplete_runs(configs: Sequence[DictConfig]) -> list[str]:
    """Describe each run that is not complete as ``<folder>: <state>: <reason>``."""
    lines = []
    for cfg in configs:
        folder = folder_of(cfg, cfg.hydra)
        found = inspect_folder(folder, initial_record(cfg, cfg.hydra))
        if found.state != State.COMPLETE:
            reason = _REASONS.get(found.state, found.message)
            lines.append(f"{folder.name}: {found.state}: {reason}")
    return lines
