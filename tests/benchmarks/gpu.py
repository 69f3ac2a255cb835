"""CUDA tests, rates, explanations and parallel runs on one GPU, as one table in ten minutes.

Rates are images per second of whole training steps (of a GAN generator updates times batch size),
of the thesis's forms at 224 px and the strong forms at 64 px: eager, compiled, and compiled with
CUDA graphs. Explanations are seconds for one image, beside the classifier alone on as many images.
Measurements that the time does not allow are listed as such::

    python tests/benchmarks/gpu.py [--minutes 10] [--seconds 4]

``--tiny`` runs the same code with small networks on any device, as a test.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from explanations import best_batch, speckled_discs
from hydra import compose, initialize_config_dir
from lightning.pytorch import LightningModule
from measuring import seconds
from training import rate

from leuk.classifiers.base import Classifier
from leuk.classifiers.cnn import CNN
from leuk.classifiers.vit import ViT
from leuk.config import conf_dir
from leuk.config.schema import register
from leuk.config.targets import instantiate
from leuk.explain.base import Explainer, evaluation_mode
from leuk.explain.lime import LIME
from leuk.explain.perturb import predict_log_odds
from leuk.explain.shap import PartitionSHAP
from leuk.gans.base import Adversarial
from leuk.runs.process import keep_heap
from leuk.runs.run import register_resolvers
from leuk.runs.trainer import device_for, precision_for

SIDES = {"thesis": 224, "strong": 64}
MODES = {"eager": None, "compiled": "default", "CUDA graphs": "reduce-overhead"}
PARALLEL = 4

Row = tuple[str, str]


def built(recipe: str, group: str, name: str, side: int) -> LightningModule:
    """Model or GAN of a recipe."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        choices = [f"recipe={recipe}", f"{group}={name}", f"data.resolution={side}"]
        cfg = compose("train", choices, return_hydra_config=True)
    module = instantiate(cfg[group])
    assert isinstance(module, LightningModule)
    return module


def compile_in(module: LightningModule, mode: str) -> None:
    """Compile as ``fit.compile`` and ``gan_fit.compile`` do, with a mode of torch.compile."""
    if isinstance(module, Adversarial):
        module.generator.compile(mode=mode)
        if not module.penalized:  # no double backward through compiled networks
            module.adversary.compile(mode=mode)
    else:
        module.compile(mode=mode)


def tests() -> str:
    """Summary of the CUDA tests."""
    tests = Path(__file__).parents[1] / "integration" / "test_cuda.py"
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", str(tests)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.strip().splitlines() or [done.stderr[-200:]])[-1]


def training_rate(
    recipe: str, group: str, name: str, mode: str | None, side: int, duration: float
) -> str:
    """Images per second of training steps, after those that compile."""
    module = built(recipe, group, name, side)
    if mode is not None:
        compile_in(module, mode)
    return f"{rate(module, side, duration, precision_for('auto')):.0f} images/s"


def explanation_times(name: str, evaluations: int) -> str:
    """Seconds of LIME and SHAP for one image, and of the classifier alone on as many images."""
    device = device_for("auto")
    torch.manual_seed(0)
    forms: dict[str, type[Classifier]] = {"cnn": CNN, "vit": ViT}
    classifier = forms[name]().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = speckled_discs(evaluations, device)

    def timed(work: Callable[[], object]) -> float:
        work()  # compiles and warms up
        return seconds(lambda: (work(), torch.cuda.synchronize() if device == "cuda" else None))

    methods: list[Explainer] = [
        LIME(samples=evaluations, repeats=1),
        PartitionSHAP(evaluations=evaluations),
    ]
    enabled = precision_for("auto") == "bf16-mixed"
    with evaluation_mode(classifier), torch.autocast(device, torch.bfloat16, enabled=enabled):
        batch = best_batch(classifier, images)
        alone = timed(partial(predict_log_odds, classifier, images, batch))
        times = [
            timed(partial(method.attribute, classifier, images[:1], 1, images[:8]))
            for method in methods
        ]
    found = ", ".join(
        f"{method.name} {taken:.2f} s" for method, taken in zip(methods, times, strict=True)
    )
    return f"alone {alone:.2f} s, {found}"


def parallel_runs(count: int, *overrides: str) -> str:
    """Seconds of a run, and of several beside each other, each a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "leuk", "train", f"outputs={folder}", "explain=none"]

        def started(name: str, seed: int) -> "subprocess.Popen[bytes]":
            line = [*command, f"name={name}", f"seed={seed}", *overrides]
            quiet = subprocess.DEVNULL
            return subprocess.Popen(line, stdout=quiet, stderr=quiet, env={**os.environ})

        started("data", 0).wait()  # draws and decodes the images
        began = time.perf_counter()
        failed = started("one", 0).wait() != 0
        alone, began = time.perf_counter() - began, time.perf_counter()
        runs = [started("four", seed) for seed in range(count)]
        failed |= sum(run.wait() != 0 for run in runs) > 0
        together = time.perf_counter() - began
    if failed:
        return "failed"
    return f"one {alone:.0f} s, {count} together {together:.0f} s"


def measurements(tiny: bool, duration: float) -> Iterator[tuple[str, Callable[[], str]]]:
    """Name and work of each measurement, the most important first."""
    if not tiny:
        yield "CUDA tests", tests
    sides = dict.fromkeys(SIDES, 32) if tiny else SIDES
    for recipe in ("strong", "thesis"):
        files = [
            path for kind in ("gan", "model") for path in sorted(conf_dir().glob(f"{kind}/*.yaml"))
        ]
        names = [(path.parent.name, path.stem) for path in files]
        for group, name in names[:1] if tiny else names:
            for label, mode in list(MODES.items())[: 1 if tiny else None]:
                work = partial(training_rate, recipe, group, name, mode, sides[recipe], duration)
                yield f"{name}, {recipe} at {sides[recipe]} px, {label}", work
    evaluations = 8 if tiny else 1000
    for name in ("cnn",) if tiny else ("cnn", "vit"):
        yield f"{name}, explanations", partial(explanation_times, name, evaluations)
    if not tiny:
        yield "runs", partial(parallel_runs, PARALLEL, "recipe=strong", "augmentation=dcgan")


def table(tiny: bool, minutes: float, duration: float) -> list[Row]:
    """Rows ``(what, result)``; a failed measurement has its error as the result."""
    began, rows = time.perf_counter(), []
    for name, work in measurements(tiny, duration):
        if time.perf_counter() - began > 60 * minutes:
            rows.append((name, "not measured, no time left"))
            continue
        try:
            rows.append((name, work()))
        except Exception as error:  # one failure must not lose the other rows
            rows.append((name, f"failed: {type(error).__name__}: {str(error).splitlines()[:1]}"))
        print(f"{name}: {rows[-1][1]}", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=9, help="start no measurement after these")
    parser.add_argument("--seconds", type=float, default=4, help="of each rate")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if not args.tiny and not torch.cuda.is_available():
        print(f"skipped: no CUDA device (torch {torch.__version__})")
        return
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    keep_heap()
    register()
    register_resolvers()
    print(f"| {device_for('auto')}, torch {torch.__version__} | |\n|---|---|")
    for name, result in table(args.tiny, args.minutes, args.seconds):
        print(f"| {name} | {result} |")


if __name__ == "__main__":
    main()
