"""``leuk COMMAND [overrides]``: checks the command line, lets Hydra run it, tells how it went."""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, cast

import hydra
from omegaconf import DictConfig

from leuk.config import conf_dir
from leuk.config.nearest import hint
from leuk.config.preflight import (
    CommandLine,
    compose_cells,
    expand_home,
    unswept,
    with_list,
)
from leuk.config.schema import register
from leuk.errors import ConfigError, LeukError, ListMeantError
from leuk.runs.disk import told_of_disk
from leuk.runs.heap import keep_heap
from leuk.runs.loading import load
from leuk.runs.resolvers import register_resolvers
from leuk.runs.stopping import StoppedError, leaves_on_signals, say_stopped

COMMANDS = {
    "data": "audit a folder of cells: counts, faults, linked subjects",
    "synthesize": "fit a GAN, write its cells and say how good they are; -m for several",
    "train": "fit, test and explain cells of the grid; -m a sweep, --dry-run what it would do",
    "explain": "explain a finished cell, or images with it; -m for several",
    "predict": "judge new cells with a finished cell; -m for several",
    "export": "write a finished cell's classifier for use without leuk; -m for several",
    "report": "print and write the tables of a sweep",
}

DRY = "--dry-run"
"""Our own flag; Hydra does not see it."""

USAGE = """leuk: does adding GAN-made cells help a leukemia classifier, and why did it decide so?

usage: leuk COMMAND [overrides]

{commands}

leuk COMMAND --help lists what can be overridden, and how. leuk --version prints the version. To
complete commands, groups and keys with the tab key in bash: eval "$(leuk -sc install=bash)"
"""


class Command(Protocol):
    """What a module in ``leuk.commands`` gives."""

    def check(self, cells: list[DictConfig]) -> None:
        """Refuse what cannot work, before anything is written."""

    def run(self, cfg: DictConfig) -> None:
        """Do one job; Hydra calls it."""

    def finish(self, cells: list[DictConfig]) -> int:
        """After all jobs: say where the results are, and return the exit code."""


