"""Where predictions and exported models go, and what they are called by default."""

from pathlib import Path

from omegaconf import DictConfig


def predictions_folder(cfg: DictConfig) -> Path:
    """``<outputs>/predictions/<name>/<run's folder>``."""
    return Path(str(cfg.outputs)) / "predictions" / str(cfg.name) / resolved(cfg.run).name


def export_folder(cfg: DictConfig) -> Path:
    """``<outputs>/exports/<name>/<run's folder>/<format>``."""
    run = resolved(cfg.run).name
    return Path(str(cfg.outputs)) / "exports" / str(cfg.name) / run / str(cfg.format)


def resolved(place: str) -> Path:
    """A whole path."""
    return Path(str(place)).expanduser().resolve()


def stem(place: str) -> str:
    """The name of a folder, or of a file without its suffix."""
    path = resolved(place)
    return path.name if path.is_dir() else path.stem


def said_of(cfg: DictConfig, *keys: str) -> dict[str, str]:
    """Where the files and folders lie that a config names, by key, to tell results apart."""
    return {key: str(resolved(cfg[key])) for key in keys}
