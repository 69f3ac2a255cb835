"""The log of a sweep on a terminal and in a file."""

import io
import logging
from collections.abc import Iterator

import pytest

from leuk.progress import ONCE, PASSING, Sweep

log = logging.getLogger("leuk.test")


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[Screen, io.StringIO])
def stream(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """Terminal or file that gets the log."""
    stream: io.StringIO = request.param()
    root, level = logging.getLogger(), log.level
    before, root.handlers = root.handlers, [logging.StreamHandler(stream)]
    log.setLevel(logging.INFO)
    yield stream
    log.setLevel(level)
    root.handlers = before


def test_runs_are_numbered_and_facts_shown_once(stream: io.StringIO) -> None:
    sweep = Sweep(3)
    for number in range(3):
        with sweep.run(number):
            log.info("%d stray files", 4, extra=ONCE)
            log.warning("run-%d: black images", number, extra={"once": "black images"})
            for epoch in range(2):
                log.info("epoch %d", epoch, extra=PASSING)
            log.info("run-%d: done", number)
    text = stream.getvalue().replace("\r\x1b[K", "")
    assert text.count("4 stray files") == text.count("black images") == 1
    assert "[1/3] run-0: done\n" in text
    assert "[3/3, about 0 min left] run-2: done\n" in text
    if stream.isatty():
        assert text.count("epoch") == 6
        assert "epoch 1\n" not in text
    else:
        assert "\x1b" not in stream.getvalue()
        assert text.count("epoch") == 1  # at most one line in 30 seconds


def test_a_single_run_has_no_number(stream: io.StringIO) -> None:
    with Sweep().run(0):
        log.info("run: done")
    assert stream.getvalue().endswith("run: done\n")
    assert "[1" not in stream.getvalue()
