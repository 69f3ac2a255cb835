"""Time of explanations compared with the classifier alone and with the lime library.

In turn, each on the same image of 224 px: the classifier alone on as many images at its best batch
size, LIME and SHAP's partition explainer with as many evaluations, and lime's own image explainer
(ten images per pass, assembled in NumPy) in its usual form, with an image in float64::

    python tests/benchmarks/explanations.py [cnn vit hybrid] [--evaluations 1000]

Printed are medians over rounds and ratios; then the seconds of the other methods.
"""

import argparse
import contextlib
import io
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from lime.lime_image import LimeImageExplainer
from measuring import medians, seconds
from torch import Tensor

from leuk.classifiers.base import Classifier
from leuk.classifiers.cnn import CNN
from leuk.classifiers.hybrid import Hybrid
from leuk.classifiers.vit import ViT
from leuk.explain.base import Explainer, evaluation_mode
from leuk.explain.gradcam import GradCAM
from leuk.explain.lime import LIME, PatchLIME, cell_superpixels
from leuk.explain.perturb import hidden, predict_log_odds
from leuk.explain.shap import GradientSHAP, PartitionSHAP, PatchSHAP
from leuk.runs.process import keep_heap
from leuk.runs.trainer import precision_for

SIDE = 224
FORMS: dict[str, Callable[[], Classifier]] = {"cnn": CNN, "vit": ViT, "hybrid": Hybrid}


def speckled_discs(count: int, device: str) -> Tensor:
    """Speckled discs on black, ``(count, 3, 224, 224)``, as large as cells."""
    offset = torch.arange(SIDE) - SIDE / 2
    disc = offset[:, None] ** 2 + offset**2 < (SIDE / 3.2) ** 2
    generator = torch.Generator().manual_seed(0)
    speckles = 0.2 + 0.6 * torch.rand(count, 3, SIDE, SIDE, generator=generator)
    return (speckles * disc).to(device, memory_format=torch.channels_last)


def best_batch(classifier: Classifier, images: Tensor) -> int:
    """Batch size with the most images per second."""
    sizes = [size for size in (8, 32, 128, 512) if size <= len(images)]
    for size in sizes:
        predict_log_odds(classifier, images[:size], size)
    taken = {size: seconds(partial(predict_log_odds, classifier, images, size)) for size in sizes}
    return min(taken, key=lambda size: taken[size])


def lime_library(classifier: Classifier, image: Tensor, evaluations: int) -> None:
    """Run lime's own explainer on an image ``(1, 3, R, R)``, with LIME's superpixels."""
    segments = cell_superpixels(image, LIME().segments)[0].numpy()
    # The black background is an additional superpixel.
    segments = np.where(segments < 0, segments.max() + 1, segments)

    def probabilities(batch: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        images = torch.from_numpy(batch).permute(0, 3, 1, 2).to(image.device).float()
        with torch.no_grad():
            return np.asarray(classifier(images).float().softmax(1).cpu())

    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        LimeImageExplainer(random_state=0).explain_instance(
            image[0].permute(1, 2, 0).double().cpu().numpy(),
            probabilities,
            hide_color=hidden(image, LIME().hide)[0].permute(1, 2, 0).double().cpu().numpy(),
            num_samples=evaluations,
            segmentation_fn=lambda _: segments,
        )


def measure(name: str, evaluations: int, rounds: int, device: str) -> None:
    """Print the times of a classifier's explanations."""
    torch.manual_seed(0)
    classifier = FORMS[name]().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = speckled_discs(evaluations, device)

    def explain(method: Explainer) -> float:
        took = seconds(lambda: method.attribute(classifier, images[:1], 1, images[:8]))
        return took if device == "cpu" else took + seconds(torch.cuda.synchronize)

    lime, shap = LIME(samples=evaluations, repeats=1), PartitionSHAP(evaluations=evaluations)
    explain(shap)  # numba compiles
    with evaluation_mode(classifier):
        batch = best_batch(classifier, images)
        found = medians(
            {
                "alone": lambda: seconds(partial(predict_log_odds, classifier, images, batch)),
                "lime": partial(explain, lime),
                "shap_regions": partial(explain, shap),
                "library": lambda: seconds(
                    partial(lime_library, classifier, images[:1], evaluations)
                ),
            },
            rounds,
        )
    alone = found["alone"]
    print(f"{name}: {evaluations} images alone {alone:.2f} s (batch {batch})")
    for method in ("lime", "shap_regions"):
        print(f"  {method} {found[method]:.2f} s, {found[method] / alone:.2f} of the classifier")
    ratio = found["library"] / found["lime"]
    print(f"  lime's own explainer {found['library']:.2f} s, {ratio:.2f} of lime", flush=True)
    others: list[Explainer] = [GradCAM(), GradientSHAP()]
    if classifier.has_patches:
        others += [PatchSHAP(evaluations=evaluations), PatchLIME(samples=evaluations, repeats=1)]
    for other in others:
        print(f"  {other.name} {explain(other):.2f} s", flush=True)


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(FORMS), help="all without any")
    parser.add_argument("--evaluations", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", help="32-true or bf16-mixed")
    args = parser.parse_args()
    keep_heap()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = args.precision or precision_for(device)
    print(f"{device}, {precision}, {torch.get_num_threads()} threads")
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed"):
        for name in args.names:
            measure(name, args.evaluations, args.rounds, device)


if __name__ == "__main__":
    main()
