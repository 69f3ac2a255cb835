"""Mutation test: planted errors, and the share of them that the nearest fast tests detect.

``python tests/mutants.py [--only SUBSTRING] [--jobs 1]`` plants each error in a copy of the tree,
runs the tests listed with it and prints a line. The exit code is 1 if less than 95 % are detected.
``--only`` selects the errors whose file or texts contain the substring.
"""

import argparse
import contextlib
import importlib
import io
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import pytest

ROOT = Path(__file__).parents[1]
WANTED = 0.95
TIMEOUT = 600.0
"""Seconds for the tests of an error; after a timeout, it counts as not detected."""

_COPIED = ("leuk", "conf", "tests", "pyproject.toml")
_LOADED = ("torch", "lightning.pytorch", "pandas", "scipy.stats", "sklearn.linear_model", "skimage")
_LOADED += ("torchmetrics", "torch_fidelity", "timm", "hydra", "matplotlib.pyplot", "captum.attr")
_LOADED += ("pydantic", "hypothesis", "xdist", "shap", "lime.lime_image", "torchvision.transforms")
"""Modules imported once before the tests run in forks, which saves seconds per error."""


@dataclass(frozen=True)
class Mutant:
    """Planted error.

    Attributes:
        file: path relative to ``leuk``.
        old: text that occurs once in the file.
        new: its replacement.
        tests: test files that should fail, as patterns of their names in ``tests/unit`` without
            ``test_``.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def package(self) -> str:
        return self.file.partition("/")[0]

    def applied(self, tree: Path) -> str:
        """Return the file's text with the error.

        Raises:
            ValueError: the old text is missing or not unique.
        """
        text = (tree / "leuk" / self.file).read_text(encoding="utf-8")
        if (found := text.count(self.old)) != 1:
            raise ValueError(f"{self.file}: old text occurs {found} times, not once: {self.old!r}")
        return text.replace(self.old, self.new)

    def __str__(self) -> str:
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file}: {old[:60]} -> {new[:60]}"


PLANTED: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("metrics/area.py", "area"): [
        ("cell_mask(images).float().mean(dim=(1", "cell_mask(images).float().sum(dim=(1"),
        ("torch.sqrt(cell_areas(scaled) / target_area)", "(cell_areas(scaled) / target_area)"),
        ("np.outer(leukemic, healthy)", "np.outer(leukemic, leukemic)"),
        ('"hem": int(healthy.sum())', '"hem": int(leukemic.sum())'),
        ("[pairs, pairs / whole]", "[pairs, pairs]"),
    ],
    ("metrics/baselines.py", "baselines assess"): [
        ("to_numpy(np.float64), labels)", "to_numpy(np.float64), 1 - labels)"),
        ("to_numpy(np.float64))[:, 1]", "to_numpy(np.float64))[:, 0]"),
        ('"area": ("area",)', '"area": ("texture",)'),
        ('"morphology": MEASURES', '"morphology": MEASURES[:1]'),
    ],
    ("metrics/calibration.py", "calibration"): [
        ("* (2 * truth - 1)", "* (1 - 2 * truth)"),
        ("np.exp(-log_temperature)", "np.exp(log_temperature)"),
        ('("observed", truth)', '("observed", 1 - truth)'),
    ],
    ("metrics/calibration.py", "calibration metrics intervals"): [
        ('scores, side="right")', "scores)"),
    ],
    ("metrics/classification.py", "metrics thesis_tables"): [
        ('"sensitivity": "recall_hem"', '"sensitivity": "recall_all"'),
        ("sample.scores >= at for", "sample.scores > at for"),
    ],
    ("metrics/classification.py", "metrics"): [
        ("return _ratio(tp * tn - fp * fn", "return _ratio(tp * tn + fp * fn"),
        (", wrong, missed: _ratio(hit, hit + missed)", ", wrong, missed: _ratio(hit, hit + wrong)"),
        ("return one(tn, fn, fp)", "return one(tn, fp, fn)"),
        ("torch.from_numpy(labels)) ** 2)", "torch.from_numpy(labels)).abs())"),
        ("(1 - share) * hem(tp", "share * hem(tp"),
        ("(sample.scores >= threshold) ==", "(sample.scores > threshold) =="),
        ("sample.labels * len(names) + codes", "codes"),
    ],
    ("metrics/classification.py", "metrics intervals"): [
        ("_mcc, lowest=-1.0)", "_mcc)"),
    ],
    ("metrics/classification.py", "significance metrics"): [
        ('leukemic, side="right")]', "leukemic)]"),
    ],
    ("metrics/classification.py", "intervals area significance"): [
        ("np.bincount(self.codes[self.labels == label], ", "np.bincount(self.codes, "),
    ],
    ("metrics/cost.py", "cost"): [
        ('"latency_ms": 1000 * _seconds', '"latency_ms": _seconds'),
        ("_flops(predict, images[:1])", "_flops(predict, images)"),
    ],
    ("metrics/bootstrap.py", "intervals"): [
        ("quantile((1 + level) / 2) * self.error * slope", "quantile(level) * self.error * slope"),
        ("np.maximum(drawn.std(axis=1, ddof=1), jackknife)", "drawn.std(axis=1, ddof=1)"),
        ("((1 - level) / 2) ** (1 / patients)", "(1 - level) ** (1 / patients)"),
        ("all(fold.subjects_of(label) > 1", "all(fold.subjects_of(label) > 0"),
        ("weights[np.arange(n), members] = 0", "weights[np.arange(n), members] = 1"),
        ("(variance > _ROUNDING * total) / n", "(variance >= 0) / n"),
    ],
    ("metrics/comparison.py", "significance"): [
        ("* np.arange(len(values), 0, -1)", "* len(values)"),
        ("np.maximum.accumulate(stepped)", "stepped"),
        ('("1 ", "2 ")', '("1 ", "1 ")'),
    ],
    ("metrics/novelty.py", "novelty"): [
        ("unlimited.distances(held_out), patients", "unlimited.distances(train), patients"),
        ("distances[:, -1]", "distances[:, 0]"),
        ("unlimited = cls(_of_length_one(train), np.inf)", "unlimited = cls(train, np.inf)"),
    ],
    ("metrics/referral.py", "referral"): [
        ("Label.ALL, aim)", "Label.HEM, aim)"),
        ("healthy = ~leukemic & (scores >=", "healthy = ~leukemic & (scores <"),
        ("confidence = 1 - (1 - CONFIDENCE) / len(starts)", "confidence = CONFIDENCE"),
    ],
    ("metrics/thresholds.py", "thresholds"): [
        (">= wanted", "> wanted"),
    ],
    ("metrics/synthetic/distances.py", "image_quality"): [
        ("kthvalue(k + 1)", "kthvalue(k)"),
        ("reach = torch.cdist(real, real)", "reach = torch.cdist(synthetic, synthetic)"),
        ("inside.any(dim=0)", "inside.any(dim=1)"),
        ("generator.permutation(size)[:smallest]", "np.arange(size)[:smallest]"),
        ("synthetic,\n        real,\n        prc", "real,\n        synthetic,\n        prc"),
        ("().fit(*_stacked(train, train_other))", "().fit(*_stacked(test, test_other))"),
        ("real[nearest[start : start + _BATCH]]", "real[start : start + _BATCH]"),
    ],
    ("metrics/synthetic/features.py", "features"): [
        ("scaled = images.float() / 255", "scaled = images.float() / 127.5"),
    ],
    ("metrics/synthetic/features.py", "baselines"): [
        ("(measures - self._mean) / self._spread", "measures / self._spread"),
    ],
    ("metrics/synthetic/quality.py", "image_quality"): [
        ('"real": equal["train"]', '"real": equal["reference"]'),
        ('test = features["reference"], features', 'test = features["train"], features'),
        ("held_out.features, train", "synthetic.features, train"),
        ('(features["synthetic"], other, *test)', '(features["train"], other, *test)'),
    ],
    ("metrics/synthetic/memorization.py", "image_quality"): [
        ("if not itself:", "if itself:"),
        ("found.distances < limit", "found.distances > limit"),
        ("/ ours.shape[1] ** 0.5", "/ ours.shape[1]"),
    ],
    ("training.py", "guards_training"): [
        ("self.current_epoch, self.global_rank)", "self.current_epoch, 0)"),
        ("seed + epoch * _EPOCHS", "seed"),
        ("+ rank * _RANKS", ""),
        ("= ~torch.isfinite(losses.detach()).all()", "= ~torch.isfinite(losses.detach()).any()"),
    ],
    ("training.py", "guards_training classifier_fit"): [
        ("decay = min(decay, (1 + updates) / (_RAMP + updates))", "pass"),
        ("in floats], 1 - decay)", "in floats], decay)"),
        ("pl_module.state_dict()", "self._average_model.module.state_dict()"),
    ],
    ("data/augment.py", "augment"): [
        ("scale = 1 / (1 + zoom * self.zoom)", "scale = 1 / (1 + self.zoom)"),
        ('padding_mode="zeros"', 'padding_mode="border"'),
    ],
    ("data/pixels.py", "datamodule"): [
        (".div_(255)", ".div_(256)"),
        ("labels=self.labels[local]", "labels=self.labels[: len(local)]"),
    ],
    ("data/datamodule.py", "datamodule"): [
        ("self.trainer.global_rank if self.trainer else 0", "0"),
        ("self.trainer and self.trainer.training:", "self.trainer:"),
        ('rows = self.stage("train").index.to_numpy', 'rows = self.stage("test").index.to_numpy'),
        ("squares / count - mean**2", "squares / count"),
        ("self._loader(self.split.val)", "self._loader(self.split.test)"),
        ("self._loader(self.split.test)", "self._loader(self.split.val)"),
        ("self.repeat(np.arange(first, first + len(pixels)))", "pass"),
        ("self.train = np.concatenate([self.train, rows])", "self.train = rows"),
    ],
    ("data/decode.py", "pixels links"): [
        ("=mask.histogram()[255] / side**2", "=mask.histogram()[255] / (size[0] * size[1])"),
        ("hashlib.sha256(image.tobytes())", "hashlib.sha256(np.asarray(thumb).tobytes())"),
    ],
    ("data/labels.py", "layouts"): [
        ("HEM = 0", "HEM = 2"),
    ],
    ("data/layouts.py", "layouts"): [
        ('= _CLASS[match["label"].lower()]', '= Label(1 - _CLASS[match["label"].lower()])'),
        ("-{int(match['subject'])}\"", "-{match['subject']}\""),
        (", int(found.label), found.subject", ", 1 - int(found.label), found.subject"),
        ("Index(index[~again].reset_index", "Index(index.reset_index"),
    ],
    ("data/links.py", "links splits"): [
        ("SAME_TEXTURE = 0.7", "SAME_TEXTURE = -1.0"),
        ("        yield turned[:, :, ::-1]\n", ""),
        ("original[labels != labels[original]]", "original[labels == labels[original]]"),
        ("directed=False", "directed=True, connection='strong'"),
    ],
    ("data/pixels.py", "pixels"): [
        ("return stat.st_size, stat.st_mtime_ns", "return stat.st_size, 0"),
        ("rows.append((row, *facts))", "rows.append((len(rows), *facts))"),
    ],
    ("data/splits.py", "splits"): [
        ("for stage in reversed(assigned)", "for stage in assigned"),
        ('if "conflict" in table:', 'if "conflicts" in table:'),
        ('"patient" in table and self.link_subjects', '"patient" in table'),
        ("own.isin(others)", "own.isin(own)"),
        ("if not self.purge:\n            return", "if False:\n            return"),
    ],
    ("data/rules.py", "splits"): [
        ("test_size=self.test, stratify=labels[rows]", "test_size=self.val, stratify=labels[rows]"),
        ("stage_of[fold] = stage", "pass"),
        ('"val": stages["test"].copy()', '"val": stages["train"].copy()'),
        ("stratify=labels[rest], random_state=self.seed", "stratify=labels[rest], random_state=0"),
    ],
    ("runs/evaluate.py", "assess baselines"): [
        ("fit_temperature(val.scores, val.labels)", "fit_temperature(val.scores, 1 - val.labels)"),
        (
            "choose_on(val)\n    val, test",
            'choose_on(sample_of(data, predicted["test"]))\n    val, test',
        ),
        ('.loc[train.index], train["label"].', '.loc[others[1].index], others[1]["label"].'),
        ("choose_on(val)\n        results", "choose_on(test)\n        results"),
        (
            "val.subjects)\n    return thresholds",
            "np.arange(len(val)))\n    return thresholds",
        ),
        ('patients = data.dataset.index["patient"]', 'patients = data.dataset.index["subject"]'),
        ('table["patient"].to_numpy().astype(str)', 'table["subject"].to_numpy().astype(str)'),
        ('assess_area(data, predicted["test"]', 'assess_area(data, predicted["val"]'),
        ("store.areas[rows.numpy()].astype", "store.areas[: len(rows)].astype"),
        ('data.stage("train").index', 'data.stage("test").index'),
        ("calibrated(test, temperature), thresholds", "test, thresholds"),
        ("calibrated=sample.calibrated", "calibrated=sample.scores"),
        ("(replace(sample, scores=areas), areas)", "(sample, areas)"),
    ],
    ("runs/predict.py", "guards_runs"): [
        ('in chunks("val")', 'in chunks("train")'),
        ('in chunks("val")', 'in chunks("test")'),
    ],
    ("runs/evaluate.py", "assess"): [
        ("softmax(dim=1)[:, 1]", "softmax(dim=1)[:, 0]"),
        ("(self.classifier.predict_logits, images)", "(self.classifier, images)"),
        ("if not bool(logits.isfinite().all()):", "if False:"),
    ],
    ("runs/finished.py", "guards_runs"): [
        ('choose_band(self._sample("val"', 'choose_band(self._sample("test"'),
        ('"sensitivity": "sensitivity95"', '"sensitivity": "youden"'),
        ("return scores >= self.threshold", "return scores >= 0.5"),
        ("self.band.refers(self.calibrated(scores)", "self.band.refers((scores)"),
    ],
    ("runs/gan.py", "guards_runs"): [
        ("data.split.train[np.isin(stage, labels)]", "data.split.train"),
        ("split.train[np.isin(stage, labels)]", "split.test[: int(np.isin(stage, labels).sum())]"),
        ("math.ceil(gan.fitting.updates", "math.floor(gan.fitting.updates"),
    ],
    ("runs/gan.py", "guards_runs synthetic_images"): [
        ('HELD_OUT = "val"', 'HELD_OUT = "test"'),
        ('("reference", held_out, label)', '("reference", held_out, other)'),
        ('("reference", held_out, label)', '("reference", "train", label)'),
        ("= MorphologyExtractor(real.train)", "= MorphologyExtractor(real.reference)"),
        ("other = Label(1 - label)", "other = label"),
        ("synthetic.of(Label(1 - label))", "synthetic.of(label)"),
        ("= Label.ALL).sum() - (labels == Label.HEM", "= Label.HEM).sum() - (labels == Label.ALL"),
        ('counts.items()},\n        "seed": seed,', 'counts.items()},\n        "seed": 0,'),
        ('synthetic.origin["label"].to_numpy', '1 - synthetic.origin["label"].to_numpy'),
        ("sample(count, label, seed)", "sample(count, label, 0)"),
        ('self.origin["label"] == label', 'self.origin["label"] != label'),
    ],
    ("runs/classifier.py", "guards_runs"): [
        ('if cfg.augmentation.name == "class_weights":', "if False:"),
        ("if cfg.fit.standardize:", "if not cfg.fit.standardize:"),
        ('"data": data.listing()}', '"data": ""}'),
        ('"settings": fingerprint,', ""),
    ],
    ("runs/trainer.py", "guards_runs classifier_fit"): [
        ('glob("[!.]*.ckpt"), reverse=True)', 'glob("[!.]*.ckpt"))'),
        ("if key in stamp and found.get(key) != stamp[key]:", "if False:"),
    ],
    ("runs/explain.py", "explaining"): [
        ('choose_background(data.stage("train")', 'choose_background(data.stage("test")'),
        ('scorer.stage(data, "test")', 'scorer.stage(data, "val")'),
        ("if doubt := view.area_warning(image.area):", "if doubt := view.area_warning(0.0):"),
    ],
    ("runs/run.py", "guards_runs"): [
        ('    "data.workers",\n', '    "data.workers",\n    "data.resolution",\n'),
        ('    "grid",\n    "logger",', '    "grid",\n    "seed",\n    "logger",'),
        ("leaky=bool(instantiate(cfg.split).leaky)", "leaky=False"),
        ('fold=cfg.split.get("fold", 0),\n        seed', "seed"),
        ('    "data.root",\n', ""),
    ],
    ("runs/train.py", "guards_runs"): [
        ('"fingerprint": data.dataset.store.fingerprint', '"fingerprint": ""'),
    ],
    ("runs/record.py", "grid"): [
        ("replace(self, seed=0, fold=0)", "replace(self, fold=0)"),
        ("replace(self, seed=0, fold=0)", "replace(self, seed=0)"),
        ("shared[name] == 1", "shared[name] >= 1"),
    ],
    ("runs/state.py", "dry_run grid"): [
        ("if record.fingerprint != expected.fingerprint:", "if False:"),
        ('if record.status == "complete":', 'if record.status == "failed":'),
        ("held = not ours and is_held", "held = is_held"),
    ],
    ("runs/record.py", "grid assess"): [
        ("if schema > SCHEMA:", "if False:"),
    ],
    ("report/derived.py", "report"): [
        (
            "val = run.val.sample\n            thresholds",
            "val = run.test.sample\n            thresholds",
        ),
        ("one.with_scores(one.baselines[name]", "one.with_scores(1 - one.baselines[name]"),
        ("for one in (run.val, run.test)", "for one in (run.test, run.val)"),
        ("fit_temperature(val, sample.labels)", "fit_temperature(test, one.test.sample.labels)"),
        ("choose_thresholds(val, sample.labels", "choose_thresholds(test, one.test.sample.labels"),
        ("np.mean([getattr(run, stage)", "np.max([getattr(run, stage)"),
        ("if np.array_equal(one.val.paths, two.val.paths)", "if True"),
    ],
    ("report/comparisons.py", "comparisons"): [
        ("replace(found[index], p=p", "replace(found[index], p=known[index]"),
        ("return (one.model == _COMBINED, sort_key(one)) <", "return (True, sort_key(one)) <"),
        ("return named if named in known else", "return"),
        ('rules["fusion"].append(', "str("),
    ],
    ("report/figures.py", "report figures"): [
        ("2 * sample.labels + called", "2 * called + sample.labels"),
        ("sample.scores >= run.thresholds[cut]", "sample.scores >= 0.5"),
        ("dots = [one.difference for", "dots = [-one.difference for"),
    ],
    ("report/page.py", "page"): [
        ("leaky = any(record.run.leaky for record in records)", "leaky = False"),
        ("boxes(report.remarks).items())[:2]", "boxes(report.remarks).items())[2:]"),
        (
            'interval_text(*row.metrics["auroc"]) if row',
            'interval_text(*row.metrics["mcc"]) if row',
        ),
    ],
    ("report/gans.py", "page synthetic_images"): [
        ('(f"real, {word}", real)', '(f"real, {word}", synthetic)'),
    ],
    ("progress.py", "progress"): [
        ("if fact in sweep.seen:", "if False:"),
        ("time.perf_counter() - sweep.shown < _EVERY", "False"),
        ("{sweep.number + 1}/", "{sweep.number}/"),
    ],
    ("report/rows.py", "report"): [
        ("images = [sample.reweighted(cuts)", "images = [sample.reweighted({'default': 0.5})"),
        ('["value"], entry["low"], entry["high"]', '["value"], entry["high"], entry["low"]'),
        ("[(run.test.sample, run.thresholds)", "[(run.val.sample, run.thresholds)"),
    ],
    ("report/remarks.py", "report page"): [
        ("(configuration.first_seed, AREA)", '(configuration.first_seed, "majority")'),
        ("few_subjects(one.first_seed.pooled))", "few_subjects(one.first_seed.pooled)) and False"),
    ],
    ("report/load.py", "report comparisons"): [
        ("and np.array_equal(run.test.paths, theirs[run.key].test.paths)", ""),
        ('stages["val"], stages["test"], chosen)', 'stages["test"], stages["val"], chosen)'),
        ("if expected and expected != len(predicted.paths):", "if False:"),
        ('rows["patient"].to_numpy().astype(str)', 'rows["path"].to_numpy().astype(str)'),
        ('for key in ("score", "calibrated")', 'for key in ("calibrated", "score")'),
        ('temperature = record.calibration["temperature"]', "temperature = 1.0"),
        ("file_in(folder, name)", "folder / name"),
        ("np.concatenate(calibrated) if len(calibrated) == len(samples) else None", "None"),
    ],
    ("report/table.py", "table hostile"): [
        ('form: str = ".3f", bounds: str = ".2f"\n', 'form: str = ".2f", bounds: str = ".2f"\n'),
        ('inside = to.startswith("../") and', "inside ="),
        ("csv_text(self.table)", "self.table.to_csv(index=False)"),
    ],
    ("report/tables.py", "report"): [
        ('if METRICS[name].kind == "decision"', 'if METRICS[name].kind != "decision"'),
        ('headed(decisions, "@youden", middle=PATIENTS)', 'headed(decisions, "@youden")'),
        ('f"{name}{middle}{end}"', 'f"{name}{middle}"'),
        ('headed(probabilities, "", CALIBRATED)', 'headed(probabilities, "")'),
        ('f"{name}_low": low, f"{name}_high": high', 'f"{name}_low": high, f"{name}_high": low'),
    ],
    ("report/verdicts.py", "verdicts"): [
        ("if low > 0:", "if low + high > 0:"),
        ("comparison.p >= _ALPHA", "comparison.p > 1"),
        ("1 - _ALPHA / 2 / tests", "1 - _ALPHA / 2"),
    ],
    ("gans/base.py", "guards_training gan_losses gan_fit gans"): [
        ("move_average(past, now, self.fitting.average, self.done_updates)", "pass"),
        ('self.generator = self.averaged["module"]', "pass"),
        (
            "rates = (self.fitting.generator_rate, self.fitting.adversary_rate)",
            "rates = (self.fitting.adversary_rate, self.fitting.generator_rate)",
        ),
        ("images if self.augment is None else self.augment(images)", "images"),
        ('group["params"], clip)', 'group["params"], 1e9)'),
        ("self.adversary.requires_grad_(False)", "pass"),
        ('batch["images"] * 2 - 1', 'batch["images"] * 2'),
        ('self.done_updates = checkpoint["generator_updates"]', "pass"),
        ("torch.manual_seed(seed)", "torch.manual_seed(0)"),
        ("torch.full((count,), label", "torch.full((count,), 1 - label"),
        ("self.done_updates >= self.fitting.updates", "self.done_updates > self.fitting.updates"),
    ],
    ("gans/cgan.py", "gan_parts gans gan_losses gan_fit"): [
        ("return F.one_hot(labels, _CLASSES).", "return F.one_hot(1 - labels, _CLASSES)."),
        ("1 - of_real).mean() + F.relu(1 +", "1 + of_real).mean() + F.relu(1 -"),
        (", 1) + cross_entropy(of_synthetic, 0", ", 0) + cross_entropy(of_synthetic, 1"),
        ("-scores.mean() if self.hinge else", "scores.mean() if self.hinge else"),
        ("self.score(features) + matching", "self.score(features)"),
    ],
    ("gans/dcgan.py", "gan_parts gans gan_losses gan_fit"): [
        ("(self.score(real, labels), 1)", "(self.score(real, labels), 0)"),
    ],
    ("gans/diffaugment.py", "gan_parts gans gan_losses gan_fit"): [
        ("_BLACK = -1.0", "_BLACK = 0.0"),
    ],
    ("gans/strong.py", "gan_parts gans gan_losses gan_fit"): [
        ("_AMPLIFIED = 8.0", "_AMPLIFIED = 0.0"),
    ],
    ("gans/penalties.py", "gan_parts gans gan_losses gan_fit"): [
        ("between = synthetic + shares * (real - synthetic)", "between = real"),
        (".sqrt() - 1).square().mean()", ".sqrt()).square().mean()"),
        ("create_graph=True", "create_graph=False"),
    ],
    ("gans/wgan.py", "gan_parts gans gan_losses gan_fit"): [
        (": Tensor = of_real.mean() - of_synthetic.", ": Tensor = of_synthetic.mean() - of_real."),
        ("return drift + self.penalty * slope - distance", "return drift - distance"),
        ("drift + self.penalty * slope - distance", "self.penalty * slope - distance"),
        ("return -scores.mean()", "return scores.mean()"),
    ],
    ("classifiers/optim.py", "classifier_losses keras_forms"): [
        ("rate = optim.learning_rate * scale", "rate = optim.learning_rate"),
        ("(vectors, 0.0)", "(vectors, optim.weight_decay)"),
        ("(1 + math.cos(math.pi * done)) / 2", "(1 - math.cos(math.pi * done)) / 2"),
        ("patience=optim.plateau_patience - keras", "patience=optim.plateau_patience"),
    ],
    ("classifiers/transformer.py", "vit classifiers gradcam"): [
        ("queries = queries + self.drop_path(attended)", "queries = self.drop_path(attended)"),
        ("attention[:, :, 0, 1:] for attention", "attention[:, :, 1:, 0] for attention"),
        ("patches], dim=1) + self.positions", "patches], dim=1)"),
    ],
    ("classifiers/hybrid.py", "hybrid"): [
        ("* convolved + (1 - share) * attended", "* attended + (1 - share) * convolved"),
    ],
    ("classifiers/pretrained.py", "pretrained"): [
        ("(backbone, self.backbone_rate)]", "(backbone, 1.0)]"),
        (".current_epoch >= self.optim.frozen_epochs", ".current_epoch > self.optim.frozen_epochs"),
        ("antialias=smaller", "antialias=False"),
        ("inputs = self.normalized(images)", "inputs = images"),
    ],
    ("classifiers/prototypes.py", "prototypes"): [
        ("* cluster - _SEPARATION * separation", "* cluster + _SEPARATION * separation"),
        ("masked_fill(~own, torch.inf)", "masked_fill(own, torch.inf)"),
        ("labels, self.class_weights) + head.sparsity()", "labels) + head.sparsity()"),
        ('other = batch["labels"][:, None] != head.', 'other = batch["labels"][:, None] == head.'),
    ],
    ("classifiers/prototypes.py", "vit hybrid"): [
        ("self.attention_loss * off", "-self.attention_loss * off"),
        ("self.fused(body, encoded[:, 0])", "self.fused(body, encoded[:, 1])"),
    ],
    ("config/options.py", "config"): [
        ("filled[key] = value", "filled.setdefault(key, value)"),
        ("zip([one.arg for one in own], init", "zip([one.arg for one in own][1:], init"),
    ],
    ("explain/base.py", "faithfulness gradcam checked_tables"): [
        ("return (labels == Label.ALL).float() * 2", "return (labels == Label.HEM).float() * 2"),
    ],
    ("explain/base.py", "gradcam shap faithfulness"): [
        ("[:, Label.ALL] - logits[:, Label.HEM]", "[:, Label.HEM] - logits[:, Label.ALL]"),
    ],
    ("explain/base.py", "gradcam shap"): [
        ("maps=found.toward(target),", "maps=found.maps,"),
        ("classifier.eval().requires_grad_(False)", "classifier.requires_grad_(False)"),
    ],
    ("explain/gradcam.py", "gradcam"): [
        ("for target in Label]", "for target in reversed(Label)]"),
        ("lambda batch: log_odds(classifier(batch))", "lambda batch: -log_odds(classifier(batch))"),
        ("(part, target=target)", "(part, target=target, relu_attributions=True)"),
        (
            "return classifier.cam_layer\n",
            "return next(m for m in classifier.modules() if isinstance(m, nn.Conv2d))\n",
        ),
    ],
    ("explain/rollout.py", "gradcam"): [
        ("torch.eye", "0 * torch.eye"),
        ("rolled[:, 0, 1:].cpu()", "rolled[:, 1:, 0].cpu()"),
    ],
    ("explain/shap.py", "shap"): [
        ("odds - compared.mean(), range_", "odds, range_"),
        ("gains = gains - predict_log_odds", "gains = gains + predict_log_odds"),
        (".double().sum(dim=(1, 2)) - gains).abs(", ".double().mean(dim=(1, 2)) - gains).abs("),
        ("gains - log_odds(classifier.from", "gains + log_odds(classifier.from"),
        ("= torch.from_numpy(found.values[0])", "= -torch.from_numpy(found.values[0])"),
    ],
    ("explain/lime.py", "lime"): [
        (", (predicted - predicted[0])[:, None]", ", (predicted[0] - predicted)[:, None]"),
        ("= torch.from_numpy(fits[0][0])", "= torch.from_numpy(fits[-1][0])"),
        ("PresenceLime(self.features, self.seed + turn)", "PresenceLime(self.features, self.seed)"),
        ("float(found.score) if weights.any()", "float(1 - found.score) if weights.any()"),
    ],
    ("data/decode.py", "perturb regions"): [
        ("images.amax(dim=1) > LIT / 255", "images.amin(dim=1) > LIT / 255"),
    ],
    ("explain/perturb.py", "perturb lime"): [
        ("(torch.where(shown, image, other))", "(torch.where(shown, other, image))"),
    ],
    ("explain/perturb.py", "perturb shap"): [
        ("torch.where(present, own, other)", "torch.where(present, other, own)"),
        (".stack(sums).sum(dim=0) / len(background)", ".stack(sums).sum(dim=0) / len(sums)"),
    ],
    ("explain/quality/faithfulness.py", "faithfulness"): [
        ("(1 / 8 + (1 / 3 - 1 / 8) * share)", "(1 / 8 + 1 / 3 * share)"),
        ("dim=1, descending=True, stable=True", "dim=1, descending=False, stable=True"),
        ("toward.double().sigmoid()", "toward.double()"),
        ("fallen * signs(case.target, count)[:, None]", "fallen"),
        (
            "whole[:, None] - case.predict(indices, hides, other).view(count, samples)",
            "case.predict(indices, hides, other).view(count, samples) - whole[:, None]",
        ),
        (".where(raw < opposite, fitted, none)", ".where(raw < opposite, fitted, fitted)"),
        ("case.classifier, batch, target", "case.classifier, case.images, case.target"),
        ("zlib.crc32(mask, seed)", "seed"),
    ],
    ("explain/quality/randomization.py", "randomization checked_tables"): [
        ("rank_correlations([one.abs(), again.abs()]", "rank_correlations([one, again]"),
        ("    ][::-1]", "    ]"),
        ("randomized, case.images", "case.classifier, case.images"),
        ("randomized, case.images, case.target,", "randomized, case.images, 0,"),
        ("np.random.SeedSequence((seed, number))", "np.random.SeedSequence((number, number))"),
    ],
    ("explain/quality/randomization.py", "faithfulness randomization"): [
        ("ranks = rankdata(values, axis=1)", "ranks = values.astype(float)"),
    ],
    ("explain/quality/checks.py", "checked_tables"): [
        (
            "codes = np.unique(patients.astype(str)[finite], return_inverse=True)[1]",
            "codes = np.arange(int(finite.sum()))",
        ),
        ("found[name].toward(target).where", "found[name].maps.where"),
        ("~(it.degenerate | empty)", "~it.degenerate"),
        (
            "cascades(few, methods",
            "cascades(Case(classifier, few.images, 1 - few.target, background), methods",
        ),
        ("(trapezoid(heights, shares, axis=1))", "(trapezoid(heights, axis=1))"),
    ],
    ("explain/quality/checks.py", "faithfulness"): [
        ('gain = own[f"insertion_{hide}"] - own', 'gain = -own[f"insertion_{hide}"] + own'),
        ('own[gain] - numbers["random"][gain]', "own[gain]"),
    ],
    ("explain/quality/regions.py", "regions"): [
        ("band * 2 * np.sqrt(cell.sum() / np.pi)", "band * np.sqrt(cell.sum() / np.pi)"),
        ("values = signed.double().clamp(min=0)", "values = signed.double().abs()"),
    ],
    ("explain/cohort.py", "explain"): [
        ("DECIDED = 0.5", "DECIDED = 0.4"),
        ('choose_background(data.stage("train")', 'choose_background(data.stage("test")'),
        ('choose_background(data.stage("train")', 'choose_background(data.stage("val")'),
        ('["shown"] = np.arange(len(chosen)) <', '["shown"] = np.arange(len(chosen)) <='),
        ('turns = table.groupby([*keys, "subject"])', "turns = table.groupby([*keys])"),
    ],
    ("explain/study.py", "explain"): [
        ('((table["score"] >= DECIDED).to_numpy(np.int64))', '(table["label"].to_numpy(np.int64))'),
        ('table["patient"].to_numpy().astype(str)', 'table["subject"].to_numpy().astype(str)'),
        ("images.to(device), Label.ALL, background)", "images.to(device), Label.HEM, background)"),
        ("finite = values[values.isfinite()]", "finite = values.nan_to_num()"),
    ],
    ("explain/figures.py", "panels"): [
        ("for position in group if usable[position]]", "for position in group]"),
        ('outcome.startswith("true") else "WRONG"', 'outcome.endswith("positive") else "WRONG"'),
        ("row = 2 * number + (target == Label.HEM)", "row = 2 * number + (target == Label.ALL)"),
    ],
    ("classifiers/base.py", "classifier_losses classifiers guards_training classifier_fit"): [
        ("            self.class_weights,\n", ""),
        ("label_smoothing=self.optim.label_smoothing", "label_smoothing=0.0"),
        ("loss = cost.float() + F.cross_entropy(", "loss = F.cross_entropy("),
        ("return (images - self.mean) / self.std", "return images - self.mean"),
        (".copy_(torch.tensor(weights))", ".copy_(torch.tensor(weights[::-1]))"),
        ("logits.softmax(dim=1)[:, 1]", "logits.softmax(dim=1)[:, 0]"),
        ("= logits.double().softmax(dim=1)[:, 1]", "= logits.double().softmax(dim=1)[:, 0]"),
        ("order = columns[0].argsort(stable=True)", "order = torch.arange(len(columns[0]))"),
        ("torch.cat([-logit / 2, logit / 2], dim=1)", "torch.cat([logit / 2, -logit / 2], dim=1)"),
        ('checkpoint["plateau"] = self._plateau.state_dict()', "pass"),
    ],
}
"""Pairs of old and new text, by file and tests."""

MUTANTS = [
    Mutant(file, old, new, tuple(tests.split()))
    for (file, tests), pairs in PLANTED.items()
    for old, new in pairs
]


@contextlib.contextmanager
def copies(count: int) -> Iterator[list[Path]]:
    """Make temporary copies of the tree; files that are never mutated are linked."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = [Path(folder, f"leuk-{number}") for number in range(count)]
        for tree in trees:
            tree.mkdir()
            for source in ROOT.iterdir():
                if source.name in _COPIED:
                    copy = shutil.copytree if source.is_dir() else shutil.copy
                    copy(source, tree / source.name)
                elif not source.name.startswith("."):
                    (tree / source.name).symlink_to(source)
        yield trees


