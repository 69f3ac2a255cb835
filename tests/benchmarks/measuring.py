"""Common parts of the benchmarks: alternating measurements, and the peer's rate."""

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping


def medians(measurements: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median of each measurement, taken in turn, so that the host's load affects all alike."""
    found: dict[str, list[float]] = {name: [] for name in measurements}
    for _ in range(rounds):
        for name, measure in measurements.items():
            found[name].append(measure())
    return {name: statistics.median(values) for name, values in found.items()}


def seconds(work: Callable[[], object]) -> float:
    """Duration of some work."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peer_rate(*command: str) -> float:
    """Images per second that a command such as ``PYTHON keras_seed.py cnn`` prints last."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1].split()[1])
