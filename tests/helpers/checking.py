"""A linear classifier and its images, run through the explanation checks."""

import numpy as np
import pandas as pd
from explained import Linear
from torch import Tensor

from leuk.data.labels import Label
from leuk.explain.base import Explainer, log_odds
from leuk.explain.quality.checks import Checked, CheckSettings, check

CELLS = 6
CONTROLS = ["random", "random_pixels", "center", "edges"]
QUICK = CheckSettings(
    steps=4, removals=6, sensitivity_images=2, sensitivity_samples=2, randomized_images=3, draws=200
)


def called(model: Linear, images: Tensor) -> Tensor:
    return (log_odds(model(images)) > 0).long()


def checked(
    model: Linear, images: Tensor, *methods: Explainer, settings: CheckSettings = QUICK
) -> Checked:
    explainers = {method.name: method for method in methods}
    attributions = {
        name: it.attribute(model, images, Label.ALL, images) for name, it in explainers.items()
    }
    subjects = np.array([f"S{i // 2}" for i in range(len(images))])
    decided = called(model, images)
    return check(model, explainers, attributions, images, images, subjects, decided, settings)


def measure(found: Checked, name: str) -> pd.DataFrame:
    table = found.measures
    return table[table["measure"] == name].set_index("method")
