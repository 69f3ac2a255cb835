"""Nodes with a ``_target_``: allow-list, types and instantiation; suggestions for wrong names."""

import contextlib
import inspect
import json
import pkgutil
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import hydra.utils
import pydantic
from omegaconf import DictConfig, OmegaConf

from leuk.errors import ConfigError, ListMeantError

_LISTED = 20
"""Largest number of names that a suggestion lists."""

MODULES = re.compile(
    r"leuk\.(classifiers|explain|gans)\.[a-z_0-9]+"
    r"|leuk\.explain\.quality\.checks"
    r"|leuk\.data\.(augment|datamodule|phantom|rules)"
    r"|leuk\.metrics\.synthetic\.features"
    r"|leuk\.(training|runs\.(finished|trainer))"
    r"|lightning\.pytorch(\.callbacks|\.loggers)?"
)
"""Modules whose classes a config may name. Configs can come from untrusted sources, and arbitrary
targets could read, write or run anything."""

_HYDRA_NAMES = {
    "_target_": re.compile(r"hydra\._internal\.core_plugins\.\w+\.\w+|hydra_plugins(\.\w+)+er"),
    "class": re.compile(r"logging(\.\w+)+|rich\.logging\.RichHandler"),
    "()": re.compile(r"colorlog\.\w+"),
}
"""Names that Hydra may call, per key: launchers and sweepers, log handlers, formatters."""

_FUNCTIONS = {"leuk.runs.finished.from_run"}
"""Allowed targets that are not classes."""

_NAMES = {
    "leuk.runs.finished": {"from_run"},
    "leuk.runs.trainer": {"ChannelsLast", "Progress", "TF32"},
    "leuk.training": {"WeightEMA"},
    "lightning.pytorch": {"Trainer"},
}
"""Allowed names of modules that also hold other names."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known key most similar to ``word``, or None.

    Dotted keys are compared as a whole first, then by their last component, so that ``rezolution``
    finds ``data.resolution``.
    """
    keys = sorted(set(known))
    if whole := get_close_matches(word, keys, n=1, cutoff=0.6):
        return whole[0]
    last = {key.rpartition(".")[2]: key for key in reversed(keys)}
    part = get_close_matches(word.rpartition(".")[2], last, n=1, cutoff=0.7)
    return last[part[0]] if part else None


def hint(word: str, known: Iterable[str]) -> str:
    """Suggest the nearest known key, or list the known keys if none is similar."""
    keys = sorted(set(known))
    if (match := nearest(word, keys)) is not None:
        return f"did you mean {match}?"
    if len(keys) > _LISTED:
        return "the command's --help lists all keys"
    return f"known: {', '.join(keys)}" if keys else "no key can be set here"


def instantiate(node: DictConfig, **arguments: Any) -> Any:
    """Build the object of a config node; the only call of Hydra's ``instantiate`` in leuk.

    Args:
        node: config node with a ``_target_``.
        arguments: additional keyword arguments.

    Raises:
        ConfigError: as :func:`check_targets`.
    """
    check_targets({"": OmegaConf.to_container(node, resolve=True)})
    # Pass objects afterwards, because Hydra treats dataclasses among them as configs.
    build = hydra.utils.instantiate(node, _partial_=True, _convert_="all")
    return build(**arguments)


def check_targets(config: Mapping[str, Any]) -> None:
    """Check every node with a ``_target_`` against the signature of its target.

    Args:
        config: a plain container with interpolations resolved.

    Raises:
        ConfigError: a target is not allowed or does not exist, an argument is unknown, or a value
            has another type.
    """
    for path, node in _nodes(config):
        target = _locate(node["_target_"], path)
        parameters = inspect.signature(target).parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        function = target.__init__ if inspect.isclass(target) else target
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except Exception:  # annotations only for type checkers; argument names are still checked
            hints = {}
        for key in node:
            if key in ("_target_", "_partial_", "_convert_", "_recursive_"):
                continue
            if key in hints and key in parameters:
                _check_type(f"{path}.{key}", node[key], hints[key])
            elif key not in parameters and not open_ended:
                known = [name for name in parameters if name != "self"]
                problem = f"{node['_target_']} takes no {key}"
                raise ConfigError(f"{path}.{key}: {problem}; {hint(str(key), known)}")


def check_names(config: Any) -> None:
    """Refuse every ``_target_`` that is not on the allow-list, without importing it.

    Raises:
        ConfigError: a target is refused; the message names the first.
    """
    for path, node in _nodes(config):
        _check_name(node["_target_"], path)


def check_hydra(value: Any) -> None:
    """Refuse targets in the ``hydra`` node that are not Hydra's own, without importing them.

    Hydra instantiates these before it calls leuk.

    Raises:
        ConfigError: a target is refused; the message names the first.
    """
    for path, name in walk(value, "hydra"):
        known = _HYDRA_NAMES.get(path.rpartition(".")[2])
        if known and isinstance(name, str) and not known.fullmatch(name):
            raise ConfigError(f"{path}={name}: only Hydra's own plugins and loggers are allowed")


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a plain container and every value in it, each with its dotted key."""
    yield path, value
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from walk(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for position, child in enumerate(value):
            yield from walk(child, f"{path}[{position}]")


def _nodes(config: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path, value in walk(config):
        if isinstance(value, Mapping) and "_target_" in value:
            yield path, value


def _check_name(name: Any, path: str) -> None:
    module, _, last = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    known = MODULES.fullmatch(module) and last in _NAMES.get(module, {last})
    # The name may also be that of a module; _locate refuses it after the import.
    if not (known or MODULES.fullmatch(str(name))) or last.startswith("_"):
        raise ConfigError(
            f"{path}._target_={name}: only names from leuk's models, methods and data and from "
            "lightning.pytorch's Trainer, callbacks and loggers are allowed"
        )


def _locate(name: Any, path: str) -> Any:
    _check_name(name, path)
    try:
        target = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{path}._target_={name}: cannot be imported ({error}); check the name"
        ) from error
    # Refuse objects that the module has only imported.
    own = str(getattr(target, "__module__", "")).startswith(name.rpartition(".")[0])
    if not own or not (inspect.isclass(target) or name in _FUNCTIONS):
        raise ConfigError(f"{path}._target_={name}: not a class of that module; check the name")
    return target


def _check_type(path: str, value: Any, annotation: Any) -> None:
    if any(True for _ in _nodes(value)):
        return  # nested targets are checked separately
    try:
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(annotation)
    except Exception:  # a type without a pydantic schema, such as a module or a tensor
        return
    try:
        # JSON mode matches YAML: a list is valid for a tuple, but "3" is not valid for 3.
        adapter.validate_json(json.dumps(value, allow_nan=False), strict=True)
    except pydantic.ValidationError as error:
        if not isinstance(value, list | dict):
            with contextlib.suppress(pydantic.ValidationError):
                adapter.validate_json(json.dumps([value]), strict=True)
                raise ListMeantError(path, value) from error
        reason = error.errors()[0]["msg"]
        raise ConfigError(f"{path}={value}: {reason[0].lower()}{reason[1:]}") from error
    except ValueError as error:
        raise ConfigError(f"{path}={value}: not a finite number") from error
