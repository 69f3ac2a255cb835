"""The config that a finished run left, which may come from somebody else.

Read by everything that asks a finished cell, before anything of it is resolved or built.
"""

import re
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from leuk.config.targets import check_names
from leuk.errors import ConfigError, StoreError

NEEDED = ("model", "data", "split", "trainer")
"""Nodes that every run's config has."""

_LARGEST = 2**20
"""Bytes; leuk's own have some thousand."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DAMAGED = (OSError, ValueError, RecursionError, yaml.YAMLError)

_RESOLVER = re.compile(r"\$\{\s*([^${}:]+):")
_RESOLVERS = re.compile(r"leuk\.[a-z_]+")
"""Others read the environment or files of who runs it."""


def read_stored(path: Path) -> DictConfig:
    """The config of a file, its interpolations as they stand there.

    Args:
        path: ``config.yaml`` in the ``.hydra`` folder of a finished run.

    Raises:
        ConfigError: it names what may not be built, or asks for more than leuk's own values.
        StoreError: it cannot be read, or is none.
    """
    try:
        text = _text(path)
        if not isinstance(yaml.load(text, _LOADER), dict):
            raise ValueError("no keys in it")
        cfg = OmegaConf.create(text)
        values = OmegaConf.to_container(cfg, resolve=False)
    except (*_DAMAGED, OmegaConfBaseException) as error:
        raise StoreError(f"{path}: no readable config ({_first(error)}); {_ADVICE}") from error
    try:
        check_names(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    _check_resolvers(path, values)
    return cast(DictConfig, cfg)


def read_plain(path: Path) -> Any:
    """What another YAML file of a run's says, such as its overrides; nothing of it is resolved.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        return yaml.load(_text(path), _LOADER)
    except _DAMAGED as error:
        raise StoreError(f"{path}: cannot be read ({_first(error)})") from error


def _text(path: Path) -> str:
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"more than {_LARGEST} bytes")
    text = path.read_text("utf-8")
    # A few lines of references to references would become more nodes than memory holds.
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, _LOADER)):
        raise ValueError("it refers to parts of itself")
    return text


_ADVICE = "name the folder of a finished cell, or run the cell again"


def check_complete(path: Path, cfg: DictConfig) -> None:
    """Refuse a config that lacks what every run's has.

    Raises:
        StoreError: naming what it lacks.
    """
    for name in NEEDED:
        node = OmegaConf.select(cfg, name, throw_on_missing=False)
        lacks = not isinstance(node, DictConfig) or not isinstance(node.get("_target_"), str)
        if lacks:
            raise StoreError(f"{path}: no {name}._target_ in it; {_ADVICE}")


def _check_resolvers(path: Path, value: object) -> None:
    if isinstance(value, dict):
        for key, child in value.items():
            _check_resolvers(path, key)
            _check_resolvers(path, child)
    elif isinstance(value, list):
        for child in value:
            _check_resolvers(path, child)
    elif isinstance(value, str):
        for name in _RESOLVER.findall(value):
            if not _RESOLVERS.fullmatch(name.strip()):
                raise ConfigError(f"{path}: ${{{name}:...}} is none of leuk's own; remove it")


def _first(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
