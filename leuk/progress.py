"""The log of a sweep on the terminal: a line of progress per run, and shared facts once."""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

ONCE = {"once": True}
"""``extra`` of a log line on a fact that holds for all runs of a sweep: only the first is shown.

A text in place of True identifies the fact if the line also names a run."""

PASSING = {"passing": True}
"""``extra`` of a log line on work in progress, which the next line replaces on a terminal."""

_EVERY = 30.0
"""Seconds between lines of work in progress where there is no terminal."""


class Sweep:
    """Runs of a command in this process.

    Args:
        total: number of runs of the command.
    """

    def __init__(self, total: int = 1) -> None:
        self.total, self.number, self.done = total, 0, 0
        self.seen: set[str] = set()
        self.started, self.shown = time.perf_counter(), 0.0

    @contextmanager
    def run(self, number: int) -> Iterator[None]:
        """Show the log lines of a run; Hydra has just set up its log."""
        self.number = number
        root = logging.getLogger()
        for handler in list(root.handlers):
            if type(handler) is logging.StreamHandler:
                root.removeHandler(handler)
                root.addHandler(Terminal(handler.stream, self, handler.formatter))
        yield
        self.done += 1

    @property
    def left(self) -> str:
        """Estimate of the remaining time of the sweep, from the runs done."""
        if not self.done:
            return ""
        seconds = (time.perf_counter() - self.started) / self.done * (self.total - self.done)
        return f", about {seconds / 60:.0f} min left"


class Terminal(logging.StreamHandler[TextIO]):
    """Handler that shows a run's number, replaces lines in progress, and shows facts once.

    Args:
        stream: the terminal, or a file, which gets no control characters.
        sweep: runs of the command.
        formatter: formatter of the lines.
    """

    def __init__(self, stream: TextIO, sweep: Sweep, formatter: logging.Formatter | None) -> None:
        super().__init__(stream)
        self.sweep = sweep
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record; as of any handler, an error such as a closed stream stops nothing."""
        try:
            self._show(record)
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)

    def _show(self, record: logging.LogRecord) -> None:
        sweep, fields = self.sweep, dict[str, Any](record.__dict__)
        text, passing = record.getMessage(), fields.get("passing", False)
        if once := fields.get("once", False):
            fact = text if once is True else once
            if fact in sweep.seen:
                return
            sweep.seen.add(fact)
        if passing and not self.stream.isatty():
            if time.perf_counter() - sweep.shown < _EVERY:
                return
            sweep.shown = time.perf_counter()
        if sweep.total > 1 and once is not True:
            text = f"[{sweep.number + 1}/{sweep.total}{sweep.left}] {text}"
        line = self.format(logging.makeLogRecord(fields | {"msg": text, "args": ()}))
        if self.stream.isatty():
            if passing:
                line = line[: shutil.get_terminal_size().columns - 1]
            line = f"\r\x1b[K{line}"
        self.stream.write(line if passing and self.stream.isatty() else f"{line}\n")
        self.flush()
