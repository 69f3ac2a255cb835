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
from leuk.report.table import Column, Section, Table, estimate, number, text
from leuk.runs.record import RunId

Cost = Mapping[str, Any]
"""Result of :func:`leuk.metrics.cost.measure_cost`, with ``fit_s``, seconds of training."""

_LATENCY = ("latency_ms", "latency_ms_low", "latency_ms_high")
_SUMMED = ("parameters", "flops", *_LATENCY, "batch_latency_ms", "fit_s")
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

    The latency has a 95 % t interval of its logarithm over runs, unless there is one run or several
    devices. Runs are timed hours apart, so it includes the effect of other load on the machine.
    """
    found: dict[RunId, Cost] = {}
    for configuration in configurations:
        measured = [record for record in configuration.records if record.cost]
        if not measured:
            continue
        costs: list[Cost] = [record.cost for record in measured]
        fits = [record.timings["fit"] for record in measured if "fit" in record.timings]
        low = high = None
        if len(costs) > 1 and len({cost["device"] for cost in costs}) == 1:
            logs = np.log([cost["latency_ms"] for cost in costs])
            half = stdtrit(len(logs) - 1, 0.975) * logs.std(ddof=1) / np.sqrt(len(logs))
            low, high = np.exp(logs.mean() + np.array([-half, half])).tolist()
        found[configuration.run] = {
            **costs[0],
            **{name: median(cost[name] for cost in costs) for name in _TIMED},
            "latency_ms_low": low,
            "latency_ms_high": high,
            "fit_s": median(fits) if fits else None,
        }
    for run in (configuration.run for configuration in configurations):
        one, other = (found.get(replace(run, model=model)) for model in MEMBERS)
        if run.model == ENSEMBLE and one and other:
            sums = {
                name: None if None in (one[name], other[name]) else one[name] + other[name]
                for name in _SUMMED
            }
            devices = ", ".join(dict.fromkeys((one["device"], other["device"])))
            # Its memory depends on the implementation.
            found[run] = {**one, **sums, "memory_bytes": None, "device": devices}
    return found


def costs_section(configurations: Sequence[Configuration], costs: Mapping[RunId, Cost]) -> Section:
    """Return the cost of every configuration for which it was measured."""
    known = [one for one in configurations if one.run in costs]
    table = pd.DataFrame([{"configuration": one.title, **costs[one.run]} for one in known])
    shown = "The cost was not measured in any run of this sweep."
    blocks = [shown if table.empty else Table(table, _COLUMNS), NOTES]
    return Section("costs", "Computational cost", blocks, table)


def _millions(key: str, form: str) -> Column:
    return Column((key,), lambda value: "" if value is None else format(value / 1e6, form))


_COLUMNS = {
    "configuration": text("configuration"),
    "parameters": number("parameters", ",.0f"),
    "MFLOPs": _millions("flops", ",.1f"),
    "latency, ms": estimate("latency_ms", form=".2f"),
    "in a batch, ms": number("batch_latency_ms", ".2f"),
    "memory, MB": _millions("memory_bytes", ",.0f"),
    "training, s": number("fit_s", ",.0f"),
    "px": number("resolution", ".0f"),
    "device": text("device"),
}
