"""Time of LIME compared with the classifier alone and with the lime library, in one run.

In turn: the classifier alone at its best batch size, on random images of 224 px on its device;
``LIME`` with the same number of samples per image; and lime's own image explainer (ten images per
pass, assembled in NumPy), with the same superpixels and the same hidden image, both in its usual
form (an image in float64, the classifier as built: float32, contiguous; glibc's default heap) and
with the precision, layout and heap of the others::

    python tests/benchmarks/explain_lime.py [cnn vit hybrid] [--precision 32-true]

The overhead is divided into ``compose`` (assembling images), measured with a classifier that
ignores its input, like ``loop``, the same for lime's own explainer; ``superpixels`` (SLIC); and
``draw``, ``distances`` and ``fit`` in lime. ``passes`` is the remainder: passes of another size
than the best, and noise. ``--busy`` measures processor time, for a single thread on a busy machine.
"""

import argparse
import contextlib
import copy
import io
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from statistics import median

import numpy as np
import numpy.typing as npt
import torch
from lime.lime_image import LimeImageExplainer
from predicting import BATCHES, CLOCK, FORMS, best_batch, cells, default_heap, seconds
from sklearn.metrics import pairwise_distances
from torch import Tensor

from leuk.explain.base import evaluation_mode
from leuk.explain.lime import LIME, PatchLIME, PresenceLime, cell_superpixels
from leuk.explain.perturb import hidden, predict_coalitions, predict_log_odds
from leuk.runs.process import keep_heap
from leuk.runs.trainer import precision_for


def lime_image(classifier: Callable[[Tensor], Tensor], image: Tensor, method: LIME) -> None:
    """Run lime's own explainer on an image ``(1, 3, R, R)``, in its precision.

    The black background is an additional superpixel.
    """
    segments = cell_superpixels(image, method.segments)[0].numpy()
    segments = np.where(segments < 0, segments.max() + 1, segments)
    other = hidden(image, method.hide)[0].permute(1, 2, 0).cpu().numpy()

    def probabilities(batch: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            images = torch.from_numpy(batch).permute(0, 3, 1, 2).to(image.device).float()
            found: npt.NDArray[np.float32] = classifier(images).float().softmax(1).cpu().numpy()
            return found

    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        LimeImageExplainer(random_state=0).explain_instance(
            image[0].permute(1, 2, 0).cpu().numpy(),
            probabilities,
            hide_color=other,
            num_samples=method.samples,
            segmentation_fn=lambda _: segments,
        )


def blind(images: Tensor) -> Tensor:
    """Stand-in for a classifier that ignores its input."""
    return images[:, :2, 0, 0]


def overhead_by_step(image: Tensor, method: LIME, size: int, device: str) -> dict[str, float]:
    """Time in seconds of the steps of an explanation, without the classifier."""
    segments = cell_superpixels(image, method.segments)
    count, parts = int(segments.max()) + 1, segments[0].to(device)
    other = hidden(image, method.hide)[0]
    weights = torch.randn(count, generator=torch.Generator().manual_seed(0))

    def linear(presence: Tensor) -> Tensor:
        return presence.float() @ weights

    generator = np.random.RandomState(0)
    presence = generator.randint(0, 2, (method.samples, count))
    lime = PresenceLime(None, 0)
    lime.fit(linear, count, method.samples)  # imports what it needs
    taken = {
        "compose": lambda: predict_coalitions(
            blind,  # type: ignore[arg-type]
            image[0],
            other,
            parts,
            torch.from_numpy(presence).bool(),
            size,
        ),
        "superpixels": lambda: cell_superpixels(image, method.segments),
        "draw": lambda: generator.randint(0, 2, presence.shape),
        "distances": lambda: pairwise_distances(presence, presence[:1], metric="cosine"),
        "lime": lambda: lime.fit(linear, count, method.samples),
    }
    found = {name: min(seconds(work, device) for _ in range(3)) for name, work in taken.items()}
    found["loop"] = seconds(partial(lime_image, blind, image, method), device)
    found["fit"] = found.pop("lime") - found["draw"] - found["distances"]
    for kept in (5, 10):
        chosen = PresenceLime(kept, 0)
        took = seconds(partial(chosen.fit, linear, count, method.samples), device)
        print(f"  lime with features={kept}: {took:.3f} s")
    return found


def measure(name: str, args: argparse.Namespace, device: str) -> None:
    """Print the rows of a classifier."""
    torch.manual_seed(0)
    plain = FORMS[name]().to(device)
    classifier = copy.deepcopy(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = cells(max(BATCHES), device)
    many = images.repeat(-(-args.samples // len(images)), 1, 1, 1)[: args.samples]
    method = LIME(samples=args.samples, repeats=1, batch_size=args.batch_size)
    taken: dict[str, list[float]] = defaultdict(list)
    with evaluation_mode(classifier), evaluation_mode(plain):
        batch = best_batch(classifier, images, device)
        for image in images[: args.rounds].split(1):
            for kind, work in {
                "alone": partial(predict_log_odds, classifier, many, batch),
                "lime": partial(method.attribute, classifier, image, 1, image),
                "same": partial(lime_image, classifier, image, method),
            }.items():
                taken[kind].append(seconds(work, device))
            with torch.autocast(device, enabled=False), default_heap():
                work = partial(lime_image, plain, image.double(), method)
                taken["default"].append(seconds(work, device))
        size = method.passes(images)
        steps = overhead_by_step(images[:1], method, size, device)
    alone, own, same, default = (median(times) for times in taken.values())
    loop = steps.pop("loop")
    steps["passes"] = own - alone - sum(steps.values())
    rest = ", ".join(f"{step} {took:.3f} s" for step, took in steps.items())
    print(
        f"{name}: {args.samples} images alone {alone:.2f} s (batch {batch}), lime {own:.2f} s "
        f"(batch {size}); ratio {own / alone:.2f}\n  of the rest {rest}\n  lime_image by "
        f"default {default:.2f} s; ratio {default / own:.2f}; with the same precision and layout "
        f"{same:.2f} s; ratio {same / own:.2f}; of it loop {loop:.2f} s",
        flush=True,
    )
    if classifier.has_patches:
        patches = PatchLIME(samples=args.samples, repeats=1, batch_size=args.batch_size)
        took = seconds(partial(patches.attribute, classifier, images[:1], 1, images[:8]), device)
        print(f"  lime_patches {took:.2f} s; {took / alone:.2f} of the classifier alone")


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(FORMS), help="all without any")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="images to explain")
    parser.add_argument("--batch-size", type=int, default=None, help="of LIME")
    parser.add_argument("--precision", default=None, help="32-true or bf16-mixed")
    parser.add_argument("--busy", action="store_true", help="count processor time")
    args = parser.parse_args()
    keep_heap()
    if args.busy:
        CLOCK[0] = time.process_time
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = args.precision or precision_for(device)
    half: AbstractContextManager[object] = torch.autocast(
        device, dtype=torch.bfloat16, enabled=precision == "bf16-mixed"
    )
    print(f"{device}, {precision}, {torch.get_num_threads()} threads")
    with half:
        for name in args.names:
            measure(name, args, device)


if __name__ == "__main__":
    main()
