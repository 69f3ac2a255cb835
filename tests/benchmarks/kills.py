"""Kill a sweep at random times, restart it after each, and count losses.

    python tests/benchmarks/kills.py [--kills 50] [--seed 0] [--folder DIR]

A sweep of six tiny runs, three with a GAN, runs once undisturbed. Then it runs repeatedly in new
folders; its process group is killed with SIGKILL at random times and restarted, until the wanted
number of kills is reached and the last sweep is complete. Times are CPU time, up to a quarter of
that of the undisturbed sweep, so they do not depend on the load of the host. Prints the last log
message before each kill, and at the end the number of kills, complete records that were lost or
changed, half-written files, and differences of records, predictions and tables from the undisturbed
sweep.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

TINY = (
    "name=k",
    "trainer=cpu",
    "data.images_per_fold=54",
    "data.size=32",
    "data.resolution=32",
    "data.batch_size=8",
    "fit.epochs=3",
    "fit.patience=3",
    "gan_fit.epochs=3",
    "gan_fit.batch_size=4",
    "gan_fit.checkpoint_every=1",
    "explain=gradcam",
    "explain_images=2",
)
"""Overrides for runs of a few seconds."""

AXES = ("seed=0,1,2", "augmentation=none,dcgan")

_MEASURED = ("costs", "run")
"""Tables of times and commands, which differ between sweeps."""

_POLL = 0.005


@dataclass
class Lost:
    """Effects of the kills.

    Attributes:
        kills: number of kills of a running sweep.
        records: complete records that were missing or changed after a kill.
        halves: unreadable files.
        different: differences from the undisturbed sweep.
    """

    kills: int = 0
    records: list[str] = field(default_factory=list)
    halves: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """True if the kills had no effect."""
        return not (self.records or self.halves or self.different)

    def __str__(self) -> str:
        equal = "equal" if not self.different else f"DIFFERENT: {self.different}"
        return (
            f"kills {self.kills}, records lost {len(self.records)} {self.records or ''}, half-read "
            f"files {len(self.halves)} {self.halves or ''}, metrics {equal}"
        )


def context() -> ForkServerContext:
    """Context whose processes start with all imports done, so that kills hit the work."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["leuk.cli", "leuk.commands.train", "leuk.explain.study"])
    return forks


def _sweep(outputs: Path, overrides: Sequence[str]) -> None:
    from leuk.cli import main

    os.setsid()
    printed = os.open(log_path(outputs), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    torch.set_num_threads(1)
    sys.exit(main(["train", "-m", f"outputs={outputs}", *overrides]))


def start(forks: ForkServerContext, outputs: Path, overrides: Sequence[str]) -> ForkServerProcess:
    """Start a sweep as the leader of a new process group."""
    process = forks.Process(target=_sweep, args=(outputs, overrides))
    process.start()
    return process


def log_path(outputs: Path) -> Path:
    """Log of the sweeps that write to a folder."""
    return outputs.with_suffix(".txt")


def kill_after(process: ForkServerProcess, outputs: Path, seconds: float) -> bool:
    """Kill a sweep after a CPU time; returns whether it was still running.

    Time counts from the sweep's first run, since composing and checking its configs takes longer
    than a tiny run. A negative time counts from the start of the process.
    """
    for worked in _work(process, outputs, at_once=seconds < 0):
        if worked >= abs(seconds):
            break
    if not process.is_alive():
        return False
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # killed before it led a group
        process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def undisturbed(forks: ForkServerContext, outputs: Path, overrides: Sequence[str]) -> float:
    """Run a sweep to completion; returns the CPU seconds of its runs."""
    process = start(forks, outputs, overrides)
    seconds = 0.0
    for worked in _work(process, outputs):
        seconds = max(seconds, worked)
    if process.exitcode:
        raise RuntimeError(f"exit code {process.exitcode}, see {log_path(outputs)}")
    return seconds


def _work(process: ForkServerProcess, outputs: Path, at_once: bool = False) -> Iterator[float]:
    """Yield the CPU time since a sweep's first run, repeatedly while it runs."""
    known, begun = _jobs(outputs), 0.0 if at_once else None
    while process.is_alive():
        now = _cpu_time(process.pid)
        if begun is None and _jobs(outputs) > known:
            begun = now
        if begun is not None:
            yield now - begun
        time.sleep(_POLL)


def _jobs(outputs: Path) -> int:
    """Number of runs started by the sweeps that write to a folder."""
    printed = log_path(outputs)
    return printed.read_text().count("\t#") if printed.exists() else 0


def _cpu_time(pid: int | None) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _whole_text(path: Path, *ends: str) -> None:
    if not path.read_text().endswith(ends):
        raise ValueError("cut off")


def _whole_arrays(path: Path) -> None:
    loaded = np.load(path)
    for name in getattr(loaded, "files", ()):
        loaded[name]


READERS: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_text()),
    ".csv": lambda path: (_whole_text(path, "\n"), pd.read_csv(path)),
    ".npz": _whole_arrays,
    ".npy": _whole_arrays,
    ".png": lambda path: Image.open(path).load(),
    ".ckpt": lambda path: torch.load(path, weights_only=True),
    ".yaml": lambda path: _whole_text(path, "\n"),
    ".html": lambda path: _whole_text(path, "</html>", "</html>\n"),
}


