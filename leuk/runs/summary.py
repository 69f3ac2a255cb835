"""How a sweep went, cell by cell, from what lies in their folders."""

from collections.abc import Sequence

from omegaconf import DictConfig

from leuk.grid.state import State, look_at
from leuk.runs.identity import begin, folder_of

_SAID = {
    State.MISSING: "not begun",
    State.RUNNING: "another process runs it",
    State.STOPPED: "it was stopped; start again to go on",
}


def incomplete_cells(cells: Sequence[DictConfig]) -> list[str]:
    """One line for each cell that is not complete: ``<folder>: <state>: <why>``."""
    lines = []
    for cfg in cells:
        folder = folder_of(cfg, cfg.hydra)
        found = look_at(folder, begin(cfg, cfg.hydra))
        if found.state != State.COMPLETE:
            lines.append(f"{folder.name}: {found.state}: {_SAID.get(found.state, found.said)}")
    return lines
