"""Validation of the command line before any work.

Composes the config of each run as Hydra will, and checks it against the schema and the signatures
of its targets. Hydra then runs the checked configs.
"""

import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from leuk.config import conf_dir
from leuk.config.schema import check_schema
from leuk.config.targets import check_hydra, check_targets, hint
from leuk.errors import ConfigError, ListMeantError

NAMED = ("callbacks", "logger", "explain")
"""Nodes with named objects, to which users may add their own."""

PATHS = {
    "data": ("cache", "root"),
    "extractor": ("run", "weights"),
    "hydra": ("searchpath",),
    "model": ("weights",),
    "": ("images", "outputs", "root", "run"),
}
"""Keys, by node, whose value is a path; a leading ``~`` stands for the home folder."""

_HOME = re.compile(r"""((?:^|[,\[]\s*)["']?)~(?=[/,\]"']|$)""")

OWN_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir")
"""Keys of Hydra that leuk sets from ``outputs`` and ``name``."""

_MISSING = {
    "run": "FOLDER, that of a finished run below outputs/runs/NAME",
    "images": "DIR, a folder of images, one image or a text file with a path per line",
}
"""Suggested values of required keys."""

_FAULTS = (HydraException, OmegaConfBaseException, ValueError, TypeError)
"""Errors of a composition, besides those of YAML."""

RENAMED = {
    "checked_cells": "checked_images",
    "checks.randomised_cells": "checks.randomized_images",
    "checks.sensitivity_cells": "checks.sensitivity_images",
    "data.cells_per_part": "data.images_per_fold",
    "explain_cells": "explain_images",
    "fit.standardise": "fit.standardize",
    "gan.fitting.opponent_rate": "gan.fitting.adversary_rate",
    "gan.fitting.opponent_steps": "gan.fitting.adversary_steps",
    "gan.opponent_widths": "gan.adversary_widths",
    "page_cells": "page_images",
    "split.parts": "split.source_folds",
    "transforms.colour": "transforms.color",
}
"""Former keys and their present names."""

_TERMS = {
    "augmentation": "aug",
    "augmentation.count": "count num_samples",
    "augmentation=class_weights": "class_weight class_weights",
    "data": "dataset dataset_name",
    "data.batch_size": "accumulate_grad_batches train_batch_size",
    "data.batch_size | batch_size": (
        "batch batch_size bs per_device_eval_batch_size per_device_train_batch_size"
    ),
    "data.resolution": "image_size img_size imgsz input_size resolution target_size",
    "data.root | data=cnmc data.root": "root",
    "data.root | data=cnmc data.root | images": "data_dir data_path",
    "data.root | data=cnmc data.root | root": "data_root",
    "data.workers": "dataloader_num_workers n_jobs num_workers workers",
    "explain": "explainer explainers method methods xai",
    "fit.compile": "torch_compile",
    "fit.epochs | gan_fit.epochs": "epochs max_epochs n_epochs num_epochs num_train_epochs",
    "fit.monitor": "metric_for_best_model monitor",
    "fit.patience": "early_stopping early_stopping_patience patience",
    "format": "framework",
    "gan.fitting.adversary_steps": "gan.n_critic",
    "gan.fitting.generator_rate": "gan.learning_rate gan.lr",
    "gan.latent": "gan.latent_dim latent_dim z_dim",
    "gan=wgan gan.fitting.adversary_steps": "n_critic",
    "gan=wgan gan.penalty": "lambda_gp",
    "gan_fit.batch_size": "gan.batch_size",
    "gan_fit.epochs": "gan.epochs",
    "images": "data image",
    "images | data.root | data=cnmc data.root": "image_dir image_path input input_dir source",
    "images | data.root | data=cnmc data.root | outputs": "folder path",
    "logger": "report_to",
    "model": "model_name",
    "model.dropout": "dropout dropout_rate",
    "model.optim.learning_rate | gan.fitting.generator_rate": "learning_rate lr",
    "model.optim.schedule": "scheduler",
    "model.optim.warmup_epochs": "warmup",
    "model.optim.weight_decay": "weight_decay",
    "model=pretrained": "pretrained",
    "model=pretrained model.backbone": "backbone",
    "name": "experiment_name run run_name sweep",
    "outputs": "default_root_dir dir logging_dir out output output_dir save_dir",
    "replace=true | grid.on_mismatch=rerun": "force overwrite overwrite_output_dir",
    "run": "checkpoint checkpoint_path ckpt ckpt_path model model_dir model_path",
    "run | model=pretrained model.weights": "weights weights_path",
    "seed": "manual_seed random_seed random_state seed_everything",
    "split.test": "test_size",
    "split.val": "validation_split",
    "split=subject_kfold split.fold": "fold",
    "split=subject_kfold split.n_folds": "folds n_folds n_splits",
    "test_images": "cells",
    "trainer.accelerator": "accelerator",
    "trainer.devices": "cpus devices",
    "trainer.precision": "amp mixed_precision precision",
    "trainer.precision=16-mixed": "fp16",
    "trainer.precision=bf16-mixed": "bf16",
    "trainer=ddp": "strategy",
    "trainer=gpu": "cuda device gpu",
    "trainer=gpu trainer.devices": "gpus",
}
"""Keys of leuk, and the terms for them in Keras, Lightning, Hugging Face, timm and scikit-learn.

Of several keys, separated by ``|``, the first that the command has is suggested. A term also
matches the last component of a dotted key, except below ``gan``, whose keys are listed in full.
"""

