"""Identity of a run from its composed config, folders of its results, and ``${leuk...}`` resolvers.

Nothing here imports torch, which takes seconds, before a resolver needs it.
"""

import json
from collections.abc import Callable, Container, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from leuk.config import conf_dir
from leuk.config.targets import instantiate
from leuk.runs.record import LEAKY, Record, RunId, short_name
from leuk.store import MissingArtifactError, digest, read_only

AXES = ("model", "augmentation", "split")
"""Config groups that are components of a run's name."""

SYNTHESIS_AXES = ("gan", "split")
"""Config groups that are components of the name of a set of synthetic images."""

NEUTRAL_GROUPS = ("trainer",)
"""Config groups whose choice does not change results, although some of their keys can."""

NEUTRAL = (
    "hydra",
    "experiment",
    "outputs",
    "name",
    "replace",
    "grid",
    "logger",
    "explain",
    "explain_images",
    "checked_images",
    "explain_background",
    "checks",
    "gan_fit.sample_every",
    "gan_fit.checkpoint_every",
    "data.root",
    "data.workers",
    "data.cache",
    "fit.compile",
    "callbacks.progress",
    "callbacks.tf32",
    "callbacks.checkpoint.dirpath",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.strategy",
    "trainer.enable_progress_bar",
)
"""Keys that do not change results, only their location or the way to compute them."""

UNSTATED = ("data.frame", "data.pixel_size")
"""Keys that do not count as settings if they are null."""


def run_id_of(cfg: DictConfig, hydra_cfg: DictConfig) -> RunId:
    """Identify the run that a config describes; ``hydra_cfg`` is its ``hydra`` node."""
    axes = {axis: str(hydra_cfg.runtime.choices[axis]) for axis in AXES}
    return RunId(
        **axes,
        kind=cfg.augmentation.kind,
        leaky=bool(instantiate(cfg.split).leaky),
        fold=cfg.split.get("fold", 0),
        seed=int(cfg.seed),
        settings=_settings(cfg, hydra_cfg, AXES),
    )


def synthesis_name(cfg: DictConfig, hydra_cfg: DictConfig) -> str:
    """Name of a set of synthetic images, ``<gan>-<split>-s<seed>[-<settings>]``."""
    choices = hydra_cfg.runtime.choices
    split = f"{choices.split}{LEAKY if instantiate(cfg.split).leaky else ''}"
    settings = short_name(_settings(cfg, hydra_cfg, SYNTHESIS_AXES), cfg.split.get("fold", 0))
    return "-".join(filter(None, (choices.gan, split, f"s{cfg.seed}", settings)))


def _settings(cfg: DictConfig, hydra_cfg: DictConfig, axes: Sequence[str]) -> dict[str, Any]:
    """Collect the overrides that change results and differ from the experiment's values.

    Seed and fold, which the run names itself, are omitted.
    """
    parsed = OverridesParser.create().parse_overrides(list(hydra_cfg.overrides.task))
    named = {*axes, *NEUTRAL_GROUPS, "seed", "experiment"}
    keys = {o.key_or_group for o in parsed} - {*named, "split.fold"}
    candidates = sorted(key for key in keys if not is_neutral(key, cfg))
    if not candidates:
        return {}
    command, groups = str(hydra_cfg.job.config_name), hydra_cfg.runtime.choices
    # Folders with the user's own options, from --config-dir or hydra.searchpath.
    folders = [
        f"file://{Path(source.path).resolve()}"
        for source in hydra_cfg.runtime.config_sources
        if source.schema == "file" and Path(source.path).resolve() != conf_dir().resolve()
    ]
    search = (f"hydra.searchpath={json.dumps(folders)}",) if folders else ()

    def base_with(chosen: Container[str]) -> DictConfig:
        kept = [o.input_line or "" for o in parsed if o.key_or_group in chosen]
        return _base(command, (*search, *kept))

    # Compare a group with the default choice, and a key with its value under the chosen groups.
    plain, grouped = base_with(named), base_with({*named, *groups})
    settings = {}
    for key in candidates:
        if key in groups:
            now, before = groups[key], plain.hydra.runtime.choices.get(key)
        else:
            now, before = OmegaConf.select(cfg, key), OmegaConf.select(grouped, key)
        if now != before:
            settings[key] = OmegaConf.to_container(now) if OmegaConf.is_config(now) else now
    return settings


@cache
def _base(command: str, overrides: tuple[str, ...]) -> DictConfig:
    """Compose a command's config with these overrides only."""
    if GlobalHydra.instance().is_initialized():
        return compose(command, overrides=list(overrides), return_hydra_config=True)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(command, overrides=list(overrides), return_hydra_config=True)


def uses_gan(cfg: DictConfig) -> bool:
    """Return True if the run's augmentation uses a GAN."""
    return bool(cfg.augmentation.kind == "gan")


def is_neutral(key: str, cfg: DictConfig) -> bool:
    """Return True if a dotted key, or one above it, does not change this run's results."""
    names = NEUTRAL if uses_gan(cfg) else (*NEUTRAL, "gan", "gan_fit")
    return any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in names)


