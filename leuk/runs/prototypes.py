"""The prototypes of a fitted classifier: tied to training patches, drawn, and kept."""

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


def tie_prototypes(
    classifier: Prototyped, data: CNMCDataModule, device: torch.device, folder: Path, title: str
) -> dict[str, Any]:
    """Replace each prototype by the nearest patch of a real training cell, refit, and draw them.

    The checkpoint that the weights came from takes them in, so that whoever reads it later has the
    model that was judged.

    Args:
        classifier: fitted, with prototypes.
        data: whose training cells they are tied to; made ones are left out.
        device: where the work is done.
        folder: of the cell.
        title: over the picture.

    Returns:
        For the record: ``picture``, and ``table``, one entry a prototype.
    """
    cells = data.part("train")
    rows = torch.tensor(cells.index.to_numpy())
    classifier.to(device)

    def batches() -> Iterator[Batch]:
        return (data.bank.gather(part, device) for part in rows.split(_BATCH))

    placed = classifier.project(batches())
    classifier.refit_head(batches())
    images = data.bank.gather(torch.tensor([one.row for one in placed]), torch.device("cpu"))
    picture = "explanations/prototypes.png"
    save_prototypes(folder / picture, images["images"], placed, title)
    best = folder / "checkpoints/best.ckpt"
    if best.is_file():
        values = torch.load(best, map_location="cpu", weights_only=True)
        values["state_dict"] = classifier.state_dict()
        with whole_file(best) as temporary:
            torch.save(values, temporary)
    paths = data.dataset.cells["path"]
    table = [asdict(one) | {"path": str(paths.iloc[one.row])} for one in placed]
    return {"picture": picture, "table": table}