SYNONYMS = {term: keys for keys, terms in _TERMS.items() for term in terms.split()}

_RESUMES = "a stopped run resumes when the same command is started again"
AUTOMATIC = {
    "auto_resume": _RESUMES,
    "checkpoint": _RESUMES,
    "ckpt": _RESUMES,
    "ckpt_path": _RESUMES,
    "criterion": "the model defines the loss",
    "loss": "the model defines the loss",
    "metric": "the report contains all metrics",
    "metrics": "the report contains all metrics",
    "resume": _RESUMES,
    "resume_from": _RESUMES,
    "resume_from_checkpoint": _RESUMES,
}
"""Terms without a key in leuk because no setting is needed, with the reason."""


@dataclass(frozen=True)
class CommandLine:
    """Arguments after ``leuk COMMAND``, parsed as Hydra parses them.

    Attributes:
        overrides: overrides, with the folder of ``--config-dir`` as one.
        multirun: ``-m`` was given.
        runs: False if only help, the config or completions are printed.
        help: None without ``--help``, else the group whose keys to list; may be empty.
    """

    overrides: list[str]
    multirun: bool
    runs: bool
    help: str | None = None

    @classmethod
    def read(cls, command: str, argv: Sequence[str]) -> "CommandLine":
        """Parse the arguments after ``leuk COMMAND``.

        Raises:
            ConfigError: an unknown flag.
        """
        parser = get_args_parser()
        parser.prog = f"leuk {command}"
        args, unknown = parser.parse_known_args(list(argv))
        if args.config_name or args.config_path:
            raise ConfigError(f"leuk {command} has a fixed config; -cn and -cp are not supported")
        if unknown:
            raise ConfigError(f"{unknown[0]}: no such flag; leuk {command} --help lists all")
        shows = args.help or args.hydra_help or args.cfg or args.info or args.shell_completion
        overrides, topic = list(args.overrides), None
        if args.help:
            topics = [text for text in overrides if "=" not in text or text.startswith("group=")]
            overrides = [text for text in overrides if text not in topics]
            topic = topics[0].removeprefix("group=") if topics else ""
        if args.config_dir:
            overrides.append(f'hydra.searchpath=["file://{Path(args.config_dir).resolve()}"]')
        return cls(overrides, bool(args.multirun), not shows, topic)

    def folders(self) -> list[Path]:
        """Config folders of the user, from ``--config-dir`` and ``hydra.searchpath``."""
        texts = [text for text in self.overrides if text.startswith("hydra.searchpath=")]
        try:
            return _search_folders(_parse(texts))
        except ConfigError:  # reported when the overrides are composed
            return []


