"""The one way from a config node with a ``_target_`` to a live object, and its check beforehand."""

import inspect
import json
import pkgutil
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import hydra.utils
import pydantic
from omegaconf import DictConfig, OmegaConf

from leuk.config.nearest import hint
from leuk.errors import ConfigError

ALLOWED = ("leuk.", "lightning.", "torch.", "torchmetrics.", "torchvision.")
"""Packages whose names a ``_target_`` may take."""

_RESERVED = {"_target_", "_partial_", "_convert_", "_recursive_"}


def instantiate(node: DictConfig, **arguments: Any) -> Any:
    """Build what ``node`` describes; every object made from a config comes through here.

    Args:
        node: a config node with a ``_target_`` among :data:`ALLOWED`.
        arguments: live objects and values to pass beside those of the node.

    Raises:
        ConfigError: the target is not allowed, or takes no argument of that name or type.
    """
    values = OmegaConf.to_container(node, resolve=True)
    check_targets({"": values})
    # Live objects go in afterwards: Hydra would take a dataclass among them for a config.
    build = hydra.utils.instantiate(node, _partial_=True, _convert_="all")
    return build(**arguments)


def check_targets(config: Mapping[str, Any]) -> None:
    """Check every node with a ``_target_`` against the signature of what it names.

    Args:
        config: a plain container with interpolations resolved.

    Raises:
        ConfigError: a target that is not allowed or does not exist, an argument it does not
            take, or a value of another type than it asks for.
    """
    for path, node in _nodes(config, ""):
        target = _locate(node["_target_"], path)
        _check_arguments(path, target, node)


def _nodes(value: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield path, value
        for key, child in value.items():
            yield from _nodes(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for position, child in enumerate(value):
            yield from _nodes(child, f"{path}[{position}]")


def _locate(name: Any, path: str) -> Any:
    if not isinstance(name, str) or not name.startswith(ALLOWED):
        packages = ", ".join(prefix.rstrip(".") for prefix in ALLOWED)
        raise ConfigError(f"{path}._target_={name}: only names from {packages} may be built")
    try:
        target = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path}._target_={name}: cannot be imported ({error})") from error
    if not callable(target):
        raise ConfigError(f"{path}._target_={name}: nothing that can be built")
    return target


def _check_arguments(path: str, target: Any, node: Mapping[str, Any]) -> None:
    parameters = inspect.signature(target).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception:  # annotations that exist only for a type checker: names are still checked
        hints = {}
    for key, value in node.items():
        if key in _RESERVED:
            continue
        if key not in parameters:
            if open_ended:
                continue
            known = [name for name in parameters if name != "self"]
            raise ConfigError(
                f"{path}.{key}: {node['_target_']} takes no {key}; {hint(key, known)}"
            )
        if key in hints:
            _check_type(f"{path}.{key}", value, hints[key])


def _check_type(path: str, value: Any, annotation: Any) -> None:
    if any(True for _ in _nodes(value, path)):
        return  # a nested target is checked by itself
    try:
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(annotation)
    except Exception:  # a type pydantic knows nothing of (a module, a tensor)
        return
    try:
        # JSON's rules are YAML's: a list serves for a tuple, but "3" does not serve for 3.
        adapter.validate_json(json.dumps(value, allow_nan=False), strict=True)
    except ValueError as error:
        if not isinstance(error, pydantic.ValidationError):
            raise ConfigError(f"{path}={value}: not a finite number") from error
        reason = error.errors()[0]["msg"]
        raise ConfigError(f"{path}={value}: {reason[0].lower()}{reason[1:]}") from error
