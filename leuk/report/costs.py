"""Computational cost of each configuration: parameters, arithmetic, time and memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from leuk.report.derived import ENSEMBLE, MEMBERS
from leuk.report.load import Configuration
from leuk.report.table import Column, Section, Shown, Table, number, text
from leuk.runs.record import RunId

Cost = Mapping[str, Any]
"""Result of :func:`leuk.metrics.cost.measure_cost`, with ``fit_s``, seconds of training."""

_COUNTED = ("parameters", "flops")
_TIMED = ("latency_ms", "batch_latency_ms", "memory_bytes")

NOTES = """\
Cost of a prediction for one image unless stated otherwise, in float32. FLOPs: a multiplication and
an addition count as two; convolutions, matrix products and attention are counted. Latency: median
time for an image processed alone, with its 95 % interval over runs on the same device. In a batch:
time per image in a batch. Memory: peak with that batch, weights included. Training: time to fit the
model, without its GAN. Times are comparable only on the same device. Several runs: median. The cost
of the ensemble is the sum of its members, run one after the other."""


def costs_of(configurations: Sequence[Configuration]) -> dict[RunId, Cost]:
    """Cost of each configuration whose records contain it, and of each ensemble.

    Args:
        configurations: all configurations of the report.
    """
    found: dict[RunId, Cost] = {}
    for configuration in configurations:
        if measured := [record for record in configuration.records if record.cost]:
            costs: list[Cost] = [record.cost for record in measured]
            fits = [record.timings["fit"] for record in measured if "fit" in record.timings]
            timed = {name: median(cost[name] for cost in costs) for name in _TIMED}
            low, high = _latency_interval(costs)
            found[configuration.run] = {
                **costs[0],
                **timed,
                "latency_ms_low": low,
                "latency_ms_high": high,
                "fit_s": median(fits) if fits else None,
            }
    for configuration in configurations:
        members = [found.get(replace(configuration.run, model=model)) for model in MEMBERS]
        one, other = members
        if configuration.run.model == ENSEMBLE and one and other:
            found[configuration.run] = _together(one, other)
    return found


def _latency_interval(costs: Sequence[Cost]) -> tuple[float | None, float | None]:
    """95 % t interval of the log latency over runs; None for one run or several devices.

    Runs are timed hours apart, so the interval includes the effect of other load on the machine.
    """
    if len(costs) < 2 or len({cost["device"] for cost in costs}) > 1:
        return None, None
    logs = np.log([cost["latency_ms"] for cost in costs])
    half = stdtrit(len(logs) - 1, 0.975) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, high = np.exp(logs.mean() + np.array([-half, half]))
    return float(low), float(high)


def _together(one: Cost, other: Cost) -> Cost:
    """Cost of both run one after the other; peak memory depends on the implementation."""
    latency = ("latency_ms", "latency_ms_low", "latency_ms_high")
    names = (*_COUNTED, *latency, "batch_latency_ms", "fit_s")
    summed = {
        name: None if None in (one[name], other[name]) else one[name] + other[name]
        for name in names
    }
    same = one["device"] == other["device"]
    device = one["device"] if same else f"{one['device']}, {other['device']}"
    return {**one, **summed, "memory_bytes": None, "device": device}


def costs_section(configurations: Sequence[Configuration], costs: Mapping[RunId, Cost]) -> Section:
    """Return the cost of every configuration for which it was measured."""
    table = pd.DataFrame(
        [
            {"configuration": one.title, **costs[one.run]}
            for one in configurations
            if one.run in costs
        ]
    )
    shown = "The cost was not measured in any run of this sweep."
    blocks = [shown if table.empty else Table(table, _COLUMNS), NOTES]
    return Section("costs", "Computational cost", blocks, table)


def _latency(value: float, low: float | None, high: float | None) -> Shown:
    known = low is not None and high is not None
    return Shown(f"{value:.2f}", f"[{low:.2f}, {high:.2f}]" if known else "")


def _millions(key: str, form: str) -> Column:
    return Column((key,), lambda value: "" if value is None else format(value / 1e6, form))


_COLUMNS = {
    "configuration": text("configuration"),
    "parameters": number("parameters", ",.0f"),
    "MFLOPs": _millions("flops", ",.1f"),
    "latency, ms": Column(("latency_ms", "latency_ms_low", "latency_ms_high"), _latency),
    "in a batch, ms": number("batch_latency_ms", ".2f"),
    "memory, MB": _millions("memory_bytes", ",.0f"),
    "training, s": number("fit_s", ",.0f"),
    "px": number("resolution", ".0f"),
    "device": text("device"),
}
