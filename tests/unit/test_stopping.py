"""Processes: Ctrl-C and SIGTERM end all of them, no incomplete files remain, memory is reused."""

import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from leuk.errors import LeukError
from leuk.report.workers import begun, spread
from leuk.runs.process import StoppedError, leaves_on_signals
from leuk.store import whole_file

pytestmark = pytest.mark.usefixtures("in_front")


def test_terminal_interrupt_does_not_end_data_loaders() -> None:
    loader = DataLoader(TensorDataset(torch.arange(40)), num_workers=2, batch_size=4)
    with leaves_on_signals():
        batches = iter(loader)
        seen = [next(batches)]
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGINT)
        seen += list(batches)
    assert torch.cat([rows for (rows,) in seen]).tolist() == list(range(40))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_removes_temporary_files_of_workers(number: int, tmp_path: Path) -> None:
    def write(name: str) -> None:
        with whole_file(tmp_path / name) as temporary:
            temporary.write_text("a part")
            time.sleep(60)

    def stop() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop).start()
    with pytest.raises(StoppedError) as stopped, leaves_on_signals():
        spread(write, ["one.txt", "two.txt", "three.txt"], 2)
    assert stopped.value.code == 128 + number
    assert not list(tmp_path.iterdir())
    assert not multiprocessing.active_children()


def test_killed_worker_is_reported() -> None:
    with pytest.raises(LeukError, match=r"was killed.*free memory"):
        spread(lambda item: os.kill(os.getpid(), signal.SIGKILL), range(4), 2)


def test_worker_killed_while_sending_is_reported() -> None:
    def work(item: int) -> bytes:
        time.sleep(0.5)  # so that both workers get an item
        return bytes(10**7)

    with begun(work, range(2), 2) as results:
        time.sleep(1.5)  # until both wait for a reader: a pipe holds far less
        sending = [child.pid or 0 for child in multiprocessing.active_children()]
        assert [state_of(process) for process in sending] == ["S", "S"]
        os.kill(sending[0], signal.SIGKILL)
        with pytest.raises(LeukError, match="was killed"):
            results()
    assert not multiprocessing.active_children()


def test_unused_workers_are_ended() -> None:
    with pytest.raises(ValueError, match="elsewhere"), begun(lambda _: time.sleep(60), "ab", 2):
        raise ValueError("something went wrong elsewhere")
    with begun(lambda item: bytes(10**7), range(4), 2):
        pass
    assert not multiprocessing.active_children()


ORPHANS = """
import os, time
from leuk.report.workers import spread

def wait(item):
    print(os.getpid(), flush=True)
    time.sleep(60)

spread(wait, range(2), 2)
"""


def test_workers_do_not_outlive_their_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    return state_of(process) not in ("", "Z")


def state_of(process: int) -> str:
    """State of a process as in ``ps``; empty if it does not exist."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


FAULTS = """
import resource, sys
import numpy as np
from leuk.runs.process import keep_heap
if sys.argv[1] == "kept":
    assert keep_heap()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**23)  # 64 MiB, freed at once
before = faults()
for _ in range(10):
    np.ones(2**23)
print(faults() - before)
"""


def page_faults(heap: str) -> int:
    """Count the page faults of ten blocks of 64 MiB, each used and freed, in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, heap], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc's heap")
def test_freed_block_is_reused_without_system_calls():
    assert page_faults("kept") < 0.01 * page_faults("default")
