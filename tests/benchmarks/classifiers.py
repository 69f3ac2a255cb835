"""Training images per second of each classifier, compared with the thesis's Keras models.

Both fit the thesis's form at 224 px, batch 32, in turn. The comparison needs the Python interpreter
of an environment with TensorFlow::

    python tests/benchmarks/classifiers.py [cnn vit hybrid] [--keras PYTHON --peer keras_seed.py]

``--precisions`` adds a run in float32.
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule
from side_by_side import arguments, beside_keras, parsed, rate

from leuk.classifiers.base import Classifier
from leuk.classifiers.cnn import CNN
from leuk.classifiers.hybrid import Hybrid
from leuk.classifiers.vit import ViT

FORMS: dict[str, Callable[[], Classifier]] = {
    "cnn": CNN,
    "vit": ViT,
    "hybrid": lambda: Hybrid(patch=16, stride=6),
}


def steps(module: LightningModule) -> int:
    """Number of optimizer steps so far."""
    return module.global_step


def main() -> None:
    """Print rates and their ratios."""
    parser = arguments(__doc__, list(FORMS))
    parser.add_argument("--precisions", action="store_true")
    args = parsed(parser)
    for name in args.names:
        own = rate(FORMS[name](), args.seconds, steps)
        text = f"{name}: leuk {own:.1f} images/s"
        if args.precisions:
            text += f", float32 {rate(FORMS[name](), args.seconds, steps, '32-true'):.1f}"
        print(text + beside_keras(name, own, args), flush=True)


if __name__ == "__main__":
    main()
