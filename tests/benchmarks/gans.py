"""Generator updates x batch a second of each GAN, beside the same GAN in the thesis's own stack.

Both sides fit the thesis's form at 224 px, batch 32, one after the other in one run. Give it the
interpreter of an environment that has TensorFlow to compare with Keras::

    python tests/benchmarks/gans.py [dcgan wgan cgan] [--keras PYTHON --peer keras_seed.py]

``--compile`` adds a run with compiled networks, ``--seconds`` says how long each takes.
"""

from lightning.pytorch import LightningModule
from side_by_side import arguments, beside_keras, parsed, rate

from leuk.gans.adversarial import Adversarial
from leuk.gans.cgan import CGAN
from leuk.gans.dcgan import DCGAN
from leuk.gans.wgan import WGANGP

FORMS = {"dcgan": DCGAN, "wgan": WGANGP, "cgan": CGAN}


def updates(module: LightningModule) -> int:
    """Generator updates so far."""
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
        line = f"{name}: leuk {own:.1f} images/s"
        if args.compile:
            gan = form()
            gan.compile_networks()
            line += f", compiled {rate(gan, args.seconds, updates):.1f}"
        print(line + beside_keras(name, own, args), flush=True)


if __name__ == "__main__":
    main()