def files_of(tree: Path, tests: Sequence[str]) -> list[str]:
    """List the test files of patterns, in order, without duplicates.

    Raises:
        ValueError: no file matches a pattern.
    """
    files: dict[str, None] = {}
    for pattern in tests:
        found = sorted((tree / "tests/unit").glob(f"test_{pattern}.py"))
        if not found:
            raise ValueError(f"tests/unit/test_{pattern}.py: no such file")
        files |= dict.fromkeys(str(path.relative_to(tree)) for path in found)
    return list(files)


def code_of(tree: Path, files: Sequence[str], keep: bool = False) -> int | None:
    """Run tests in a tree and return their exit code, or None after a timeout.

    Args:
        tree: copy of the tree.
        files: test files.
        keep: write bytecode; never while an error is planted, because later processes would use it.
    """
    process = multiprocessing.get_context("fork").Process(target=_run, args=(tree, files, keep))
    process.start()
    process.join(TIMEOUT)
    code = process.exitcode
    with contextlib.suppress(ProcessLookupError):  # and the processes that the tests started
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    return code


def _run(tree: Path, files: Sequence[str], keep: bool) -> None:
    os.setsid()
    os.chdir(tree)
    os.environ |= {"PYTHONPATH": str(tree)} | ({} if keep else {"PYTHONDONTWRITEBYTECODE": "1"})
    sys.path.insert(0, str(tree))
    sys.dont_write_bytecode = not keep
    import leuk

    assert Path(leuk.__file__).is_relative_to(tree), leuk.__file__
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = pytest.main(["-x", "-q", "-n0", "-p", "no:cacheprovider", *files])
    os._exit(int(code))


