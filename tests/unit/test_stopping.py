"""Ctrl-C and SIGTERM with forked processes: all end, and no incomplete files remain."""

import multiprocessing
import os
import signal
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
