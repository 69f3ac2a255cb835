"""Options of config groups that leuk derives from files.

A file of :data:`FILLED` names a class and only the values that differ from the defaults of its
signature; the option contains all of them, so that each can be overridden, suggested and completed.
A recipe is split into options of other groups, and every GAN gives an augmentation.
"""

import ast
import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

import leuk
from leuk.config import conf_dir
from leuk.errors import ConfigError

FILLED = ("model", "gan", "transforms", "checks")
"""Groups whose nodes get the defaults of their classes."""

Values = dict[str, Any]


class _RegisteredFirst(SearchPathPlugin):
    """Plugin of Hydra by which a registered option replaces the file that it is derived from."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        # Under the name of Hydra's own source of registered options, which is searched last.
        search_path.prepend("schema", "structured://", anchor="main")


def register_options(folder: Path) -> None:
    """Register the options that follow from the files of a config folder.

    A file ``recipe/NAME.yaml`` has sections such as ``model/cnn``, which apply only with
    ``model=cnn``: each becomes the option ``NAME`` of the group ``model/cnn``. Its entries such as
    ``transforms/cnn`` and files such as ``transforms/cnn.yaml`` set the model's default transforms.
    A recipe with ``extends: OTHER`` holds only what differs from the recipe ``OTHER``.
    A file ``gan/NAME.yaml`` gives ``augmentation=NAME``, images of this GAN.

    Args:
        folder: config folder of leuk or of the user.
    """
    plugins = Plugins.instance()
    if _RegisteredFirst not in plugins.discover(SearchPathPlugin):
        plugins.register(_RegisteredFirst)
    recipes = _files(folder, "recipe")
    for path in recipes:
        values = _read(path)
        if base := values.pop("extends", None):
            bases = [one / f"recipe/{base}.yaml" for one in (folder, conf_dir())]
            inherited = next((_read(one) for one in bases if one.is_file()), None)
            if inherited is None:
                raise ConfigError(f"{path}: extends={base}: no such recipe in recipe/")
            values = _container(OmegaConf.merge(inherited, values))
        for key in list(values):
            group, _, name = str(key).partition("/")
            if group == "transforms":
                _register_transforms(name, path.stem, values.pop(key))
            elif name:
                _store(key, path.stem, values.pop(key))
        if values:
            _store("recipe", path.stem, values)
    names = {path.stem for path in (*recipes, *_files(conf_dir(), "recipe"))}
    for path in _files(folder, "transforms"):
        for recipe in names:
            _register_transforms(path.stem, recipe, path.stem)
    for path in _files(folder, "gan"):
        augmentation = {"name": path.stem, "kind": "gan"}
        node = {"defaults": [{"override /gan": path.stem}], "augmentation": augmentation}
        _store("augmentation", path.stem, node)
    for group in FILLED:
        for path in _files(folder, group):
            if values := _filled(_read(path)):
                package = re.match(r"# @package (\S+)", path.read_text("utf-8"))
                _store(group, path.stem, values, package[1] if package else None)


def _files(folder: Path, group: str) -> list[Path]:
    return sorted((folder / group).glob("*.yaml"))


def _read(path: Path) -> Values:
    """Values of a config file; empty if it is damaged, which Hydra reports if it is chosen."""
    try:
        return _container(OmegaConf.load(path))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return {}


def _container(config: Any) -> Values:
    values: Any = OmegaConf.to_container(config)
    return values if isinstance(values, dict) else {}


def _register_transforms(model: str, recipe: str, option: str) -> None:
    """Register the default transforms of a model in a recipe, the first that are given."""
    name = f"{model}_{recipe}"
    if f"{name}.yaml" not in ConfigStore.instance().repo.get("transforms", {}):
        _store("transforms", name, {"defaults": [option]}, None)


def _store(group: str, name: str, node: Values, package: str | None = "_global_") -> None:
    ConfigStore.instance().store(group=group, name=name, node=node, package=package)


# --- Defaults of classes


def _filled(values: Values, defaults: Values | None = None) -> Values:
    """Add the defaults of classes to all nodes with a ``_target_`` that are not set."""
    if "_target_" in values:
        defaults = {"_target_": None, **signature(str(values["_target_"]))}
    filled = dict(defaults or {})
    for key, value in values.items():
        inner = filled.get(key)
        if isinstance(value, dict):
            value = _filled(value, inner if isinstance(inner, dict) else None)
        filled[key] = value
    return filled


def signature(target: str) -> Values:
    """Arguments of a class of leuk that have a default, as config values.

    Read from the source, because importing it would import torch, which takes seconds. A default
    is a literal, or the call of another class of leuk, which becomes a node with a ``_target_``.
    """
    module, _, name = target.rpartition(".")
    classes, origins = _parsed(module)
    if name not in classes:
        return {}
    values: Values = {}
    node = classes[name]
    for init in node.body:
        if isinstance(init, ast.FunctionDef) and init.name == "__init__":
            own = init.args.args[-len(init.args.defaults) :]
            pairs = list(zip([one.arg for one in own], init.args.defaults, strict=False))
            break
    else:  # the constructor is inherited, or that of a dataclass
        for base in node.bases:
            values |= signature(origins.get(ast.unparse(base), ""))
        data = any(ast.unparse(one).startswith("dataclass") for one in node.decorator_list)
        fields = [one for one in node.body if data and isinstance(one, ast.AnnAssign)]
        pairs = [(ast.unparse(one.target), one.value) for one in fields if one.value]
    for key, default in pairs:
        with suppress(ValueError):  # a name or an expression: the config gives the value
            values[key] = _value(default, origins)
    return values


def _value(default: ast.expr, origins: dict[str, str]) -> Any:
    if not isinstance(default, ast.Call):
        value = ast.literal_eval(default)
        return list(value) if isinstance(value, tuple) else value
    target = origins.get(ast.unparse(default.func), "")
    if not target.startswith("leuk."):
        raise ValueError(f"{ast.unparse(default)} is no class of leuk")
    values = signature(target)
    given = dict(zip(values, default.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in default.keywords if keyword.arg}
    return {"_target_": target, **values, **{k: _value(v, origins) for k, v in given.items()}}


@cache
def _parsed(module: str) -> tuple[dict[str, ast.ClassDef], dict[str, str]]:
    """Classes of a module by name, and the full names of classes defined or imported in it."""
    path = Path(leuk.__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    if not module.startswith("leuk.") or not path.is_file():
        return {}, {}
    body = ast.parse(path.read_text("utf-8")).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    origins = {name: f"{module}.{name}" for name in classes}
    for node in body:
        if isinstance(node, ast.ImportFrom):
            origins |= {
                alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names
            }
    return classes, origins