def plant(tree: Path, mutant: Mutant) -> str:
    """Test an error: ``killed``, ``SURVIVED``, ``timed out`` or ``old text missing``."""
    path = tree / "leuk" / mutant.file
    before, stat = path.read_text(encoding="utf-8"), path.stat()
    try:
        text = mutant.applied(tree)
    except ValueError:
        return "old text missing"
    path.write_text(text, encoding="utf-8")
    try:
        code = code_of(tree, files_of(tree, mutant.tests))
    finally:
        path.write_text(before, encoding="utf-8")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the time stored in its bytecode
    if code is None:
        return "timed out"
    return "SURVIVED" if code == 0 else "killed"


def run(mutants: Sequence[Mutant], jobs: int) -> int:
    """Test all errors, print their outcomes and return the exit code."""
    for name in _LOADED:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    began, found = time.perf_counter(), list[tuple[Mutant, str]]()
    with copies(jobs) as trees:
        needed = {file for mutant in mutants for file in files_of(ROOT, mutant.tests)}
        for file in sorted(needed):
            for tree in trees:
                if code_of(tree, [file], keep=True) != 0:
                    print(f"{file} fails without a planted error", flush=True)
                    return 1
        free: SimpleQueue[Path] = SimpleQueue()
        for tree in trees:
            free.put(tree)
        baseline, began = time.perf_counter() - began, time.perf_counter()
        print(
            f"{len(mutants)} errors; their tests pass without them ({baseline:.0f} s)", flush=True
        )

        def outcome_of(mutant: Mutant) -> tuple[Mutant, str]:
            tree = free.get()
            try:
                return mutant, plant(tree, mutant)
            finally:
                free.put(tree)

        with ThreadPoolExecutor(jobs) as pool:
            for mutant, outcome in pool.map(outcome_of, mutants):
                found.append((mutant, outcome))
                remaining = (time.perf_counter() - began) / len(found) * (len(mutants) - len(found))
                done = f"{len(found)}/{len(mutants)} {remaining:5.0f} s left"
                print(f"{done}  {outcome:9} {mutant}", flush=True)
    return _summarize(found)


def _summarize(found: Sequence[tuple[Mutant, str]]) -> int:
    planted = Counter(mutant.package for mutant, _ in found)
    killed = Counter(mutant.package for mutant, outcome in found if outcome == "killed")
    for package, count in planted.items():
        print(f"{package}: {killed[package]} of {count} killed")
    share = sum(killed.values()) / max(1, len(found))
    print(f"{sum(killed.values())} of {len(found)} killed ({share:.1%})")
    return int(not found or share < WANTED)


if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="substring of the file or of a text")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    chosen = [m for m in MUTANTS if arguments.only in f"{m.file} {m.old} {m.new}"]
    sys.exit(run(chosen, arguments.jobs))
