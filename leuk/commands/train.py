"""``leuk train``: one cell of the grid, or a sweep of them."""

import logging

from omegaconf import DictConfig

from leuk.errors import StoreError
from leuk.grid.record import Record
from leuk.report.sweep_report import write_report
from leuk.runs.beforehand import check_finished, check_parts, check_places
from leuk.runs.cell_run import run_cell
from leuk.runs.identity import folder_of, register_resolvers, sweep_of

log = logging.getLogger(__name__)

register_resolvers()
run = run_cell


def check(cells: list[DictConfig]) -> None:
    """Refuse, before any work, what cannot be built, written or told apart."""
    for cfg in cells:
        check_parts(cfg)
        check_finished(cfg)
    check_places(cells, [folder_of(cfg, cfg.hydra) for cfg in cells])


def finish(cells: list[DictConfig]) -> int:
    """Write the sweep's report, say where everything is; 1 if a cell is not complete."""
    incomplete = []
    for cfg in cells:
        folder = folder_of(cfg, cfg.hydra)
        try:
            record = Record.read(folder)
        except StoreError as error:
            incomplete.append(f"{folder.name}: {error}")
            continue
        if record.status != "complete":
            reason = record.error["message"] if record.error else "it was stopped"
            incomplete.append(f"{folder.name}: {record.status}: {reason}")
    sweeps = list(dict.fromkeys(sweep_of(cfg) for cfg in cells))
    for sweep in sweeps:
        print(write_report(sweep))
    for line in incomplete:
        print(f"not complete: {line}")
    places = ", ".join(map(str, sweeps))
    print(f"{len(cells) - len(incomplete)} of {len(cells)} cells complete; look in {places}")
    return 1 if incomplete else 0