def expand_home(arguments: Sequence[str]) -> list[str]:
    """Replace a leading ``~`` in the value of each key of :data:`PATHS`.

    Shells do so only at the start of a word, not after ``KEY=``.
    """
    expanded = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        owner, _, last = key.lstrip("+").rpartition(".")
        if equals and last in PATHS.get(owner, ()):
            argument = f"{key}={_HOME.sub(lambda start: start[1] + str(Path.home()), value)}"
        expanded.append(argument)
    return expanded


def with_list(arguments: Sequence[str], key: str) -> list[str]:
    """Replace each value of ``key`` in the arguments with a list of this single value."""
    listed = []
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if equals and name.lstrip("+") == key:
            override = OverridesParser.create().parse_override(argument)
            values = (
                list(override.sweep_string_iterator())
                if override.is_sweep_override()
                else [override.get_value_element_as_str()]
            )
            lists = [text if text.startswith("[") else f"[{text}]" for text in values]
            argument = f"{name}={','.join(lists)}"
        listed.append(argument)
    return listed


def unswept(cfg: DictConfig) -> dict[str, str]:
    """Values by key that the experiment would sweep and the user has not set."""
    given = {text.lstrip("+").partition("=")[0] for text in cfg.hydra.overrides.task}
    params = cfg.hydra.sweeper.params or {}
    return {str(key): str(value) for key, value in params.items() if key not in given}


# --- Composition and checks


def compose_runs(command: str, line: CommandLine) -> list[DictConfig]:
    """Compose and check the config of each job of a command line, in running order.

    Returns:
        One config per job, with its ``hydra`` node.

    Raises:
        ConfigError: an override is misspelled, has the wrong type, or cannot be satisfied.
    """
    with initialize_config_dir(str(conf_dir()), job_name=command, version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        overrides = _parse(line.overrides, loader)
        swept = [o for o in overrides if o.is_sweep_override()]
        if swept and not line.multirun:
            raise ConfigError(
                f"{swept[0].input_line}: several values; add -m to run them all, or write "
                f"{swept[0].key_or_group}=[VALUE,VALUE] for a single list"
            )
        jobs = _jobs(command, overrides, loader) if line.multirun else [line.overrides]
        # Compose all before the checks, which import torch and Lightning.
        composed = [_compose(command, job, loader) for job in jobs]
        return [_checked(cfg) for cfg in composed]


def _parse(texts: Sequence[str], loader: ConfigLoader | None = None) -> list[Override]:
    parser = OverridesParser.create(config_loader=loader)
    parsed = []
    for text in texts:
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            key, equals, value = text.partition("=")
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            quoted = f'{key}="{escaped}"'
            advice = """write KEY=VALUE, and quote a value with special characters: 'KEY="VALUE"'"""
            with suppress(HydraException):
                parser.parse_override(quoted)
                advice = f"quote the value: {shlex.quote(quoted)}" if equals else advice
            raise ConfigError(f"{text}: cannot be read; {advice}") from error
        override.config_loader = loader  # glob(...) lists the options of a group
        parsed.append(override)
    return parsed


def _jobs(command: str, overrides: Sequence[Override], loader: ConfigLoader) -> list[list[str]]:
    """Return the overrides of each job; the user's take precedence over the experiment's sweep."""
    for override in overrides:
        if override.key_or_group == "experiment" and override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line}: each experiment can define its own sweep; run one "
                "leuk command per experiment"
            )
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise ConfigError(f"{override.input_line}: name the values to run: KEY=VALUE,VALUE")
    fixed = [_text(o) for o in overrides if not o.is_sweep_override()]
    params = _compose(command, fixed, loader).hydra.sweeper.params or {}
    swept = _parse([f"{key}={value}" for key, value in params.items()], loader)
    try:
        (jobs,) = BasicSweeper.split_arguments([*swept, *overrides], max_batch_size=None)
    except HydraException as error:
        raise ConfigError(_first_lines(error)) from error
    return [list(job) for job in jobs]


