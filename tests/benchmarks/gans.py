"""Generator updates times batch size per second of each GAN, compared with the thesis's Keras GANs.

Both fit the thesis's form at 224 px, batch 32, in turn. The comparison needs the Python interpreter
of an environment with TensorFlow::

    python tests/benchmarks/gans.py [dcgan wgan cgan] [--keras PYTHON --peer keras_seed.py]

``--compile`` adds a run with compiled networks, ``--seconds`` sets the duration of each.
"""

from lightning.pytorch import LightningModule
from side_by_side import arguments, beside_keras, parsed, rate

from leuk.gans.base import Adversarial
from leuk.gans.cgan import CGAN
from leuk.gans.dcgan import DCGAN
from leuk.gans.wgan import WGANGP

FORMS = {"dcgan": DCGAN, "wgan": WGANGP, "cgan": CGAN}


def updates(module: LightningModule) -> int:
    """Number of generator updates so far."""
    assert isinstance(module, Adversarial)
    return module.done_updates


def main() -> None:
    """Print rates and their ratios."""
    parser = arguments(__doc__, list(FORMS))
    parser.add_argument("--compile", action="store_true")
    args = parsed(parser)
    for name in args.names:
        form = FORMS[name]
        own = rate(form(), args.seconds, updates)
        text = f"{name}: leuk {own:.1f} images/s"
        if args.compile:
            gan = form()
            gan.compile_networks()
            text += f", compiled {rate(gan, args.seconds, updates):.1f}"
        print(text + beside_keras(name, own, args), flush=True)


if __name__ == "__main__":
    main()
