"""A linear classifier and its images, run through the explanation checks."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from explained import Linear
from torch import Tensor

from leuk.classifiers.base import Classifier
from leuk.data.labels import Label
from leuk.explain.base import Explainer, Target, log_odds
from leuk.explain.quality.checks import Checked, CheckSettings, check
from leuk.explain.quality.faithfulness import Case

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


def case(model: Classifier, images: Tensor, target: Target = Label.ALL, **settings: Any) -> Case:
    """Case with the images as background, and a class for all images or one for each."""
    return Case(model, images, torch.as_tensor(target).expand(len(images)), images, **settings)


def measure(found: Checked, name: str) -> pd.DataFrame:
    table = found.measures
    return table[table["measure"] == name].set_index("method")