def _compose(command: str, texts: Sequence[str], loader: ConfigLoader) -> DictConfig:
    overrides = _parse(texts, loader)
    for override in overrides:
        key = override.key_or_group
        # Every job needs the keys of the schema and each _target_.
        if override.is_delete() and ("." not in key or key.endswith("._target_")):
            raise ConfigError(f"{_text(override)}: {key} cannot be removed; set another value")
        if key in OWN_FOLDERS:
            advice = "leuk chooses the folder names; set outputs=DIR and name=NAME"
            raise ConfigError(f"{_text(override)}: {advice}")
    try:
        cfg = compose(command, overrides=list(texts), return_hydra_config=True)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"{mark.name}, line {mark.line + 1}" if mark else "a config file"
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        advice = "indent with spaces, not tabs, and write KEY: VALUE"
        raise ConfigError(f"{at}: not YAML: {problem}; {advice}") from error
    except _FAULTS as error:
        raise _diagnosis(command, overrides, loader, error) from error
    for override in overrides:
        if override.is_add() or override.is_force_add():
            _check_added(cfg, override)
    return cfg


def _check_added(cfg: DictConfig, override: Override) -> None:
    """Refuse a key that ``+`` adds to a node whose schema lacks it; Hydra would accept it."""
    parent: Any = cfg
    path = ""
    for key in override.key_or_group.split("."):
        schema = OmegaConf.get_type(parent)
        if not is_dataclass(schema):
            return
        known = [field.name for field in fields(schema)]
        if key not in known and not (parent is cfg and key == "hydra"):
            advice = hint(f"{path}{key}", [f"{path}{name}" for name in known])
            raise ConfigError(f"{_text(override)}: no key {path}{key}; {advice}")
        parent, path = parent._get_node(key), f"{path}{key}."


def _checked(cfg: DictConfig) -> DictConfig:
    """Refuse a config with missing values or with arguments that its targets do not accept."""
    try:
        for key in map(str, cfg):
            if OmegaConf.is_missing(cfg, key):
                raise ConfigError(f"{key} has no value; set it: {key}={_MISSING.get(key, 'VALUE')}")
        # Named objects last: their files are in the run's folder, whose name needs valid nodes.
        for key in sorted(map(str, cfg), key=lambda key: key in (*NAMED, "hydra")):
            node = cfg[key]
            if key == "hydra":
                check_hydra(OmegaConf.to_container(node, resolve=False))
            elif OmegaConf.is_config(node):
                for missing in sorted(OmegaConf.missing_keys(node)):
                    raise ConfigError(f"{missing} has no value; set it: {missing}=VALUE")
                check_targets({key: OmegaConf.to_container(node, resolve=True)})
                for name in map(str, node) if key in NAMED else []:
                    if (one := node[name]) is not None and not (
                        isinstance(one, DictConfig) and "_target_" in one
                    ):
                        advice = "an object needs a _target_; write null to remove it"
                        raise ConfigError(f"{key}.{name}={one}: {advice}")
    except OmegaConfBaseException as error:
        raise ConfigError(_first_lines(error)) from error
    check_schema(cfg)
    return cfg


# --- Advice on overrides that cannot be composed


def _diagnosis(
    command: str, overrides: Sequence[Override], loader: ConfigLoader, error: Exception
) -> ConfigError:
    """Find the override that made the composition fail, and suggest a correction."""
    for override in overrides:
        if override.key_or_group == "hydra.searchpath" and isinstance(override.value(), str):
            return ListMeantError(override.key_or_group, override.value())
    search = [_text(o) for o in overrides if o.key_or_group == "hydra.searchpath"]
    plain = compose(command, overrides=search, return_hydra_config=True)
    groups = {name.partition("@")[0] for name in map(str, plain.hydra.runtime.choices)}
    folders = _search_folders(overrides)
    chosen = []
    for override in overrides:
        group = override.key_or_group
        # Hydra lists the groups of all commands; skip those that this command does not use.
        if group not in groups and not override.is_add():
            continue
        files = [path.stem for folder in folders for path in (folder / group).glob("*.yaml")]
        if not (options := [*loader.get_group_options(group, ObjectType.CONFIG), *files]):
            continue
        chosen.append(override)
        for value in _values(override):
            if value is None and not override.is_delete():
                problem = f"a config group cannot be removed; {hint('', options)}"
                return ConfigError(f"{_text(override)}: {problem}")
            if value is not None and value not in options:
                return ConfigError(f"{_text(override)}: no {group} {value}; {hint(value, options)}")
    try:
        base = compose(command, overrides=[*search, *map(_text, chosen)])
    except _FAULTS as cause:
        paths = [
            folder / override.key_or_group / f"{value}.yaml"
            for override in chosen
            for value in _values(override)
            for folder in folders
        ]
        where = ", ".join(str(path) for path in paths if path.is_file())
        return ConfigError(f"{where}{': ' if where else ''}{_first_lines(cause)}")
    tops = {name for name in groups if "/" not in name}
    known = {*_keys(base, ""), *tops} - {"hydra"}
    for override in overrides:
        key = override.key_or_group
        if override in chosen or key.startswith("hydra."):
            continue
        if key not in known:
            return ConfigError(f"{_text(override)}: {_advice(command, key, base, tops, chosen)}")
        if OmegaConf.is_list(OmegaConf.select(base, key)) and not isinstance(
            override.value(), list | dict | None
        ):
            return ListMeantError(key, override.get_value_element_as_str())
    return ConfigError(_first_lines(error))


