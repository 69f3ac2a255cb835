"""Stored configs of finished runs, validated because the run folder may come from anywhere.

Read by all commands that use a finished run, before anything is resolved or instantiated.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from leuk.config.targets import check_names, walk
from leuk.errors import ConfigError, StoreError

_LARGEST = 2**20
"""Maximum size in bytes; configs written by leuk have a few thousand."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_READ_ERRORS = (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException)
_ADVICE = "set run= to the folder of a finished run, or run it again"

_RESOLVER = re.compile(r"\$\{\s*([^${}:]+):")


def read_stored(path: Path) -> DictConfig:
    """Read a run's config without resolving its interpolations.

    Args:
        path: ``config.yaml`` in the ``.hydra`` folder of a finished run.

    Raises:
        ConfigError: a ``_target_`` is not allowed, or a resolver is not leuk's own.
        StoreError: the file cannot be read or is not a config.
    """
    try:
        text = _text(path)
        if not isinstance(yaml.load(text, _LOADER), dict):
            raise ValueError("it has no keys")
        cfg = OmegaConf.create(text)
        values = OmegaConf.to_container(cfg, resolve=False)
    except _READ_ERRORS as error:
        raise StoreError(f"{path}: no readable config ({_first(error)}); {_ADVICE}") from error
    try:
        check_names(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    for _, value in walk(values):
        for text in value if isinstance(value, Mapping) else [value]:
            for name in _RESOLVER.findall(text) if isinstance(text, str) else []:
                # Other resolvers could read environment variables or files.
                if not re.fullmatch(r"leuk\.[a-z_]+", name.strip()):
                    raise ConfigError(
                        f"{path}: ${{{name}:...}} is not one of leuk's resolvers; remove it"
                    )
    return cast(DictConfig, cfg)


def read_plain(path: Path) -> Any:
    """Read another YAML file of a run, such as its overrides, without resolving interpolations.

    Raises:
        StoreError: the file cannot be read.
    """
    try:
        return yaml.load(_text(path), _LOADER)
    except _READ_ERRORS as error:
        raise StoreError(f"{path}: cannot be read ({_first(error)})") from error


def check_complete(path: Path, cfg: DictConfig) -> None:
    """Refuse a config without the nodes that every run has.

    Raises:
        StoreError: a node is missing; the message names the first.
    """
    for name in ("model", "data", "split", "trainer"):
        node = OmegaConf.select(cfg, name, throw_on_missing=False)
        if not isinstance(node, DictConfig) or not isinstance(node.get("_target_"), str):
            raise StoreError(f"{path}: {name}._target_ is missing; {_ADVICE}")


def _text(path: Path) -> str:
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"more than {_LARGEST} bytes")
    text = path.read_text("utf-8")
    # A few lines of nested aliases can expand to more nodes than fit into memory.
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, _LOADER)):
        raise ValueError("it contains aliases")
    return text


def _first(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
