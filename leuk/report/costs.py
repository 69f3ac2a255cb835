"""What each line costs: parameters, arithmetic, time and memory, from the records."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from leuk.grid.run_id import RunId
from leuk.report.ensemble import MEMBERS, NAME
from leuk.report.results import Configuration
from leuk.report.sections import Grid, Section

Cost = Mapping[str, Any]
"""As :func:`leuk.evaluate.cost.measure_cost` returns it, and ``fit_s``, seconds of fitting."""

_COUNTED = ("parameters", "flops")
_TIMED = ("latency_ms", "batch_latency_ms", "memory_bytes")

NOTES = """\
Of one image unless said otherwise, as the model answers, in float32. FLOPs: a multiplication and
its addition are two; convolutions, matrix products and attention are counted. Latency: median time
of one image alone, with its 95 % interval over runs of one device, and of one image in a batch.
Memory: peak with that batch, weights among it. Times compare only on one device. Several runs of a
line: their median. The ensemble costs what its members cost together, asked one after the other."""


def costs_of(groups: Sequence[Configuration]) -> dict[RunId, Cost]:
    """Cost of each line whose records hold one, and of ensembles of two such lines."""
    found: dict[RunId, Cost] = {}
    for group in groups:
        if measured := [record for record in group.records if record.cost]:
            costs: list[Cost] = [record.cost for record in measured]
            fits = [record.timings["fit"] for record in measured if "fit" in record.timings]
            timed = {name: median(cost[name] for cost in costs) for name in _TIMED}
            low, high = _latency_interval(costs)
            found[group.run] = {
                **costs[0],
                **timed,
                "latency_ms_low": low,
                "latency_ms_high": high,
                "fit_s": median(fits) if fits else None,
            }
    for group in groups:
        members = [found.get(replace(group.run, model=model)) for model in MEMBERS]
        one, other = members
        if group.run.model == NAME and one and other:
            found[group.run] = _together(one, other)
    return found


def _latency_interval(costs: Sequence[Cost]) -> tuple[float | None, float | None]:
    """95 % interval of the latency over runs, t on its logarithm; None of one run or two devices.

    Runs are timed hours apart, so that it holds what else a machine does meanwhile.
    """
    if len(costs) < 2 or len({cost["device"] for cost in costs}) > 1:
        return None, None
    logs = np.log([cost["latency_ms"] for cost in costs])
    half = stdtrit(len(logs) - 1, 0.975) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, high = np.exp(logs.mean() + np.array([-half, half]))
    return float(low), float(high)


def _together(one: Cost, other: Cost) -> Cost:
    """Both asked one after the other; what they hold at once depends on how, so no memory."""
    latency = ("latency_ms", "latency_ms_low", "latency_ms_high")
    names = (*_COUNTED, *latency, "batch_latency_ms", "fit_s")
    summed = {
        name: None if None in (one[name], other[name]) else one[name] + other[name]
        for name in names
    }
    same = one["device"] == other["device"]
    device = one["device"] if same else f"{one['device']}, {other['device']}"
    return {**one, **summed, "memory_bytes": None, "device": device}


def _latency_text(cost: Cost) -> str:
    low, high = cost["latency_ms_low"], cost["latency_ms_high"]
    bounds = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return f"{cost['latency_ms']:.2f}{bounds}"


def costs_section(groups: Sequence[Configuration], costs: Mapping[RunId, Cost]) -> Section:
    """The cost of every line that was measured."""
    header = (
        "configuration",
        "parameters",
        "MFLOPs",
        "latency, ms",
        "in a batch, ms",
        "memory, MB",
        "fit, s",
        "px",
        "device",
    )
    lines = [(group, costs[group.run]) for group in groups if group.run in costs]
    rows = [
        (
            group.title,
            f"{cost['parameters']:,}",
            f"{cost['flops'] / 1e6:,.1f}",
            _latency_text(cost),
            f"{cost['batch_latency_ms']:.2f}",
            "" if cost["memory_bytes"] is None else f"{cost['memory_bytes'] / 1e6:,.0f}",
            "" if cost["fit_s"] is None else f"{cost['fit_s']:,.0f}",
            str(cost["resolution"]),
            str(cost["device"]),
        )
        for group, cost in lines
    ]
    shown: Grid | str = (
        Grid(header, tuple(rows)) if rows else "No record of the sweep holds a cost."
    )
    table = pd.DataFrame([{"configuration": group.title, **cost} for group, cost in lines])
    return Section("costs", "What the models cost", (shown, NOTES), table)
