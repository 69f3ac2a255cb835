"""From a composed config to the cell it describes, its folder and its fingerprint."""

import json
from collections.abc import Container, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from leuk.config import conf_dir
from leuk.config.targets import instantiate
from leuk.grid.cell import LEAKY, Cell, sweep_folder, variant_of
from leuk.grid.record import Record
from leuk.store.digest import digest

AXES = ("model", "augmentation", "split")
"""Config groups that a cell's identity names by themselves."""

SYNTHESIS_AXES = ("gan", "split")
"""The same, of a set of made cells."""

NEUTRAL_GROUPS = ("trainer",)
"""Config groups whose choice alone changes no result; single keys of theirs may."""

NEUTRAL = (
    "hydra",
    "experiment",
    "outputs",
    "name",
    "grid",
    "logger",
    "explain",
    "explain_cells",
    "checked_cells",
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
"""Keys that change where results go or how they are made, but not the results."""


UNSTATED = ("data.frame", "data.pixel_size")
"""Keys that are no setting where they are null."""


def cell_of(cfg: DictConfig, hydra_cfg: DictConfig) -> Cell:
    """The cell a config describes.

    Args:
        cfg: composed config, with or without its ``hydra`` node.
        hydra_cfg: the ``hydra`` node.
    """
    choices = hydra_cfg.runtime.choices
    axes = {axis: str(choices[axis]) for axis in AXES}
    if instantiate(cfg.split).leaky:
        axes["split"] += LEAKY
    return Cell(**axes, seed=int(cfg.seed), variant=variant_of(_settings(cfg, hydra_cfg, AXES)))


def synthesis_name(cfg: DictConfig, hydra_cfg: DictConfig) -> str:
    """``<gan>-<split>-s<seed>[-<variant>]``, the folder of one GAN's cells."""
    choices = hydra_cfg.runtime.choices
    split = f"{choices.split}{LEAKY if instantiate(cfg.split).leaky else ''}"
    variant = variant_of(_settings(cfg, hydra_cfg, SYNTHESIS_AXES))
    return "-".join(part for part in (choices.gan, split, f"s{cfg.seed}", variant) if part)


def synthesis_folder(cfg: DictConfig, hydra_cfg: DictConfig) -> Path:
    """``<outputs>/synthetic/<name>/<gan>-<split>-s<seed>[-<variant>]``."""
    return Path(str(cfg.outputs)) / "synthetic" / str(cfg.name) / synthesis_name(cfg, hydra_cfg)


def _settings(cfg: DictConfig, hydra_cfg: DictConfig, axes: Sequence[str]) -> dict[str, Any]:
    """Overrides that change results and differ from what the experiment gives without them."""
    parsed = OverridesParser.create().parse_overrides(list(hydra_cfg.overrides.task))
    named = {*axes, *NEUTRAL_GROUPS, "seed", "experiment"}
    candidates = [
        o for o in parsed if o.key_or_group not in named and not is_neutral(o.key_or_group, cfg)
    ]
    if not candidates:
        return {}
    command, groups = str(hydra_cfg.job.config_name), hydra_cfg.runtime.choices
    # Options of the user's own, which lie in folders that --config-dir or hydra.searchpath names.
    folders = [
        f"file://{Path(source.path).resolve()}"
        for source in hydra_cfg.runtime.config_sources
        if source.schema == "file" and Path(source.path).resolve() != conf_dir().resolve()
    ]
    search = (f"hydra.searchpath={json.dumps(folders)}",) if folders else ()

    def base_with(chosen: Container[str]) -> DictConfig:
        kept = [o.input_line or "" for o in parsed if o.key_or_group in chosen]
        return _base(command, (*search, *kept))

    # A group is compared with what is chosen without it, a key with what the groups make of it.
    plain, grouped = base_with(named), base_with({*named, *groups})
    settings = {}
    for key in (o.key_or_group for o in candidates):
        if key in groups:
            now, before = groups[key], plain.hydra.runtime.choices.get(key)
        else:
            now, before = OmegaConf.select(cfg, key), OmegaConf.select(grouped, key)
        if now != before:
            settings[key] = OmegaConf.to_container(now) if OmegaConf.is_config(now) else now
    return settings


@cache
def _base(command: str, overrides: tuple[str, ...]) -> DictConfig:
    """What a command composes to with these overrides alone."""
    if GlobalHydra.instance().is_initialized():
        return compose(command, overrides=list(overrides), return_hydra_config=True)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(command, overrides=list(overrides), return_hydra_config=True)


WITHOUT_GAN = ("none", "oversample", "class_weights")
"""Augmentations that fit no GAN; its settings count only with the others."""


def uses_gan(cfg: DictConfig) -> bool:
    """Whether the cell's augmentation fits a GAN."""
    return cfg.augmentation.name not in WITHOUT_GAN


def is_neutral(key: str, cfg: DictConfig) -> bool:
    """Whether a dotted key, or one it lies under, changes no result of this cell."""
    names = NEUTRAL if uses_gan(cfg) else (*NEUTRAL, "gan", "gan_fit")
    return any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in names)


def begin(cfg: DictConfig, hydra_cfg: DictConfig) -> Record:
    """The record that a cell begins with."""
    settings = settings_of(cfg)
    return Record(cell_of(cfg, hydra_cfg), digest(settings), settings=settings)


def settings_of(cfg: DictConfig) -> dict[str, Any]:
    """Every setting that changes results, plain and nested as in the config."""
    values = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(values, dict)
    return _without_neutral(values, "", cfg)


def _without_neutral(values: dict[Any, Any], prefix: str, cfg: DictConfig) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        # Runs from before there were these keys keep their fingerprints.
        if is_neutral(path, cfg) or (path in UNSTATED and value is None):
            continue
        if isinstance(value, dict):
            value = _without_neutral(value, f"{path}.", cfg)
        kept[str(key)] = value
    return kept


def folder_of(cfg: DictConfig, hydra_cfg: DictConfig) -> Path:
    """``<outputs>/runs/<name>/<cell>``."""
    return sweep_of(cfg) / cell_of(cfg, hydra_cfg).folder


def sweep_of(cfg: DictConfig) -> Path:
    """``<outputs>/runs/<name>``, the folder of the sweep."""
    return sweep_folder(str(cfg.outputs), str(cfg.name))


def with_hydra(root: DictConfig) -> tuple[DictConfig, DictConfig]:
    """A config and its ``hydra`` node, which Hydra takes away before it calls the task."""
    return root, root.hydra if "hydra" in root else current_hydra()


def choice_of(group: str, cfg: DictConfig) -> str:
    """The option that was chosen for a config group."""
    return str(with_hydra(cfg)[1].runtime.choices[group])


def current_hydra() -> DictConfig:
    """The ``hydra`` node of the job that is running."""
    return cast(DictConfig, HydraConfig.get())
