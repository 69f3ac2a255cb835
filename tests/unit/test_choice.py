"""Choice of the images to explain and of the background images."""

import numpy as np
import pandas as pd

from leuk.explain.figures import choose_background, choose_images


def table(count: int = 400) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    cells = pd.DataFrame(
        {
            "label": generator.integers(0, 2, count),
            "subject": [f"S{i}" for i in generator.integers(0, 10, count)],
        }
    )
    cells["decided"] = np.where(generator.random(count) < 0.9, cells["label"], 1 - cells["label"])
    return cells


def test_choice_covers_all_outcomes_and_many_subjects() -> None:
    cells = table()
    chosen = cells.iloc[choose_images(cells, 16)]
    assert chosen.groupby(["label", "decided"]).size().tolist() == [4, 4, 4, 4]
    assert chosen["subject"].nunique() >= 4
    assert choose_images(cells, 16) == choose_images(cells.copy(), 16)
    assert len(set(choose_images(cells, 1000))) == 400


def test_smaller_choice_is_the_start_of_a_larger_choice() -> None:
    assert choose_images(table(), 100)[:16] == choose_images(table(), 16)


def test_background_has_both_classes_and_many_subjects_and_follows_the_seed() -> None:
    train = table().set_index(np.arange(400) * 3)
    rows = choose_background(train, 20, seed=0)
    chosen = train.loc[rows]
    assert chosen["label"].value_counts().tolist() == [10, 10]
    assert chosen["subject"].nunique() == 10
    assert rows == choose_background(train, 20, seed=0) == sorted(set(rows))
    assert rows != choose_background(train, 20, seed=1)
    assert len(choose_background(train, 1000, seed=0)) == 400
