"""Entry point ``leuk COMMAND [overrides]``: checks the command line and runs it with Hydra."""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from leuk.config import conf_dir
from leuk.config.help import help_text
from leuk.config.options import register_options
from leuk.config.preflight import CommandLine, compose_runs, expand_home, unswept, with_list
from leuk.config.schema import register
from leuk.config.targets import hint
from leuk.errors import ConfigError, LeukError, ListMeantError
from leuk.progress import Sweep
from leuk.runs.process import StoppedError, keep_heap, leaves_on_signals, log_stop
from leuk.runs.run import register_resolvers
from leuk.runs.state import disk_errors

COMMANDS = {
    "data": "audit an image folder: counts, problems, linked subjects",
    "synthesize": "train a GAN, write synthetic images and measure their quality; -m for several",
    "train": "train, test and explain a classifier; -m runs a sweep, --dry-run shows the plan",
    "explain": "explain the test images of a finished run, or new images; -m for several",
    "predict": "classify new images with a finished run; -m for several",
    "export": "write the classifier of a finished run for use without leuk; -m for several",
    "report": "print and write the tables of a sweep",
}

DRY = "--dry-run"
"""Flag of leuk, removed before Hydra parses the command line."""

USAGE = """leuk: compare GAN augmentations for leukemia classifiers and explain the predictions

usage: leuk COMMAND [overrides]

{commands}

leuk COMMAND --help lists its config groups, leuk COMMAND --help GROUP the keys of one.
leuk --version prints the version.
Tab completion in bash: eval "$(leuk -sc install=bash)"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``leuk`` with ``argv`` (``sys.argv[1:]`` by default) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _quiet()
    try:
        with leaves_on_signals():
            code = _dispatch(arguments)
            # Flush here, where a closed pipe is still handled like a signal.
            sys.stdout.flush()
            return code
    except StoppedError as stop:
        return log_stop(stop)
    except LeukError as error:
        print(f"leuk: {error}", file=sys.stderr)
        return 2


_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-dir", "-cd")
"""Hydra's flags that take a value."""


def _dispatch(arguments: list[str]) -> int:
    if arguments and arguments[0] in ("-sc", "--shell-completion", "--shell_completion"):
        return _complete(arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        listed = "\n".join(f"  {name:<10} {summary}" for name, summary in COMMANDS.items())
        print(USAGE.format(commands=listed))
        return 0
    if arguments[0] in ("-V", "--version", "version"):
        print(f"leuk {version('leuk')}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise LeukError(f"no command {name}; {hint(name, COMMANDS)}")
    register()
    register_resolvers()
    rest = expand_home(rest)
    if dry := DRY in rest:
        rest = [argument for argument in rest if argument != DRY]
    # Hydra accepts overrides only after all flags, or only before.
    with_value = [number for number, text in enumerate(rest) if text in _WITH_VALUE]
    flags = {number for number, text in enumerate(rest) if text.startswith("-")}
    flags |= {number + 1 for number in with_value}
    rest = [text for _, text in sorted(enumerate(rest), key=lambda pair: pair[0] not in flags)]
    line = CommandLine.read(name, rest)
    for folder in line.folders():
        register_options(folder)
    if dry and (name != "train" or not line.runs):
        raise ConfigError(f"{DRY}: only available for leuk train; run leuk {name} without it")
    if line.help is not None:
        print(help_text(name, COMMANDS[name], line.overrides, line.help))
        return 0
    if not line.runs:
        _hydra(name, f"leuk {name}", rest, _never)
        return 0
    return _run(name, line, rest, dry)


def _run(name: str, line: CommandLine, rest: list[str], dry: bool) -> int:
    # Compose before importing the command: torch and Lightning take seconds to load.
    try:
        configs = compose_runs(name, line)
    except ListMeantError as error:
        listed = with_list(rest, error.key)
        if listed == rest:  # the value is in a config file, which stays as it is
            raise
        return _run(name, CommandLine.read(name, listed), listed, dry)
    if not line.multirun and (swept := unswept(configs[0])):
        axes = ", ".join(f"{key}={values}" for key, values in swept.items())
        print(
            f"leuk: a single run of the experiment's sweep over {axes}; add -m for all runs",
            file=sys.stderr,
        )
    # check(configs) refuses jobs that cannot succeed, before anything is written; run(cfg) does a
    # job; finish(configs) reports the results and returns the exit code, as does dry_run(configs).
    command: Any = import_module(f"leuk.commands.{name}")
    if dry:
        return int(command.dry_run(configs))
    with disk_errors(_outputs(configs[0])):
        command.check(configs)
        try:
            _hydra(name, f"leuk {name}", rest, command.run, len(configs))
        except SystemExit as end:
            # Hydra exits if a job did not run at all, for example if the cluster killed it. The
            # reason is printed; the other jobs have results. After a stop signal, leave at once.
            if line.multirun and not isinstance(end, StoppedError):
                command.finish(configs)
            raise
        return int(command.finish(configs))


def _outputs(cfg: DictConfig) -> Path:
    return Path(str(cfg.get("outputs") or cfg.get("run") or Path.cwd()))


def _hydra(
    name: str,
    program: str,
    rest: list[str],
    task: Callable[[DictConfig], None],
    jobs: int = 1,
) -> None:
    """Run ``task`` with each of ``jobs`` composed configs through ``hydra.main``.

    Raises:
        LeukError: the first error of ``task``; Hydra would print its traceback and exit.
    """
    errors: list[LeukError] = []
    main_process = os.getpid()
    sweep = Sweep(jobs)

    def guarded(cfg: DictConfig) -> None:
        # Repeat the setup of main, because launchers run this function in other processes.
        _quiet()
        keep_heap()
        try:
            number = HydraConfig.get().job.num if jobs > 1 else 0
            with leaves_on_signals(), disk_errors(_outputs(cfg)), sweep.run(number):
                task(cfg)
        except LeukError as error:
            # From a launcher's process, only Hydra can transfer the error.
            if os.getpid() != main_process:
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


def _complete(arguments: list[str]) -> int:
    """Complete the first word as a command and let Hydra complete the others."""
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
    register()
    register_resolvers()
    _hydra(name, "leuk", arguments, _never)
    return 0


def _never(cfg: DictConfig) -> None:
    """Stand in as the task if Hydra only prints, to save the slow import of the command."""
    raise AssertionError("Hydra ran a task although it should only print")


def _quiet() -> None:
    """Silence hints and warnings of libraries that users cannot act on."""
    os.environ.setdefault("PYTORCH_DISABLE_LIGHTNING_TIPS", "1")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # Lightning prints this wherever SLURM is installed, even outside of jobs.
    warnings.filterwarnings("ignore", message="The `srun` command is available")
    # An option with the defaults of its class is merged with the user's file of the same name.
    warnings.filterwarnings("ignore", message=r"\s*'.*' is validated against ConfigStore schema")
    # A resumed run finds its own checkpoints.
    warnings.filterwarnings("ignore", message="(Checkpoint|Experiment logs) directory .* not empty")
    # The averaged generator of a GAN is in evaluation mode on purpose.
    warnings.filterwarnings("ignore", message="Found .* in eval mode at the start of training")
    warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)`.*")


if __name__ == "__main__":
    sys.exit(main())
