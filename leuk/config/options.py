"""Options of config groups that leuk derives from files: recipes, and an augmentation per GAN."""

from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from leuk.config import conf_dir


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
    A file ``gan/NAME.yaml`` gives ``augmentation=NAME``, images of this GAN.

    Args:
        folder: leuk's config folder, or one of the user's.
    """
    plugins = Plugins.instance()
    if _RegisteredFirst not in plugins.discover(SearchPathPlugin):
        plugins.register(_RegisteredFirst)
    recipes = _files(folder, "recipe")
    for path in recipes:
        _register_recipe(path)
    names = {path.stem for path in (*recipes, *_files(conf_dir(), "recipe"))}
    for path in _files(folder, "transforms"):
        for recipe in names:
            _register_transforms(path.stem, recipe, path.stem)
    for path in _files(folder, "gan"):
        node = {
            "defaults": [{"override /gan": path.stem}],
            "augmentation": {"name": path.stem, "kind": "gan"},
        }
        _store("augmentation", path.stem, node)


def _files(folder: Path, group: str) -> list[Path]:
    return sorted((folder / group).glob("*.yaml"))


def _register_recipe(path: Path) -> None:
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return  # Hydra reports the file if it is chosen
    if isinstance(values, dict):
        for key in [key for key in values if "/" in str(key)]:
            group, _, name = key.partition("/")
            if group == "transforms":
                _register_transforms(name, path.stem, values.pop(key))
            else:
                _store(key, path.stem, values.pop(key))
        _store("recipe", path.stem, values)


def _register_transforms(model: str, recipe: str, option: str) -> None:
    """Register the default transforms of a model in a recipe, the first that are given."""
    store, name = ConfigStore.instance(), f"{model}_{recipe}"
    if f"{name}.yaml" not in store.repo.get("transforms", {}):
        store.store(group="transforms", name=name, node={"defaults": [option]})


def _store(group: str, name: str, node: dict[str, Any]) -> None:
    ConfigStore.instance().store(group=group, name=name, node=node, package="_global_")