def initial_record(cfg: DictConfig, hydra_cfg: DictConfig) -> Record:
    """Create the initial record of a run."""
    settings = settings_of(cfg)
    return Record(run_id_of(cfg, hydra_cfg), digest(settings), settings=settings)


def listing_of(cfg: DictConfig) -> str | None:
    """Digest of the list of image files; None for phantom images, which the settings determine."""
    try:
        with read_only():
            listing: str = instantiate(cfg.data, split=instantiate(cfg.split)).listing()
            return listing
    except MissingArtifactError:
        return None


def settings_of(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings that change results, as plain nested values."""
    values = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(values, dict)
    return _without_neutral(values, "", cfg)


def _without_neutral(values: dict[Any, Any], prefix: str, cfg: DictConfig) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        # Runs from before these keys existed keep their fingerprints.
        if is_neutral(path, cfg) or (path in UNSTATED and value is None):
            continue
        if isinstance(value, dict):
            value = _without_neutral(value, f"{path}.", cfg)
        kept[str(key)] = value
    return kept


def with_hydra(root: DictConfig) -> tuple[DictConfig, DictConfig]:
    """Return a config and its ``hydra`` node, which Hydra removes before it calls the task."""
    return root, root.hydra if "hydra" in root else current_hydra()


def choice_of(group: str, cfg: DictConfig) -> str:
    """Chosen option of a config group."""
    return str(with_hydra(cfg)[1].runtime.choices[group])


def current_hydra() -> DictConfig:
    """Return the ``hydra`` node of the current job."""
    return cast(DictConfig, HydraConfig.get())


# --- Folders and paths


def folder_of(cfg: DictConfig, hydra_cfg: DictConfig) -> Path:
    """Folder of a run, ``<outputs>/runs/<name>/<run name>``."""
    return sweep_of(cfg) / run_id_of(cfg, hydra_cfg).folder


def sweep_of(cfg: DictConfig) -> Path:
    """Folder of the sweep, ``<outputs>/runs/<name>``."""
    return Path(str(cfg.outputs)) / "runs" / str(cfg.name)


def synthesis_folder(cfg: DictConfig, hydra_cfg: DictConfig) -> Path:
    """Folder of a set of synthetic images, ``<outputs>/synthetic/<name>/<synthesis name>``."""
    return Path(str(cfg.outputs)) / "synthetic" / str(cfg.name) / synthesis_name(cfg, hydra_cfg)


def predictions_folder(cfg: DictConfig) -> Path:
    """Folder of predictions, ``<outputs>/predictions/<name>/<run>``."""
    return Path(str(cfg.outputs)) / "predictions" / str(cfg.name) / resolved(cfg.run).name


def export_folder(cfg: DictConfig) -> Path:
    """Folder of an exported model, ``<outputs>/exports/<name>/<run>/<format>``."""
    run = resolved(cfg.run).name
    return Path(str(cfg.outputs)) / "exports" / str(cfg.name) / run / str(cfg.format)


def resolved(path: str) -> Path:
    """Resolve a path: absolute, with ``~`` expanded and symbolic links followed."""
    return Path(str(path)).expanduser().resolve()


def source_paths(cfg: DictConfig, *keys: str) -> dict[str, str]:
    """Full paths of inputs in a config, by key; stored with results to identify their origin."""
    return {key: str(resolved(cfg[key])) for key in keys}


# --- Values for configs, such as ``${leuk.folder:}``


def register_resolvers() -> None:
    """Register the resolvers with OmegaConf."""
    resolvers: dict[str, Callable[..., Any]] = {
        "leuk.run": lambda *, _root_: run_id_of(*with_hydra(_root_)).folder,
        "leuk.folder": lambda *, _root_: str(folder_of(*with_hydra(_root_))),
        "leuk.synthesis": lambda *, _root_: str(synthesis_folder(*with_hydra(_root_))),
        "leuk.synthesis_name": lambda *, _root_: synthesis_name(*with_hydra(_root_)),
        "leuk.choice": lambda group, *, _root_: choice_of(group, _root_),
        "leuk.stem": _stem,
        "leuk.sweep": lambda run: resolved(run).parent.name,
        "leuk.precision": _later("precision_for"),
        "leuk.device": _later("device_for"),
        "leuk.channels_last": _later("gains_from_channels_last"),
        "leuk.jobs": _later("jobs_at_once"),
        "leuk.batch": lambda *, _root_: _later("batch_of")(*with_hydra(_root_)),
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def _stem(path: str) -> str:
    """Name of a folder, or of a file without its suffix."""
    full = resolved(path)
    return full.name if full.is_dir() else full.stem


def _later(name: str) -> Callable[..., Any]:
    """Return a function of ``leuk.runs.trainer``, imported when called."""

    def call(*arguments: Any) -> Any:
        return getattr(import_module("leuk.runs.trainer"), name)(*arguments)

    return call
