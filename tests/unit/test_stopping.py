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
def test_a_stop_removes_temporary_files(number: int, tmp_path: Path) -> None:
    def stop() -> None:
        while not list(tmp_path.iterdir()):
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    def write() -> None:
        with whole_file(tmp_path / "one.txt") as temporary:
            temporary.write_text("a part")
            time.sleep(60)

    threading.Thread(target=stop).start()
    with pytest.raises(StoppedError) as stopped, leaves_on_signals():
        write()
    assert stopped.value.code == 128 + number
    assert not list(tmp_path.iterdir())


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
