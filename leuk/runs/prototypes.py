"""Projection of a classifier's prototypes to training patches, with a figure and a table."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from leuk.classifiers.prototyped import Prototyped
from leuk.data.bank import Batch
from leuk.data.datamodule import CNMCDataModule
from leuk.explain.prototype_sheet import save_prototypes
from leuk.store.atomic import whole_file

_BATCH = 64


def project_prototypes(
    classifier: Prototyped, data: CNMCDataModule, device: torch.device, folder: Path, title: str
) -> dict[str, Any]:
    """Replace prototypes by the nearest patches of real training images, refit the head, draw them.

    The best checkpoint is updated, so that it has the weights of the evaluated model.

    Args:
        classifier: trained classifier with prototypes.
        data: data module; only real training images are used.
        device: device of the computation.
        folder: folder of the run.
        title: title of the figure.

    Returns:
        For the record: ``picture``, and ``table`` with an entry per prototype.
    """
    train = data.stage("train")
    rows = torch.tensor(train.index.to_numpy())
    classifier.to(device)

    def batches() -> Iterator[Batch]:
        return (data.bank.gather(batch, device) for batch in rows.split(_BATCH))

    projected = classifier.project(batches())
    classifier.refit_head(batches())
    sources = torch.tensor([prototype.row for prototype in projected])
    images = data.bank.gather(sources, torch.device("cpu"))
    picture = "explanations/prototypes.png"
    save_prototypes(folder / picture, images["images"], projected, title)
    best = folder / "checkpoints/best.ckpt"
    if best.is_file():
        values = torch.load(best, map_location="cpu", weights_only=True)
        values["state_dict"] = classifier.state_dict()
        with whole_file(best) as temporary:
            torch.save(values, temporary)
    paths = data.dataset.index["path"]
    table = [asdict(item) | {"path": str(paths.iloc[item.row])} for item in projected]
    return {"picture": picture, "table": table}
