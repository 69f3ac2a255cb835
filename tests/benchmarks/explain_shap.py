"""Time of SHAP compared with the classifier alone, for the same number of images, in one run.

In turn: the classifier alone at its best batch size, on random images of 224 px on its device; and
``PartitionSHAP`` with as many evaluations per image::

    python tests/benchmarks/explain_shap.py [cnn vit hybrid] [--precision 32-true]

The overhead is divided into ``compose`` (assembling images) and ``shap`` (the library between its
requests), measured with a classifier that returns immediately. ``passes`` is the remainder: passes
of another size than the best, and noise. Finally, the seconds per image of the other methods.
"""

import argparse
from contextlib import AbstractContextManager
from functools import partial

import torch
from predicting import BATCHES, FORMS, best_batch, cells, seconds
from side_by_side import SIDE
from torch import Tensor

from leuk.explain.base import Explainer, evaluation_mode
from leuk.explain.perturb import hidden, patch_segments, predict_coalitions, predict_log_odds
from leuk.explain.shap import ROUND, GradientSHAP, PartitionSHAP, PatchSHAP, owen_values
from leuk.runs.process import keep_heap
from leuk.runs.trainer import precision_for


def shap_alone(image: Tensor, method: PartitionSHAP) -> float:
    """Time in seconds of the library for an image, with predictions at no cost."""
    differs = (image != hidden(image[None], method.hide)[0]).any(dim=0).float().cpu()
    step = SIDE // method.regions
    players = torch.nn.functional.max_pool2d(differs[None], step)[0] > 0
    weights = torch.randn(players.numel())
    answer = partial(torch.mv, vec=weights)
    return seconds(
        lambda: owen_values(
            lambda presence: answer(presence.float()), players, method.evaluations, 0
        ),
        "cpu",
    )


def composing(image: Tensor, method: PartitionSHAP, device: str) -> float:
    """Time in seconds to assemble the images of an explanation, without a classifier."""

    def blind(images: Tensor) -> Tensor:
        return images[:, :2, 0, 0]

    other = hidden(image[None], method.hide)[0]
    count = method.regions**2
    grid = patch_segments(SIDE, count, 1)[0].to(device)
    presence = torch.rand(method.evaluations, count) < 0.5
    return seconds(
        lambda: predict_coalitions(blind, image, other, grid, presence, ROUND),  # type: ignore[arg-type]
        device,
    )


def measure(name: str, args: argparse.Namespace, device: str) -> None:
    """Print the rows of a classifier."""
    torch.manual_seed(0)
    classifier = FORMS[name]().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = cells(max(BATCHES), device)
    many = images.repeat(-(-args.evaluations // len(images)), 1, 1, 1)[: args.evaluations]
    with evaluation_mode(classifier):
        batch = best_batch(classifier, images, device)
    method = PartitionSHAP(evaluations=args.evaluations)
    method.attribute(classifier, images[:1], 1, images[:1])  # numba compiles
    alone, explained = [], []
    for image in images[: args.rounds].split(1):
        with evaluation_mode(classifier):
            alone.append(seconds(partial(predict_log_odds, classifier, many, batch), device))
        explained.append(method.attribute(classifier, image, 1, image).seconds)
    plain, whole = sorted(alone)[len(alone) // 2], sorted(explained)[len(explained) // 2]
    compose, between = composing(images[0], method, device), shap_alone(images[0], method)
    print(
        f"{name}: {args.evaluations} images alone {plain:.2f} s (batch {batch}), shap_regions "
        f"{whole:.2f} s; ratio {whole / plain:.2f}; of it compose {compose:.2f} s, shap "
        f"{between:.2f} s, passes {whole - plain - compose - between:.2f} s",
        flush=True,
    )
    others: list[Explainer] = [GradientSHAP()]
    if classifier.has_patches:
        others.append(PatchSHAP(evaluations=args.evaluations))
    for other in others:
        taken = other.attribute(classifier, images[:1], 1, images[:8]).seconds
        print(f"  {other.name}: {taken:.2f} s per image", flush=True)


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(FORMS), help="all without any")
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3, help="images to explain")
    parser.add_argument("--precision", default=None, help="32-true or bf16-mixed")
    args = parser.parse_args()
    keep_heap()
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