class Planned(Protocol):
    """What a command gives beside that knows what it would do."""

    def dry_run(self, cells: list[DictConfig]) -> int:
        """Say what would be done, and write nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``leuk`` with ``argv`` (of the process by default) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _quiet()
    try:
        with leaves_on_signals():
            code = _dispatch(arguments)
            # Here, where a closed pipe still ends the process in order.
            sys.stdout.flush()
            return code
    except StoppedError as stop:
        return say_stopped(stop)
    except LeukError as error:
        print(f"leuk: {error}", file=sys.stderr)
        return 2


def _dispatch(arguments: list[str]) -> int:
    if _completes(arguments):
        return _complete(arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        listed = "\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items())
        print(USAGE.format(commands=listed))
        return 0
    if arguments[0] in ("-V", "--version", "version"):
        print(f"leuk {version('leuk')}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise LeukError(f"no command {name}; {hint(name, COMMANDS)}")
    _register()
    rest = expand_home(rest)
    if dry := DRY in rest:
        rest = [argument for argument in rest if argument != DRY]
    # Hydra reads overrides on one side of a flag only.
    with_value = [number for number, text in enumerate(rest) if text in ("--config-dir", "-cd")]
    flags = {number for number, text in enumerate(rest) if text.startswith("-")}
    flags |= {number + 1 for number in with_value}
    rest = [text for _, text in sorted(enumerate(rest), key=lambda pair: pair[0] not in flags)]
    line = CommandLine.read(name, rest)
    if dry and (name != "train" or not line.runs):
        raise ConfigError(f"{DRY}: leuk train has it, alone; leuk {name} does what it says")
    if not line.runs:
        _hydra(name, f"leuk {name}", rest, _never)
        return 0
    return _run(name, line, rest, dry)


def _run(name: str, line: CommandLine, rest: list[str], dry: bool) -> int:
    # Before the command is loaded, which brings torch and Lightning: a slip is found in a second.
    try:
        cells = compose_cells(name, line)
    except ListMeantError as error:
        listed = with_list(rest, error.key)
        if listed == rest:  # in a config file, whose values are not changed
            raise
        return _run(name, CommandLine.read(name, listed), listed, dry)
    if not line.multirun and (swept := unswept(cells[0])):
        axes = ", ".join(f"{key}={values}" for key, values in swept.items())
        print(
            f"leuk: one run of the experiment's sweep over {axes}; add -m for all runs",
            file=sys.stderr,
        )
    command = cast(Command, load(f"leuk.commands.{name}")[0])
    if dry:
        return cast(Planned, command).dry_run(cells)
    with told_of_disk(_outputs(cells[0])):
        command.check(cells)
        try:
            _hydra(name, f"leuk {name}", rest, command.run)
        except SystemExit as end:
            # Hydra's end where a job could not be run at all, such as one that a cluster killed;
            # why is printed, and the other jobs have their results. A stop leaves no time for more.
            if line.multirun and not isinstance(end, StoppedError):
                command.finish(cells)
            raise
        return command.finish(cells)


def _register() -> None:
    """Make known to Hydra and OmegaConf what our configs name."""
    register()
    register_resolvers()


def _outputs(cfg: DictConfig) -> Path:
    return Path(str(cfg.get("outputs") or cfg.get("run") or Path.cwd()))


def _hydra(name: str, program: str, rest: list[str], task: Callable[[DictConfig], None]) -> None:
    """Hand the command line to Hydra, as if ``program`` were one of its own with one command.

    Raises:
        LeukError: the first that ``task`` raised; Hydra would print its traceback and end here.
    """
    errors: list[LeukError] = []
    here = os.getpid()

    def guarded(cfg: DictConfig) -> None:
        # Here, not in main alone: a launcher runs this in a process of its own.
        _quiet()
        keep_heap()
        try:
            with leaves_on_signals(), told_of_disk(_outputs(cfg)):
                task(cfg)
        except LeukError as error:
            # In a launcher's process, Hydra alone can carry it here.
            if os.getpid() != here:
                raise
            errors.append(error)

    before = sys.argv
    sys.argv = [program, *rest]
    try:
        hydra.main(config_path=str(conf_dir()), config_name=name, version_base="1.3")(guarded)()
    finally:
        sys.argv = before
    if errors:
        raise errors[0]


def _completes(arguments: list[str]) -> bool:
    return bool(arguments) and arguments[0] in ("-sc", "--shell-completion", "--shell_completion")


def _complete(arguments: list[str]) -> int:
    """Tab completion: the first word is a command, the others are Hydra's to complete."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    names_command = len(words) > 2 or (len(words) == 2 and line.endswith(" "))
    if any("query" in argument for argument in arguments) and not names_command:
        start = words[1] if len(words) > 1 else ""
        print(" ".join(name for name in COMMANDS if name.startswith(start)))
        return 0
    name = words[1] if names_command and words[1] in COMMANDS else "train"
    if names_command:
        os.environ["COMP_LINE"] = " ".join(["leuk", *words[2:]]) + " " * line.endswith(" ")
    _register()
    _hydra(name, "leuk", arguments, _never)
    return 0


def _never(cfg: DictConfig) -> None:
    """In place of a command where Hydra only shows something: loading one takes seconds."""
    raise AssertionError("nothing was to be run")


def _quiet() -> None:
    """Silence what a user can do nothing about; our own words go through logging."""
    os.environ.setdefault("PYTORCH_DISABLE_LIGHTNING_TIPS", "1")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # Lightning's hint wherever SLURM is installed, whether or not a job of it runs this.
    warnings.filterwarnings("ignore", message="The `srun` command is available")
    # A start after a stop finds what it goes on from.
    warnings.filterwarnings("ignore", message="(Checkpoint|Experiment logs) directory .* not empty")
    # The averaged generator of a GAN stays in evaluation mode on purpose.
    warnings.filterwarnings("ignore", message="Found .* in eval mode at the start of training")
    warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)`.*")


if __name__ == "__main__":
    sys.exit(main())