def _advice(
    command: str, key: str, base: DictConfig, groups: set[str], chosen: Sequence[Override]
) -> str:
    """Describe an unknown key and suggest the key or the option that was meant."""
    known = {*_keys(base, ""), *groups} - {"hydra"}
    owner, _, word = key.rpartition(".")
    if advice := _translated(key, known):
        return f"no key {key}; {advice}"
    # The option of a group that has the key which the chosen option lacks.
    group = key.split(".")[0]
    kept = [_text(o) for o in chosen if o.key_or_group != group]
    loader = GlobalHydra.instance().config_loader()
    for option in loader.get_group_options(group, ObjectType.CONFIG):
        with suppress(HydraException, OmegaConfBaseException):
            if key in _keys(compose(command, overrides=[*kept, f"{group}={option}"]), ""):
                return f"{key} belongs to {group}={option}; add that"
    if not owner.startswith("gan") and (advice := _translated(word, known)):
        return f"no key {key}; {advice}"
    # Siblings, and keys that are not interpolations.
    siblings = {other for other in known if other.rpartition(".")[0] == owner}
    near = {*_keys(base, "", following=False), *siblings, *groups} - {"hydra"}
    return f"no key {key}; {hint(key, near)}"


def _translated(word: str, known: Collection[str]) -> str:
    """Return advice on a former key or a term of another library, or an empty string."""
    if new := RENAMED.get(word):
        return f"it is called {new} now"
    for meant in SYNONYMS.get(word, "").split(" | "):
        if meant.split("=")[0] in known:
            return f"did you mean {meant}?"
    return AUTOMATIC.get(word, "")


def _search_folders(overrides: Sequence[Override]) -> list[Path]:
    """Return the config folders of ``--config-dir`` and ``hydra.searchpath``."""
    found = [o for o in overrides if o.key_or_group == "hydra.searchpath"]
    paths = [value for override in found for value in _values(override) if value is not None]
    return [Path(path.removeprefix("file://")).expanduser() for path in paths]


def _text(override: Override) -> str:
    return override.input_line or ""


def _values(override: Override) -> list[str | None]:
    value: Any = override.value()
    items = value if isinstance(value, list) else [value]
    return [None if item is None else str(item) for item in items]


def _keys(cfg: DictConfig, prefix: str, following: bool = True) -> Iterator[str]:
    """Yield all dotted keys; without ``following``, skip keys that interpolate another key."""
    for key in map(str, cfg):
        if following or not OmegaConf.is_interpolation(cfg, key):
            yield f"{prefix}{key}"
            child = cfg._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none():
                yield from _keys(child, f"{prefix}{key}.", following)


def _first_lines(error: BaseException) -> str:
    """Return the message of a Hydra or OmegaConf error and its cause, without the key dumps."""
    lines = str(error).strip().splitlines()[:2]
    if error.__cause__ is not None:
        lines += str(error.__cause__).strip().splitlines()[:1]
    text = "; ".join(line.strip() for line in lines if line.strip())
    return text.removeprefix("Error merging override ")
