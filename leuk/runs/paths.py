"""Output folders of predictions and exported models, and their default names."""

from pathlib import Path

from omegaconf import DictConfig


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


def stem(path: str) -> str:
    """Return the name of a folder, or of a file without its suffix."""
    full = resolved(path)
    return full.name if full.is_dir() else full.stem


def source_paths(cfg: DictConfig, *keys: str) -> dict[str, str]:
    """Full paths of inputs in a config, by key; stored with results to identify their origin."""
    return {key: str(resolved(cfg[key])) for key in keys}