def halves(outputs: Path) -> list[str]:
    """Unreadable files; not those that are hidden, logs, or read only on resuming."""
    found = []
    for path in sorted(outputs.rglob("*")):
        parts = path.relative_to(outputs).parts
        hidden = any(part.startswith(".") and part != ".hydra" for part in parts)
        if hidden or path.suffix not in READERS or {"log", "resume"} & set(parts):
            continue
        try:
            READERS[path.suffix](path)
        except Exception as error:
            found.append(f"{'/'.join(parts)}: {error}")
    return found


def complete_records(outputs: Path) -> dict[str, bytes]:
    """Records of complete runs, by path."""
    found = {}
    for path in outputs.glob("runs/*/*/record.json"):
        text = path.read_bytes()
        if json.loads(text)["status"] == "complete":
            found[str(path.relative_to(outputs))] = text
    return found


def differences(outputs: Path, reference: Path) -> list[str]:
    """Files whose content differs from that of the undisturbed sweep, except for times."""
    names = {
        str(path.relative_to(reference))
        for pattern in ("*/record.json", "*/predictions.csv", "*/subjects.csv", "report/*.csv")
        for path in reference.glob(f"runs/*/{pattern}")
        if path.stem not in _MEASURED
    }
    return [
        name
        for name in sorted(names)
        if _comparable(outputs / name) != _comparable(reference / name)
    ]


def _comparable(path: Path) -> Any:
    """Content of a file without times and paths."""
    if not path.is_file():
        return None
    if path.suffix == ".csv":
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        metrics = table.get("metric", pd.Series("", index=table.index))
        return table[~metrics.str.startswith("seconds")].to_csv()
    record = json.loads(path.read_text())
    kept = ("status", "run", "fingerprint", "metrics", "calibration", "baselines", "area")
    return {key: record[key] for key in kept}


def disturbed(
    forks: ForkServerContext,
    outputs: Path,
    overrides: Sequence[str],
    moments: Sequence[float],
    lost: Lost,
) -> None:
    """Run a sweep to completion with kills.

    Args:
        forks: context that starts processes.
        outputs: a new folder.
        overrides: overrides of the sweep.
        moments: CPU seconds after each start, see :func:`kill_after`.
        lost: results are added to it.
    """
    before: dict[str, bytes] = {}
    for moment in moments:
        if not kill_after(start(forks, outputs, overrides), outputs, moment):
            break
        lost.kills += 1
        last = log_path(outputs).read_text().strip().splitlines()[-1:] or ["nothing printed"]
        print(f"kill {lost.kills} after {moment:.2f} s: {_shown(last[0])}", flush=True)
        now = complete_records(outputs)
        lost.records += [name for name, text in before.items() if now.get(name) != text]
        lost.halves += halves(outputs)
        before = now
    process = start(forks, outputs, overrides)
    process.join()
    if process.exitcode:
        lost.different.append(f"exit code {process.exitcode}, see {log_path(outputs)}")
    now = complete_records(outputs)
    lost.records += [name for name, text in before.items() if now.get(name) != text]
    lost.halves += halves(outputs)


def _shown(message: str) -> str:
    """Log message with shortened names of runs."""
    return re.sub(r"(cnn-\w+-folds-s\d)[^ :]*", r"\1", message)[:100]


def main() -> None:
    """Run a sweep undisturbed, then with kills, and print the losses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    drawn = random.Random(given.seed)
    forks, lost, sweeps = context(), Lost(), 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        overrides = (*TINY, *AXES)
        whole = undisturbed(forks, folder / "undisturbed", overrides)
        while lost.kills < given.kills:
            sweeps += 1
            missing = given.kills - lost.kills
            moments = [drawn.uniform(-whole / 20, whole / 4) for _ in range(missing)]
            disturbed(forks, folder / f"killed-{sweeps}", overrides, moments, lost)
            lost.different += differences(folder / f"killed-{sweeps}", folder / "undisturbed")
    print(f"{sweeps} sweeps of 6 runs, seed {given.seed}: {lost}")
    sys.exit(0 if lost.nothing else 1)


if __name__ == "__main__":
    main()
