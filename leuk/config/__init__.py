"""Configuration: from the command line to validated configs and instantiated objects."""

from pathlib import Path

from omegaconf import OmegaConf

import leuk


def conf_dir() -> Path:
    """Folder of the YAML configs: inside the installed package, or beside it in a checkout."""
    package = Path(leuk.__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def augmentations() -> dict[str, str]:
    """Kind of each augmentation by name: no augmentation, controls, then GANs."""
    kinds = {
        path.stem: str(OmegaConf.load(path).augmentation.kind)
        for path in sorted((conf_dir() / "augmentation").glob("*.yaml"))
    }
    gans = {path.stem: "gan" for path in sorted((conf_dir() / "gan").glob("*.yaml"))}
    order = ("none", "control", "gan")
    return dict(sorted((kinds | gans).items(), key=lambda item: order.index(item[1])))
