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
        ("np.linspace(0, 1, bins + 1)[1:-1]", "np.linspace(0, 1, bins + 1)[2:-1]"),
        ("torch.sqrt(cell_areas(scaled) / target_area)", "(cell_areas(scaled) / target_area)"),
        ("np.outer(leukemic, healthy)", "np.outer(leukemic, leukemic)"),
        ("hem=int(healthy.sum())", "hem=int(leukemic.sum())"),
        ("_ROUNDS = 3", "_ROUNDS = 1"),
        ("found.interval_within(level, 0, 1, n)", "found.interval_within(0.5, 0, 1, n)"),
        ("_Pairs(self.won / total, self.all / total)", "_Pairs(self.won, self.all)"),
    ],
    ("metrics/baselines.py", "baselines assess"): [
        ("to_numpy(np.float64), labels)", "to_numpy(np.float64), 1 - labels)"),
        ("to_numpy(np.float64))[:, 1]", "to_numpy(np.float64))[:, 0]"),
        ('Baseline(("area",))', 'Baseline(("texture",))'),
        ('strategy="prior"', 'strategy="uniform"'),
        ("Baseline(MEASURES)", "Baseline(MEASURES[:1])"),
        ("StandardScaler(), LogisticRegression(max", "LogisticRegression(max"),
    ],
    ("metrics/calibration.py", "calibration"): [
        ("* (2 * truth - 1)", "* (1 - 2 * truth)"),
        ("np.exp(-log_temperature)", "np.exp(log_temperature)"),
        ("np.float64)) / temperature))", "np.float64)) * temperature))"),
        ("COOLEST, HOTTEST = 0.05, 20.0", "COOLEST, HOTTEST = 0.5, 2.0"),
    ],
    ("metrics/synthetic/quality.py", "image_quality synthetic_images"): [
        ("_EMPTY = 0.05", "_EMPTY = 0.5"),
        ("_SAME = 1.0", "_SAME = 0.0"),
        ("_DISTINCT = 0.99", "_DISTINCT = 0.5"),
        ("if ours < theirs / 2:", "if ours < theirs / 20:"),
        ('metrics["closer_share"] or 0, metrics', 'metrics["train_closer_share"] or 0, metrics'),
    ],
    ("metrics/classification.py", "metrics thesis_tables"): [
        ('"sensitivity": "recall_hem"', '"sensitivity": "recall_all"'),
        ('"auc": "balanced_accuracy"', '"auc": "accuracy"'),
        ("checked >= threshold", "checked > threshold"),
    ],
    ("metrics/cost.py", "cost"): [
        ("return 1000 * median(taken)", "return median(taken)"),
        ("_milliseconds(predict, images) / batch", "_milliseconds(predict, images)"),
        ("predict = predict or model", "predict = model"),
        ("for size, trainable in sizes if trainable)", "for size, trainable in sizes)"),
        ("_flops(predict, images[:1])", "_flops(predict, images)"),
        ("set_fastpath_enabled(False)", "set_fastpath_enabled(True)"),
    ],
    ("metrics/synthetic/distances.py", "image_quality features"): [
        ("_PRECISION_NEIGHBORS = 3", "_PRECISION_NEIGHBORS = 5"),
        ("_COVERAGE_NEIGHBORS = 5", "_COVERAGE_NEIGHBORS = 3"),
        ("kthvalue(k + 1)", "kthvalue(k)"),
        ("reach = torch.cdist(real, real)", "reach = torch.cdist(synthetic, synthetic)"),
        ("inside.any(dim=0)", "inside.any(dim=1)"),
        ("sum(dim=1).mean() / k)", "sum(dim=1).mean())"),
        ('"kid_kernel_poly_degree": 3', '"kid_kernel_poly_degree": 2'),
        ("splits=1", "splits=2"),
        ("generator.permutation(size)[:smallest]", "np.arange(size)[:smallest]"),
        ("if synthetic.inception:", "if not synthetic.inception:"),
        ("synthetic,\n        real,\n        prc", "real,\n        synthetic,\n        prc"),
    ],
    ("metrics/synthetic/features.py", "features"): [
        ("scaled = images.float() / 255", "scaled = images.float() / 127.5"),
        ("(resized - 0.5) / 0.5", "resized"),
        ("self.pooled[rows], logits)", "self.pooled[rows], self.logits)"),
        ("if found[1] is not None:", "if False:"),
    ],
    ("metrics/bootstrap.py", "intervals"): [
        ("(sample.scores >= threshold) ==", "(sample.scores > threshold) =="),
        (
            '"score": np.bincount(rows, sample.scores) / images',
            '"score": np.bincount(rows, sample.scores)',
        ),
        ("sample.labels * len(names) + codes", "codes"),
        (
            "half = self.quantile((1 + level) / 2) * self.error * slope",
            "half = self.quantile(level) * self.error * slope",
        ),
        ("found[..., 1 : self._draws + 1]", "found[..., 0 : self._draws]"),
        ("drawn = drawn + share * spread", "drawn = drawn + spread"),
        ("(n - 1) / n * (off**2)", "(off**2)"),
        ("np.maximum(drawn.std(axis=1, ddof=1), jackknife)", "drawn.std(axis=1, ddof=1)"),
        ("_freedom(_alike(components), len(values))", "_freedom(components, len(values))"),
        ("((1 - level) / 2) ** (1 / patients)", "(1 - level) ** (1 / patients)"),
        ("return max(low, lowest), min(high, 1.0)", "return low, high"),
        ("all(fold.subjects_of(label) > 1", "all(fold.subjects_of(label) > 0"),
        ("len(tested) ** 2 / sum", "len(tested) / sum"),
        ("= drawn * (n / (n - 1))", "= drawn"),
        ("weights[np.arange(n), members] = 0", "weights[np.arange(n), members] = 1"),
        ("generator.multinomial(n - 1", "generator.multinomial(n"),
    ],
    ("metrics/synthetic/quality.py", "image_quality features"): [
        ('"real": equal["train"]', '"real": equal["reference"]'),
        ('"other_class": equal["reference_other"]', '"other_class": equal["train_other"]'),
        ('test = features["reference"], features', 'test = features["train"], features'),
        (
            "nearest_in_features(held_out.features, train",
            "nearest_in_features(synthetic.features, train",
        ),
        ("train.features, train.features, itself=False", "train.features, train.features"),
        ("train.images, train.images, itself=False", "train.images, train.images"),
        ('[*collapse(rows["synthetic"], rows["real"])', '[*collapse(rows["real"], rows["real"])'),
        (
            'usefulness(features["synthetic"], other, *test)',
            'usefulness(features["train"], other, *test)',
        ),
        (
            '"diversity": diversity(own.images, seed)',
            '"diversity": diversity(reference.images, seed)',
        ),
    ],
    ("metrics/synthetic/memorization.py", "image_quality"): [
        ("_CLOSEST = 0.01", "_CLOSEST = 0.2"),
        ("if not itself:", "if itself:"),
        ("closer = found.values < best[chunk]", "closer = found.values > best[chunk]"),
        ("found.distances < limit", "found.distances > limit"),
        ("_STEP = 15", "_STEP = 90"),
        ("share in (0.5, _CLOSEST)", "share in (0.4, _CLOSEST)"),
        ("patient_numbers(patients, len", "patient_numbers(None, len"),
        ("shrunk.flip(3))\n        for angle", "shrunk)\n        for angle"),
        ("/ ours.shape[1] ** 0.5", "/ ours.shape[1]"),
        ("np.argsort(synthetic.distances", "np.argsort(-synthetic.distances"),
    ],
    ("metrics/classification.py", "metrics"): [
        ("return _ratio(tp * tn - fp * fn", "return _ratio(tp * tn + fp * fn"),
        (
            '"recall": lambda hit, wrong, missed: _ratio(hit, hit + missed)',
            '"recall": lambda hit, wrong, missed: _ratio(hit, hit + wrong)',
        ),
        ("return one(tn, fn, fp)", "return one(tn, fp, fn)"),
        ('_recall("sens.", "all")', '_recall("sens.", "hem")'),
        ("torch.from_numpy(labels)) ** 2)", "torch.from_numpy(labels)).abs())"),
        ('_torchmetrics("binary_average_precision")', '_torchmetrics("binary_auroc")'),
        ('norm="l1"', 'norm="max"'),
        ("(1 - share) * hem(tp", "share * hem(tp"),
    ],
    ("metrics/classification.py", "metrics intervals"): [
        ("_mcc, lowest=-1.0)", "_mcc)"),
        ("absolute=True,", "absolute=False,"),
        ('classes=(label,) if name == "recall"', 'classes=(label,) if name == "f1"'),
    ],
    ("metrics/baselines.py", "baselines"): [
        ("(b.std() or 1.0)", "(a.std() or 1.0)"),
        ("1 - cell.area / mask.sum()", "cell.area / mask.sum()"),
        ("cell = max(regionprops", "cell = min(regionprops"),
        ("_RIM = 2", "_RIM = 1"),
        ("(measures - self._mean) / self._spread", "measures / self._spread"),
        ("float(cell.area / mask.size)", "float(cell.area)"),
        ("float(cell.eccentricity)", "float(cell.solidity)"),
        ("axis=-1))[core].std()", "axis=-1)).std()"),
    ],
    ("metrics/novelty.py", "novelty"): [
        ("NEIGHBORS = 10", "NEIGHBORS = 1"),
        ("QUANTILE = 0.99", "QUANTILE = 0.5"),
        ("unlimited.distances(held_out), patients", "unlimited.distances(train), patients"),
        ("distances[:, -1]", "distances[:, 0]"),
        ("MOST_LIT = 0.8", "MOST_LIT = 0.99"),
        ("largest < SMALLEST * smallest", "largest < smallest"),
        ("_EIGHT = np.ones((3, 3), dtype=bool)", "_EIGHT = np.eye(3, dtype=bool)"),
        ("unlimited = cls(_of_length_one(train), np.inf)", "unlimited = cls(train, np.inf)"),
        ("[1:].max() / mask.size", "[1:].sum() / mask.size"),
    ],
    ("metrics/classification.py", "significance metrics"): [
        ("dtype=np.int64) / 2", "dtype=np.int64) / 1"),
        ('leukemic, side="right")]', "leukemic)]"),
    ],
    ("metrics/baselines.py", "image_quality"): [
        ("_STRENGTH = 0.01", "_STRENGTH = 1e-6"),
        ("np.repeat([1, 0]", "np.repeat([0, 1]"),
        ("_FOLDS = 5", "_FOLDS = 2"),
        (
            "probe = _probe().fit(*_stacked(train, train_other))",
            "probe = _probe().fit(*_stacked(test, test_other))",
        ),
    ],
    ("metrics/referral.py", "referral"): [
        ("AIM = 0.95", "AIM = 0.8"),
        ("Label.ALL, aim)", "Label.HEM, aim)"),
        ("healthy = ~leukemic & (scores >=", "healthy = ~leukemic & (scores <"),
        ("confidence = 1 - (1 - CONFIDENCE) / len(starts)", "confidence = CONFIDENCE"),
        ("int(below[-1]) + 1 if len(below) else 0", "0"),
    ],
    ("metrics/calibration.py", "calibration metrics intervals"): [
        ("ECE_BINS = 15", "ECE_BINS = 10"),
        ('scores, side="right")', "scores)"),
        ('("observed", truth)', '("observed", 1 - truth)'),
    ],
    ("metrics/bootstrap.py", "intervals area figures significance"): [
        ("np.unique(self.codes[self.labels == label]))", "np.unique(self.codes))"),
        ("self.scores >= threshold for name", "self.scores > threshold for name"),
        ("|= 1 << label", "|= 1"),
    ],
    ("metrics/comparison.py", "significance"): [
        ("* np.arange(len(values), 0, -1)", "* len(values)"),
        ("np.maximum.accumulate(stepped)", "stepped"),
        ("_POWER = 0.8", "_POWER = 0.5"),
    ],
    ("metrics/synthetic/distances.py", "image_quality"): [
        ("return 1 - float(torch.cat(similar).mean())", "return float(torch.cat(similar).mean())"),
        ("cell_mask(one) | cell_mask(other)", "cell_mask(one) & cell_mask(other)"),
        ("generator.integers(1, len(images)", "generator.integers(0, len(images)"),
        ("real[nearest[start : start + _BATCH]]", "real[start : start + _BATCH]"),
        ("within += inside[area > 0]", "within += inside[area >= 0].nan_to_num()"),
    ],
    ("metrics/thresholds.py", "metrics intervals"): [
        (">= wanted", "> wanted"),
        ("_WANTED = 0.95", "_WANTED = 0.9"),
        ("DEFAULT: 0.5,", "DEFAULT: 0.4,"),
    ],
    ("training.py", "guards_training"): [
        ("seed + epoch * _EPOCHS", "seed"),
        ("+ rank * _RANKS", ""),
        ("(seed + epoch", "(epoch"),
        (
            "bad = ~torch.isfinite(losses.detach()).all()",
            "bad = ~torch.isfinite(losses.detach()).any()",
        ),
        ("bad & (self.step < 0)", "bad"),
        ('reduce_op="max"', 'reduce_op="min"'),
        ("nn.init.xavier_uniform_", "nn.init.kaiming_uniform_"),
        ("nn.init.zeros_(layer.bias)", "nn.init.ones_(layer.bias)"),
        (" | nn.Linear", ""),
    ],
    ("training.py", "guards_training classifier_fit"): [
        ("decay = min(decay, (1 + updates) / (_RAMP + updates))", "pass"),
        ("in floats], 1 - decay)", "in floats], decay)"),
        ("past[name].copy_(now[name])", "pass"),
        ("_RAMP = 10", "_RAMP = 1000"),
        ("pl_module.state_dict()", "self._average_model.module.state_dict()"),
    ],
    ("data/augment.py", "augment"): [
        ("shear * math.radians(self.shear)", "shear * self.shear"),
        ("angle * math.radians(self.rotation)", "angle * math.radians(self.rotation) / 2"),
        ("scale = 1 / (1 + zoom * self.zoom)", "scale = 1 / (1 + self.zoom)"),
        ("2 * self.translate * right", "self.translate * right"),
        ('padding_mode="zeros"', 'padding_mode="border"'),
        ("device=device) * 2 - 1\n\n\ndef _signs", "device=device) * 2\n\n\ndef _signs"),
        ("self.brightness * _symmetric(count, 1, 1, 1", "self.brightness * _symmetric(1, 1, 1, 1"),
        ("self.color * _symmetric(count, 3, 1, 1", "self.color * _symmetric(count, 1, 1, 1"),
        ("return lit * (mean", "return (mean"),
        ("area = lit.sum(dim=(2, 3), keepdim=True).clamp(min=1)", "area = lit[0, 0].numel()"),
    ],
    ("data/pixels.py", "datamodule"): [
        (".div_(255)", ".div_(256)"),
        ("(rows >= int(start))", "(rows > int(start))"),
        ("labels=self.labels[local]", "labels=self.labels[: len(local)]"),
    ],
    ("data/datamodule.py", "datamodule"): [
        ("self.trainer.global_rank if self.trainer else 0", "0"),
        ("drop_last=shuffle", "drop_last=False"),
        ("self.trainer and self.trainer.training:", "self.trainer:"),
        (
            'rows = self.stage("train").index.to_numpy()',
            'rows = self.stage("test").index.to_numpy()',
        ),
        ("squares / count - mean**2", "squares / count"),
        ("self._loader(self.split.val)", "self._loader(self.split.test)"),
        ("self._loader(self.split.test)", "self._loader(self.split.val)"),
        (
            "np.concatenate([self.bank.labels.numpy(), labels])",
            "np.concatenate([labels, self.bank.labels.numpy()])",
        ),
        (
            ("self.train = np.concatenate([self.train, np.arange(first, first + len(pixels))])"),
            "pass",
        ),
        ("self.train = np.concatenate([self.train, rows])", "self.train = rows"),
        ('(images["label"] == label).sum())', '(images["label"] != label).sum())'),
    ],
    ("data/decode.py", "pixels links"): [
        ("LIT = 10\n", "LIT = 60\n"),
        ("_CROP300 = 300 / NATIVE", "_CROP300 = 200 / NATIVE"),
        ("_MARGIN = 0.05", "_MARGIN = 0.5"),
        (
            "area=mask.histogram()[255] / side**2",
            "area=mask.histogram()[255] / (size[0] * size[1])",
        ),
        ("Image.Resampling.BILINEAR, box=exact", "Image.Resampling.LANCZOS, box=exact"),
        ("hashlib.sha256(image.tobytes())", "hashlib.sha256(np.asarray(thumb).tobytes())"),
        ("x0 = y0 = (side - wide) / 2", "x0 = y0 = 0.0"),
    ],
    ("data/labels.py", "layouts"): [
        ("HEM = 0", "HEM = 2"),
    ],
    ("data/layouts.py", "layouts"): [
        (
            'label = _CLASS[match["label"].lower()]',
            'label = Label(1 - _CLASS[match["label"].lower()])',
        ),
        ("-{int(match['subject'])}\"", "-{match['subject']}\""),
        (
            "(path, int(name.label), name.subject, PRELIM",
            "(path, 1 - int(name.label), name.subject, PRELIM",
        ),
        ("table.drop(index=names.index[again])", "table.drop(index=names.index[:0])"),
    ],
    ("data/links.py", "links splits"): [
        ("SAME_TEXTURE = 0.7", "SAME_TEXTURE = -1.0"),
        ("SAME_TEXTURE = 0.7", "SAME_TEXTURE = 0.99"),
        (
            'original[copies["second"]] = copies["first"]',
            'original[copies["first"]] = copies["second"]',
        ),
        ("        yield turned[:, :, ::-1]\n", ""),
        ("range(4)", "range(2)"),
        ("original[labels != labels[original]]", "original[labels == labels[original]]"),
        ("directed=False", "directed=True, connection='strong'"),
    ],
    ("data/pixels.py", "pixels"): [
        ('"frame": asdict(frame),', '"frame": frame.resolution,'),
        ("return stat.st_size, stat.st_mtime_ns", "return stat.st_size, 0"),
        ("rows.append((row, *facts))", "rows.append((len(rows), *facts))"),
    ],
    ("data/splits.py", "splits"): [
        ("counts.sum() ** 2 / (counts**2).sum()", "counts.sum() / (counts**2).sum()"),
        ("counts.sum() ** 2 / (counts**2).sum()) if len", "len(counts)) if len"),
        (
            "for stage in reversed(STAGES) if stage in stages",
            "for stage in STAGES if stage in stages",
        ),
        (
            '(("test", "val"), ("test", "train"), ("val", "train"))',
            '(("test", "val"), ("test", "train"))',
        ),
        ('if "conflict" in table:', 'if "conflicts" in table:'),
        ('"patient" in table and self.link_subjects', '"patient" in table'),
        (
            "repeated = set(patients[stages[later]])",
            "repeated = set(patients[stages[earlier]])",
        ),
        ("if not self.purge:\n            return", "if False:\n            return"),
    ],
    ("data/rules.py", "splits"): [
        ("test_size=self.test, stratify=labels[rows]", "test_size=self.val, stratify=labels[rows]"),
        ("share = self.val / (1 - self.test)", "share = self.val"),
        ("stage_of[fold] = stage", "pass"),
        (
            '"val": stages["test"].copy()',
            '"val": stages["train"].copy()',
        ),
        ("stratify=labels[rest], random_state=self.seed", "stratify=labels[rest], random_state=0"),
    ],
    ("runs/evaluate.py", "guards_runs assess baselines"): [
        (
            "fit_temperature(val.scores, val.labels)",
            'fit_temperature(samples["test"].scores, samples["test"].labels)',
        ),
        (
            'measures.loc[train.index], train["label"].to_numpy(np.int64))',
            'measures.loc[others[1].index], others[1]["label"].to_numpy(np.int64))',
        ),
        (
            "chosen = column[val.index].to_numpy(), val",
            "chosen = column[test.index].to_numpy(), test",
        ),
        (
            "chosen_on = val.scores, val.labels, val.subjects",
            'chosen_on = (test := samples["test"]).scores, test.labels, test.subjects',
        ),
        (
            'thresholds = choose_thresholds(*chosen, val["patient"].to_numpy().astype(str))',
            "thresholds = choose_thresholds(sample.scores, sample.labels, sample.subjects)",
        ),
        ('val["patient"].to_numpy().astype(str))', 'val["subject"].to_numpy().astype(str))'),
        ('patients = data.dataset.index["patient"]', 'patients = data.dataset.index["subject"]'),
        ('test["patient"].to_numpy().astype(str)', 'test["subject"].to_numpy().astype(str)'),
        ('assess_area(data, predicted["test"]', 'assess_area(data, predicted["val"]'),
        ("store.areas[rows.numpy()].astype", "store.areas[: len(rows)].astype"),
        (
            'train, cpu = torch.tensor(data.stage("train").index',
            'train, cpu = torch.tensor(data.stage("test").index',
        ),
        ("compute_metrics(scaled, {DEFAULT: 0.5})", "compute_metrics(sample, {DEFAULT: 0.5})"),
        ("apply_temperature(test_scores, fit_temperature(*chosen))", "test_scores"),
        ("calibrated=apply_temperature(scores, temperature),", "calibrated=scores,"),
        ("per_subject(sample, 0.5)", "per_subject(sample, 0.9)"),
        (
            "auroc_within_area_bins(replace(sample, scores=areas), areas)",
            "auroc_within_area_bins(sample, areas)",
        ),
        ("return table.assign(area=store.areas.astype(np.float64))", "return table"),
    ],
    ("runs/predict.py", "guards_runs"): [
        (
            'held_out, _ = _features_and_shares(data, scorer, "val")',
            'held_out, _ = _features_and_shares(data, scorer, "train")',
        ),
        (
            'held_out, _ = _features_and_shares(data, scorer, "val")',
            'held_out, _ = _features_and_shares(data, scorer, "test")',
        ),
        (
            'train, shares = _features_and_shares(data, scorer, "train")',
            'train, shares = _features_and_shares(data, scorer, "val")',
        ),
        ("float(shares.min())", "float(shares.mean())"),
    ],
    ("runs/evaluate.py", "guards_runs"): [
        ("softmax(dim=1)[:, 1]", "softmax(dim=1)[:, 0]"),
        ("torch.stack(each).mean(dim=0)", "each[0]"),
        ("if not bool(joined.isfinite().all()):", "if False:"),
    ],
    ("runs/finished.py", "guards_runs"): [
        ('"val"', '"test"'),
        ('"sensitivity": "sensitivity95"', '"sensitivity": "youden"'),
        ("return scores >= self.threshold", "return scores >= 0.5"),
        ("self.band.refers(self.calibrated(scores)", "self.band.refers((scores)"),
    ],
    ("runs/gan.py", "guards_runs"): [
        ("data.split.train[np.isin(stage, labels)]", "data.split.train"),
        (
            "data.split.train[np.isin(stage, labels)]",
            "data.split.test[: int(np.isin(stage, labels).sum())]",
        ),
        (
            '"images": content,\n        "seed": int(cfg.seed),',
            '"images": content,\n        "seed": 0,',
        ),
        ('"images": content,', '"images": "",'),
        ("math.ceil(gan.fitting.updates", "math.floor(gan.fitting.updates"),
        ("if len(rows) < cfg.gan_fit.batch_size:", "if False:"),
    ],
    ("runs/gan.py", "guards_runs synthetic_images"): [
        ('HELD_OUT = "val"', 'HELD_OUT = "test"'),
        ('("reference", held_out, label)', '("reference", held_out, _other(label))'),
        ('("reference", held_out, label)', '("reference", "train", label)'),
        ('("train", "train", label)', '("train", held_out, label)'),
        (
            "extractor = MorphologyExtractor(real.train)",
            "extractor = MorphologyExtractor(real.reference)",
        ),
        ("Label(1 - label)", "label"),
        ("own, others = synthetic.of(label)", "own, others = synthetic.of(_other(label))"),
        (
            "(labels == Label.ALL).sum() - (labels == Label.HEM).sum()",
            "(labels == Label.HEM).sum() - (labels == Label.ALL).sum()",
        ),
        (
            "float(len(labels) / (len(Label) * count)) for count in counts",
            "float(count / len(labels)) for count in counts",
        ),
        ("for count in counts]", "for count in counts[::-1]]"),
        ("split.train[stage == label]", "split.train[stage != label]"),
        ("random.permutation(own) for _", "own for _"),
        ("tuple(Label) if conditional else (label,)", "(label,)"),
        ('counts.items()},\n        "seed": seed,', 'counts.items()},\n        "seed": 0,'),
        (
            'synthetic.origin["label"].to_numpy(np.int64)',
            '1 - synthetic.origin["label"].to_numpy(np.int64)',
        ),
        ("data.repeat(np.concatenate(list(repeated.values())))", "pass"),
        ("sample(count, label, seed)", "sample(count, label, 0)"),
        ('self.origin["label"] == label', 'self.origin["label"] != label'),
        ("default_rng(int(cfg.seed))", "default_rng(0)"),
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
        ("files = files[:most]", "files = files[-most:]"),
        ("if doubt := view.area_warning(image.area):", "if doubt := view.area_warning(0.0):"),
        ("lost = sorted(set(kept) - methods)", "lost = sorted(methods - set(kept))"),
        ('if not cfg.checks and any("measures"', 'if cfg.checks and any("measures"'),
        ("if number < images:", "if number > images:"),
        ("for name in set(before) - set(summary):", "for name in set(summary) - set(before):"),
        ("if folder.name == EXPLANATIONS:", "if folder.name != EXPLANATIONS:"),
        ('for key in ("prototypes",) if key in before', "for key in before"),
        (
            "for warning in record.warnings if warning not in old]",
            "for warning in record.warnings]",
        ),
    ],
    ("runs/run.py", "guards_runs"): [
        ('    "data.workers",\n', '    "data.workers",\n    "data.resolution",\n'),
        ('    "grid",\n    "logger",', '    "grid",\n    "seed",\n    "logger",'),
        ('cfg.augmentation.kind == "gan"', 'cfg.augmentation.kind != "none"'),
        ('(*NEUTRAL, "gan", "gan_fit")', "NEUTRAL"),
        ("leaky=bool(instantiate(cfg.split).leaky)", "leaky=False"),
        ('fold=cfg.split.get("fold", 0),\n        seed', "seed"),
        ('    "data.root",\n', ""),
        ("is_neutral(path, cfg)", "is_neutral(str(key), cfg)"),
    ],
    ("runs/train.py", "guards_runs"): [
        ('"fingerprint": data.dataset.store.fingerprint', '"fingerprint": ""'),
        ('[RunWarning("leaky", data.split.leaky)] if', "[] if"),
    ],
    ("runs/record.py", "grid"): [
        ('augmentation="none", kind="none", settings', "settings"),
        ("replace(self, seed=0, fold=0)", "replace(self, fold=0)"),
        ("replace(self, seed=0, fold=0)", "replace(self, seed=0)"),
        ("if not key.startswith(OF_AUGMENTATION)", "if key.startswith(OF_AUGMENTATION)"),
        ("shared[name] == 1", "shared[name] >= 1"),
    ],
    ("runs/state.py", "dry_run grid"): [
        ("if record.fingerprint != expected.fingerprint:", "if False:"),
        ('if record.status == "complete":', 'if record.status == "failed":'),
        ("held = not ours and is_held", "held = is_held"),
    ],
    ("runs/dry_run.py", "dry_run"): [
        ('- stages.get("augmentation", 0.0)', ""),
        ('record.device.get("name") == device', "True"),
        ('* cfg.fit.epochs / settings["fit"]["epochs"]', ""),
        ("gan.needed > 0 and not gan.trained", "not gan.trained and gan.needed > 1"),
    ],
    ("runs/record.py", "grid assess"): [
        ('("value", "low", "high"), (value', '("value", "high", "low"), (value'),
        ("if schema > SCHEMA:", "if False:"),
        ("if folder.name != record.run.folder:", "if False:"),
    ],
    ("report/derived.py", "guards_report report ensemble"): [
        ("for val in [run.val.sample]", "for val in [run.test.sample]"),
        ("stage.with_scores(stage.baselines[name]", "stage.with_scores(1 - stage.baselines[name]"),
        (
            "(Run(run.id, scored(run.val), scored(run.test), {})",
            "(Run(run.id, scored(run.test), scored(run.val), {})",
        ),
        ('AREA = "area"', 'AREA = "majority"'),
        ("if not any(key[2] < more for", "if any(key[2] < more for"),
        (
            "temperature = fit_temperature(val, sample.labels)",
            "temperature = fit_temperature(test, one.test.sample.labels)",
        ),
        ("choose_thresholds(val, sample.labels", "choose_thresholds(test, one.test.sample.labels"),
        ("np.mean([getattr(run, stage)", "np.max([getattr(run, stage)"),
        ("if np.array_equal(one.val.paths, two.val.paths)", "if True"),
    ],
    ("report/comparisons.py", "comparisons"): [
        ("replace(found[index], p=p", "replace(found[index], p=found[index].result.p"),
        ('if one.kind == "control" and', "if"),
        ("return (one.model == _COMBINED, sort_key(one)) <", "return (True, sort_key(one)) <"),
        ("and (one.family, one.one.run.split_name) == family", "and one.family == family[0]"),
    ],
    ("report/costs.py", "guards_report report"): [
        ("timed = {name: median(cost", "timed = {name: max(cost"),
        ("else one[name] + other[name]", "else one[name]"),
        ("format(value / 1e6, form)", "format(value / 1e3, form)"),
    ],
    ("report/figures.py", "guards_report figures"): [
        ("2 * sample.labels + called", "2 * called + sample.labels"),
        ("sample.scores >= run.thresholds[cut]", "sample.scores >= 0.5"),
        (
            "counts[cut] / counts[cut].sum(axis=2, keepdims=True)",
            "counts[cut] / counts[cut].sum(axis=1, keepdims=True)",
        ),
        ("np.interp(_GRID, false, true)", "np.interp(_GRID, true, false)"),
        ("np.interp(_GRID, recall[::-1], precision[::-1])", "np.interp(_GRID, recall, precision)"),
    ],
    ("report/rows.py", "guards_report report"): [
        (
            "images = [sample.reweighted(cuts)",
            "images = [sample.reweighted({'default': 0.5})",
        ),
        (
            '(entry["value"], entry["low"], entry["high"])',
            '(entry["value"], entry["high"], entry["low"])',
        ),
        ("(run.test.sample, run.thresholds)", "(run.val.sample, run.thresholds)"),
        ("FEWEST_DRAWS = 1000, 200", "FEWEST_DRAWS = 1000, 20"),
    ],
    ("report/remarks.py", "guards_report report page"): [
        ("if low is None or low <= value:", "if low is None:"),
        (
            "baseline_of(configuration.first_seed, AREA)",
            'baseline_of(configuration.first_seed, "majority")',
        ),
        ('if record.status != "complete":', 'if record.status == "failed":'),
        (
            "few_subjects(one.first_seed.pooled))",
            "few_subjects(one.first_seed.pooled)) and False",
        ),
        ("values[0] - values[1]:+.3f", "values[1] - values[0]:+.3f"),
        ("honest = min(same", "honest = max(same"),
        ("key=lambda run: unlike(leaky, run)", "key=lambda run: -unlike(leaky, run)"),
    ],
    ("report/load.py", "guards_report ensemble comparisons report"): [
        ("return self.id.seed, self.id.fold", "return self.id.seed, 0"),
        ("and np.array_equal(run.test.paths, theirs[run.key].test.paths)", ""),
        ('stages["val"], stages["test"], chosen)', 'stages["test"], stages["val"], chosen)'),
        ("chosen.setdefault(run.id.fold, run)", "chosen[run.id.fold] = run"),
        ("if expected and expected != len(predicted.paths):", "if False:"),
        ('rows["patient"].to_numpy().astype(str)', 'rows["path"].to_numpy().astype(str)'),
        ('for key in ("score", "calibrated")', 'for key in ("calibrated", "score")'),
        ('temperature = record.calibration["temperature"]', "temperature = 1.0"),
    ],
    ("report/table.py", "table hostile"): [
        (
            'form: str = ".3f", bounds: str = ".2f"\n) -> Shown',
            'form: str = ".2f", bounds: str = ".2f"\n) -> Shown',
        ),
        ('return f"{p:.3f}" if p >= 0.001', 'return f"{p:.3f}" if p >= 0'),
        ('.replace("|", "/")\n\n\n', "\n\n\n"),
        ('inside = to.startswith("../") and', "inside ="),
        ("csv_text(self.table)", "self.table.to_csv(index=False)"),
    ],
    ("report/tables.py", "guards_report report"): [
        ('if METRICS[name].kind == "decision"', 'if METRICS[name].kind != "decision"'),
        ('headed(decisions, "@youden", middle=PATIENTS)', 'headed(decisions, "@youden")'),
        ('f"{name}{middle}{end}"', 'f"{name}{middle}"'),
        ('headed(probabilities, "", CALIBRATED)', 'headed(probabilities, "")'),
        ('f"{name}_low": low, f"{name}_high": high', 'f"{name}_low": high, f"{name}_high": low'),
    ],
    ("report/verdicts.py", "verdicts"): [
        ("if low > 0:", "if low + high > 0:"),
        ("comparison.p >= _ALPHA", "comparison.p > 1"),
        ("found.low > -MARGIN", "found.difference > -MARGIN"),
        ("MARGIN = 0.02", "MARGIN = 0.2"),
        ("1 - _ALPHA / 2 / tests", "1 - _ALPHA / 2"),
        ("if not c.one.run.leaky", "if c.one.run.split"),
    ],
    ("report/gans.py", "guards_report synthetic_images"): [
        ('"precision": "precision"', '"precision": "recall"'),
        ('"SSIM in cell": "ssim_mask"', '"SSIM in cell": "ssim"'),
        ('"density": "density"', '"density": "coverage"'),
    ],
    ("gans/base.py", "guards_training gan_losses gan_fit gans"): [
        ("move_average(past, now, self.fitting.average, self.done_updates)", "pass"),
        ('self.generator = self.averaged["module"]', "pass"),
        ("betas = (self.fitting.beta1, self.fitting.beta2)", "betas = (0.9, 0.999)"),
        (
            "rates = (self.fitting.generator_rate, self.fitting.adversary_rate)",
            "rates = (self.fitting.adversary_rate, self.fitting.generator_rate)",
        ),
        (
            "rates = (self.fitting.generator_rate, self.fitting.adversary_rate)",
            "rates = (1e-4, 1e-4)",
        ),
        ("images if self.augment is None else self.augment(images)", "images"),
        ('group["params"], clip)', 'group["params"], 1e9)'),
        ("self.adversary.requires_grad_(False)", "pass"),
        ('batch["images"] * 2 - 1', 'batch["images"] * 2'),
        ("self.current_epoch, self.global_rank)", "self.current_epoch, 0)"),
        ("self.current_epoch, self.global_rank)", "0, self.global_rank)"),
        ('self.done_updates = checkpoint["generator_updates"]', "pass"),
        ("torch.manual_seed(seed)", "torch.manual_seed(0)"),
        ("torch.full((count,), label", "torch.full((count,), 1 - label"),
        ("        self.eval()\n", "        pass\n"),
        ("self.done_updates >= self.fitting.updates", "self.done_updates > self.fitting.updates"),
        ("self.done_updates >= self.fitting.updates", "self.done_rounds >= self.fitting.updates"),
        (
            "steps = min(steps, self.fitting.updates - self.done_updates)",
            "steps = min(steps, self.fitting.updates - self.done_rounds)",
        ),
    ],
    ("gans/layers.py", "gan_parts gans gan_losses gan_fit"): [
        ("scale = 1 / (1 - self.dropout) if drops else 1.0", "scale = 1.0"),
        ("(images.float() + 1) * 127.5", "(images.float() + 1) * 127"),
        ("round((1 - share) * 256)", "round(share * 256)"),
    ],
    ("gans/cgan.py", "gan_parts gans gan_losses gan_fit"): [
        ("plane = (2.0 * labels - 1)", "plane = (0.0 * labels - 1)"),
        (
            "return F.one_hot(labels, _CLASSES).float()",
            "return F.one_hot(1 - labels, _CLASSES).float()",
        ),
        (
            "F.relu(1 - of_real).mean() + F.relu(1 + of_synthetic).mean()",
            "F.relu(1 + of_real).mean() + F.relu(1 - of_synthetic).mean()",
        ),
        (
            "cross_entropy(of_real, 1) + cross_entropy(of_synthetic, 0)",
            "cross_entropy(of_real, 0) + cross_entropy(of_synthetic, 1)",
        ),
        (
            "-scores.mean() if self.hinge else cross_entropy(scores, 1)",
            "scores.mean() if self.hinge else cross_entropy(scores, 1)",
        ),
        ("else cross_entropy(scores, 1)", "else cross_entropy(scores, 0)"),
        ("self.score(features) + matching", "self.score(features)"),
        (
            "Fitting(2e-4, 5e-5, clip=1.0, generator_steps=2)",
            "Fitting(5e-5, 2e-4, clip=1.0, generator_steps=2)",
        ),
    ],
    ("gans/dcgan.py", "gan_parts gans gan_losses gan_fit"): [
        (
            "cross_entropy(self.score(real, labels), 1)",
            "cross_entropy(self.score(real, labels), 0)",
        ),
        ("return cross_entropy(scores, 1)", "return -cross_entropy(scores, 0)"),
        ("LeakyReLU(0.3, dropout)", "LeakyReLU(0.2, dropout)"),
        ("Fitting(adversary_rate=2e-4, clip=1.5)", "Fitting(adversary_rate=2e-4)"),
        ("if self.r1 and self.done_", "if False and self.done_"),
    ],
    ("gans/diffaugment.py", "gan_parts gans gan_losses gan_fit"): [
        ("_BLACK = -1.0", "_BLACK = 0.0"),
        ("torch.randint(8, (len(images),)", "torch.randint(4, (len(images),)"),
        ("((images + 1) * gains - 1)", "(images * gains)"),
        ("torch.rand(len(images), 3, 1, 1)", "torch.rand(1, 3, 1, 1)"),
    ],
    ("gans/strong.py", "gan_parts gans gan_losses gan_fit"): [
        ("torch.full((channels, 1, 1), 0.1)", "torch.full((channels, 1, 1), 1.0)"),
        ("torch.randn_like(maps[:, :1])", "torch.randn_like(maps[:1, :1])"),
        ("spread = spread.detach() if alone else spread", "pass"),
        ("drawn[:, :3] * drawn[:, 3:] * 2 - 1", "drawn[:, :3] * 2 - 1"),
        ("brightness = images + 1", "brightness = images"),
        ("_AMPLIFIED = 8.0", "_AMPLIFIED = 0.0"),
        ("nn.init.normal_(layer.weight, 0.0, 0.02)", "nn.init.normal_(layer.weight, 0.0, 0.2)"),
    ],
    ("gans/penalties.py", "gan_parts gans gan_losses gan_fit"): [
        ("between = synthetic + shares * (real - synthetic)", "between = real"),
        (".sqrt() - 1).square().mean()", ".sqrt()).square().mean()"),
        (
            "return _norms_squared(discriminator, real).mean() / 2",
            "return _norms_squared(discriminator, real).mean()",
        ),
        ("create_graph=True", "create_graph=False"),
        ("square().sum(dim=(1, 2, 3))", "square().mean(dim=(1, 2, 3))"),
    ],
    ("gans/wgan.py", "gan_parts gans gan_losses gan_fit"): [
        (
            "distance: Tensor = of_real.mean() - of_synthetic.mean()",
            "distance: Tensor = of_synthetic.mean() - of_real.mean()",
        ),
        ("return drift + self.penalty * slope - distance", "return drift - distance"),
        (
            "return drift + self.penalty * slope - distance",
            "return self.penalty * slope - distance",
        ),
        (
            "real, synthetic = self.augmented(real), self.augmented(synthetic)",
            "synthetic = self.augmented(synthetic)",
        ),
        ("return -scores.mean()", "return scores.mean()"),
        ("penalty: Positive = 10.0", "penalty: Positive = 1.0"),
        ("Fitting(adversary_steps=5)", "Fitting(adversary_steps=1)"),
    ],
    ("classifiers/optim.py", "classifier_losses keras_forms"): [
        ("rate = optim.learning_rate * scale", "rate = optim.learning_rate"),
        ("(vectors, 0.0)", "(vectors, optim.weight_decay)"),
        (
            "kind = torch.optim.AdamW if optim.weight_decay else torch.optim.Adam",
            "kind = torch.optim.Adam",
        ),
        ("_LAST_RATE = 0.01", "_LAST_RATE = 0.1"),
        ("return (step + 1) / (warmup + 1)", "return 1.0"),
        (
            "warmup = round(optim.warmup_epochs * steps / epochs)",
            "warmup = round(optim.warmup_epochs)",
        ),
        ("(1 + math.cos(math.pi * done)) / 2", "(1 - math.cos(math.pi * done)) / 2"),
        ("patience=optim.plateau_patience - keras", "patience=optim.plateau_patience"),
        ("patience=optim.plateau_patience - keras", "patience=optim.plateau_patience - 1"),
        ("factor=optim.plateau_factor,\n", "factor=0.5,\n"),
        ("eps=0.0 if keras", "eps=1e-3 if keras"),
        ('"abs" if keras else', '"rel" if keras else'),
    ],
    ("classifiers/cnn.py", "classifiers gradcam"): [
        ("self.dropout = nn.Dropout(dropout)", "self.dropout = nn.Dropout(0.0)"),
        ("return last[-2]", "return last[0]"),
    ],
    ("classifiers/transformer.py", "vit classifiers gradcam"): [
        ("queries = queries + self.drop_path(attended)", "queries = self.drop_path(attended)"),
        ("attention[:, :, 0, 1:] for attention", "attention[:, :, 1:, 0] for attention"),
        ("return 1 - F.avg_pool2d(lit, patch, stride)", "return F.avg_pool2d(lit, patch, stride)"),
        ("[drop_path * number / max(1, depth - 1)", "[drop_path"),
        ('self.pre = norm == "pre"', 'self.pre = norm != "pre"'),
        ("patches], dim=1) + self.positions", "patches], dim=1)"),
    ],
    ("classifiers/hybrid.py", "hybrid"): [
        ("return convolved + attended", "return convolved"),
        (
            "share * convolved + (1 - share) * attended",
            "share * attended + (1 - share) * convolved",
        ),
        (".softmax(dim=-2)", ".softmax(dim=-1)"),
        ("self.query(self.key(both).tanh())", "self.query(self.key(both))"),
        (
            "torch.cat([convolved, attended], dim=-1)",
            "torch.cat([convolved, convolved], dim=-1)",
        ),
    ],
    ("classifiers/hybrid.py", "hybrid classifiers"): [
        ("self.vector(feature_map.mean(dim=(2, 3)))", "self.vector(feature_map.amax(dim=(2, 3)))"),
        ("self.attention_loss * off", "off"),
        (
            "dense += [nn.Linear(before, after), nn.GELU(), nn.Dropout(dropout)]",
            "dense += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]",
        ),
        ("if len(self.blocks) < len(widths) - 1:", "if len(self.blocks) < len(widths):"),
    ],
    ("classifiers/pretrained.py", "pretrained"): [
        ("(backbone, self.backbone_rate)]", "(backbone, 1.0)]"),
        (
            "self.current_epoch >= self.optim.frozen_epochs",
            "self.current_epoch > self.optim.frozen_epochs",
        ),
        ("self.backbone.requires_grad_(learns).train(learns)", "self.backbone.train(learns)"),
        ("antialias=smaller", "antialias=False"),
        ("inputs = self.normalized(images)", "inputs = images"),
        ("patches = maps[:, self.prefix :]", "patches = maps[:, 0:]"),
    ],
    ("classifiers/prototypes.py", "prototypes"): [
        (
            "_CLUSTER * cluster - _SEPARATION * separation",
            "_CLUSTER * cluster + _SEPARATION * separation",
        ),
        ("_CLUSTER = 0.8", "_CLUSTER = 0.08"),
        ("masked_fill(~own, torch.inf)", "masked_fill(own, torch.inf)"),
        ("_OTHER_WEIGHT = -0.5", "_OTHER_WEIGHT = 0.5"),
        ("nearer = found[0] < best[0]", "nearer = found[0] > best[0]"),
        ("labels, self.class_weights) + head.sparsity()", "labels) + head.sparsity()"),
        (
            'other = batch["labels"][:, None] != head.classes',
            'other = batch["labels"][:, None] == head.classes',
        ),
        ("_EPSILON = 1e-4", "_EPSILON = 1e-2"),
        (
            "between = F.one_hot(self.classes, len(Label)).T == 0",
            "between = F.one_hot(self.classes, len(Label)).T == 1",
        ),
    ],
    ("classifiers/vit.py", "vit classifiers"): [
        ("self.attention_loss * off", "-self.attention_loss * off"),
        ("self.dropout = nn.Dropout(dropout)", "self.dropout = nn.Dropout(0.0)"),
        ("embedded.flatten(2).transpose(1, 2)", "embedded.mT.flatten(2).transpose(1, 2)"),
    ],
    ("explain/base.py", "faithfulness gradcam checked_tables"): [
        (
            "return (labels == Label.ALL).float() * 2 - 1",
            "return (labels == Label.HEM).float() * 2 - 1",
        ),
    ],
    ("explain/base.py", "gradcam shap faithfulness"): [
        (
            "return logits[:, Label.ALL] - logits[:, Label.HEM]",
            "return logits[:, Label.HEM] - logits[:, Label.ALL]",
        ),
        ("return logits[:, Label.ALL] - logits[:, Label.HEM]", "return logits[:, Label.ALL]"),
    ],
    ("explain/base.py", "explain"): [
        ("sum(part.seconds for part in parts)", "first.seconds"),
        (
            "~flat.isfinite().all(dim=1) | (flat.amax(dim=1) == flat.amin(dim=1))",
            "~flat.isfinite().all(dim=1) | (flat.amax(dim=1) == 0)",
        ),
        (
            "~flat.isfinite().all(dim=1) | (flat.amax(dim=1) == flat.amin(dim=1))",
            "flat.amax(dim=1) == flat.amin(dim=1)",
        ),
    ],
    ("explain/base.py", "gradcam shap"): [
        ("maps=found.toward(target),", "maps=found.maps,"),
        ("classifier.eval().requires_grad_(False)", "classifier.requires_grad_(False)"),
    ],
    ("explain/base.py", "faithfulness gradcam"): [
        ("        if not self.signed:\n            return self.maps\n", ""),
    ],
    ("explain/base.py", "gradcam explain"): [
        ("parameter.requires_grad_(not was_frozen)", "parameter.requires_grad_(was_frozen)"),
    ],
    ("explain/gradcam.py", "gradcam"): [
        ("for target in Label]", "for target in reversed(Label)]"),
        (
            "LayerGradCam(lambda batch: log_odds(classifier(batch))",
            "LayerGradCam(lambda batch: -log_odds(classifier(batch))",
        ),
        ('"bilinear")', '"nearest")'),
        ("fine[:, 0].detach()", "fine[:, 0].mT.detach()"),
        ("fine[:, 0].detach()", "fine[:, 0].relu().detach()"),
        (
            "method.attribute(part, target=target)",
            "method.attribute(part, target=target, relu_attributions=True)",
        ),
        (
            "return classifier.cam_layer\n",
            "return next(m for m in classifier.modules() if isinstance(m, nn.Conv2d))\n",
        ),
    ],
    ("explain/rollout.py", "gradcam"): [
        ("rolled = block @ rolled", "rolled = rolled @ block"),
        (
            "torch.eye(attention.shape[-1], device=images.device)) / 2",
            "0 * torch.eye(attention.shape[-1], device=images.device)) / 2",
        ),
        (
            "torch.eye(attention.shape[-1], device=images.device)) / 2",
            "torch.eye(attention.shape[-1], device=images.device))",
        ),
        ("rolled[:, 0, 1:].cpu()", "rolled[:, 1:, 0].cpu()"),
        ("float().mean(dim=2)", "float().amax(dim=2)"),
        ("mixed[:, 1:].unbind(dim=1)", "mixed[:, 1:].flip(1).unbind(dim=1)"),
    ],
    ("explain/shap.py", "shap"): [
        ("odds - compared.mean(), range_", "odds, range_"),
        ("gains = gains - predict_log_odds", "gains = gains + predict_log_odds"),
        ("segments = segments.where(plays, -1)", "segments = segments.where(plays, 0)"),
        (
            "maps.double().sum(dim=(1, 2)) - gains).abs()",
            "maps.double().mean(dim=(1, 2)) - gains).abs()",
        ),
        ("apart > _ROUNDING * tokens.abs().amax()", "apart > 0.3 * tokens.abs().amax()"),
        (
            "partial(predict_token_coalitions, classifier, one, other",
            "partial(predict_token_coalitions, classifier, other, one",
        ),
        (
            "players.unflatten(1, (across, -1)), gains, segments",
            "players.unflatten(1, (across, -1)).mT, gains, segments",
        ),
        (
            "values[playing] = torch.from_numpy(found.values[0])",
            "values[playing] = -torch.from_numpy(found.values[0])",
        ),
        ("float(odds.max()) - float(odds.min())", "float(odds.max())"),
        ("if height >= width:", "if height < width:"),
        ("parts = torch.zeros(len(presence)", "parts = torch.ones(len(presence)"),
        ("with numpy_seeded(seed):\n", "with numpy_seeded(0):\n"),
    ],
    ("explain/lime.py", "lime"): [
        ("_SMOOTHED = 1.0", "_SMOOTHED = 10.0"),
        ("weights[part] = weight", "weights[part] = abs(weight)"),
        (
            "return presence, (predicted - predicted[0])[:, None]",
            "return presence, (predicted[0] - predicted)[:, None]",
        ),
        (
            "values[position, :parts] = torch.from_numpy(fits[0][0])",
            "values[position, :parts] = torch.from_numpy(fits[-1][0])",
        ),
        ("PresenceLime(self.features, self.seed + turn)", "PresenceLime(self.features, self.seed)"),
        ("float(found.score) if weights.any()", "float(1 - found.score) if weights.any()"),
        ("spearmanr(a, b).statistic", "abs(spearmanr(a, b).statistic)"),
        (
            "images, hidden(images, self.hide), segments.to",
            "hidden(images, self.hide), images, segments.to",
        ),
    ],
    ("data/decode.py", "perturb regions"): [
        ("images.amax(dim=1) > LIT / 255", "images.amin(dim=1) > LIT / 255"),
        ("images.amax(dim=1) > LIT / 255", "images.amax(dim=1) > 2 * LIT / 255"),
    ],
    ("explain/perturb.py", "perturb lime"): [
        (
            "classifier(torch.where(shown, image, other))",
            "classifier(torch.where(shown, other, image))",
        ),
        ("values / sizes[:, 1:].clamp(min=1)", "values"),
    ],
    ("explain/perturb.py", "perturb shap"): [
        ("torch.where(present, tokens, other)", "torch.where(present, other, tokens)"),
        ("return (index[:, None] * across + index)", "return (index * across + index[:, None])"),
        (
            "torch.stack(sums).sum(dim=0) / len(background)",
            "torch.stack(sums).sum(dim=0) / len(sums)",
        ),
    ],
    ("explain/perturb.py", "perturb"): [
        ("mask.sum(dim=(2, 3)).clamp(min=1)\n", "mask.shape[-1] ** 2\n"),
        ("_BLUR = 8", "_BLUR = 64"),
    ],
    ("explain/quality/faithfulness.py", "faithfulness"): [
        ("trapezoid(self.deletion, self.shares, axis=1)", "trapezoid(self.deletion, axis=1)"),
        ("trapezoid(self.insertion, self.shares, axis=1)", "trapezoid(self.insertion, axis=1)"),
        ("dim=1, descending=True, stable=True", "dim=1, descending=False, stable=True"),
        (
            "torch.cat([down, up[:, :1]], 1), torch.cat([up, down[:, :1]], 1)",
            "torch.cat([up, down[:, :1]], 1), torch.cat([down, up[:, :1]], 1)",
        ),
        ("(turn < levels[at, None, None])", "(turn <= levels[at, None, None])"),
        ("toward.double().sigmoid()", "toward.double()"),
        ("fallen.cpu() * signs(case.target, count)[:, None]", "fallen.cpu()"),
        (
            "fallen = whole[:, None] - torch.cat(outputs).view(count, samples)",
            "fallen = torch.cat(outputs).view(count, samples) - whole[:, None]",
        ),
        ("_SMALLEST, _LARGEST = 1 / 8, 1 / 3", "_SMALLEST, _LARGEST = 1 / 80, 1 / 30"),
        ("middles // side, middles % side", "middles % side, middles // side"),
        (
            "at = torch.arange(len(maps))[:, None]",
            "at = torch.zeros(len(maps), dtype=torch.long)[:, None]",
        ),
        ("stays[:, None], moved, clean)", "~stays[:, None], moved, clean)"),
        ("(clean.device) * 2 - 1", "(clean.device)"),
        (
            "best = torch.where(raw < opposite, fitted, none)",
            "best = torch.where(raw < opposite, fitted, fitted)",
        ),
        (
            "explainer.attribute(case.classifier, batch, target",
            "explainer.attribute(case.classifier, case.images, case.target",
        ),
        ("perturb_radius=radius", "perturb_radius=0.02"),
        ("n_perturb_samples=samples,\n        max_ex", "n_perturb_samples=1,\n        max_ex"),
        ("_BELL = 0.2", "_BELL = 2.0"),
        ("sobel(image.float().mean(dim=0).numpy())", "image.float().mean(dim=0).numpy()"),
        ("(torch.arange(side) - (side - 1) / 2)", "(torch.arange(side) - side / 4)"),
        ("zlib.crc32(mask, seed)", "seed"),
    ],
    ("explain/quality/randomization.py", "randomization checked_tables"): [
        ("rank_correlation(one.abs(), again.abs(), masks)", "rank_correlation(one, again, masks)"),
        ("    ][::-1]", "    ]"),
        (
            "explainer.attribute(randomized, case.images",
            "explainer.attribute(case.classifier, case.images",
        ),
        (
            "attribute(randomized, case.images, case.target,",
            "attribute(randomized, case.images, 0,",
        ),
        ("CHANGED_BELOW = 0.5", "CHANGED_BELOW = 0.9"),
        ("_measure_statistics(altered, done, images[:_SAMPLE])\n        yield", "yield"),
        ("np.random.SeedSequence((seed, number))", "np.random.SeedSequence((number, number))"),
        ("glorot(module)\n        return", "return"),
        ("* masks).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))", ").mean(dim=(1, 2))"),
        ("(maps / maps.abs().amax(dim=(1, 2), keepdim=True))", "(maps / maps.abs().amax())"),
    ],
    ("explain/quality/randomization.py", "faithfulness randomization"): [
        ("ranks = rankdata(values, axis=1)", "ranks = values.astype(float)"),
        (
            "torch.stack([one[mask] for one in maps])",
            "torch.stack([one.flatten() for one in maps])",
        ),
    ],
    ("explain/quality/checks.py", "checked_tables"): [
        (
            "codes = np.unique(patients.astype(str)[finite], return_inverse=True)[1]",
            "codes = np.arange(int(finite.sum()))",
        ),
        ("if count < 2:", "if count < 1:"),
        ("LEVEL = 0.95", "LEVEL = 0.68"),
        ("np.bincount(codes, values[finite])", "np.bincount(codes, np.abs(values[finite]))"),
        ("found[name].toward(target).where", "found[name].maps.where"),
        ("~(it.degenerate | empty)", "~it.degenerate"),
        ("it.seconds / count", "it.seconds"),
        ('    "insertion_minus_": (-1.0, 1.0),\n', ""),
        ("removals(case, others[HIDES[0]]", "removals(case, others[HIDES[1]]"),
        ("np.abs(cascade.spearman[-1])", "np.abs(cascade.spearman[0])"),
        (
            "cascades(case.first(few), methods",
            "cascades(Case(classifier, images, 1 - target, background).first(few), methods",
        ),
        ("np.where(ok[: len(column)], column, np.nan)", "column"),
        ("zip(curve.shares, heights[ok].T", "zip(curve.shares, heights.T"),
    ],
    ("explain/quality/checks.py", "faithfulness"): [
        ("curve.insertion_auc - curve.deletion_auc", "curve.deletion_auc - curve.insertion_auc"),
        ('own[gain] - numbers["random"][gain]', "own[gain]"),
    ],
    ("explain/quality/regions.py", "regions"): [
        ("band * 2 * np.sqrt(cell.sum() / np.pi)", "band * np.sqrt(cell.sum() / np.pi)"),
        ("distance_transform_edt(cell) <= width", "distance_transform_edt(cell) > width"),
        ("values = signed.double().clamp(min=0)", "values = signed.double().abs()"),
        ("(lit / whole.sum(dim=(1, 2)))", "(lit / part.sum(dim=(1, 2)))"),
        (
            'parts["border_of_cell"] = (regions["border"], cell)',
            'parts["border_of_cell"] = (regions["border"], torch.ones_like(cell))',
        ),
        ("key=lambda part: part.area", "key=lambda part: -part.area"),
        ("ndimage.binary_fill_holes(cell)", "cell"),
        ('"background": ~cell}', '"background": ~border}'),
        ("                share, area, out", "                area, share, out"),
    ],
    ("explain/quality/regions.py", "regions checked_tables"): [
        ("BAND = 0.1", "BAND = 0.2"),
    ],
    ("explain/cohort.py", "explain"): [
        ("DECIDED = 0.5", "DECIDED = 0.4"),
        ('choose_background(data.stage("train")', 'choose_background(data.stage("test")'),
        ('choose_background(data.stage("train")', 'choose_background(data.stage("val")'),
        (
            'return "true positive" if called else "false negative"',
            'return "true positive" if called else "false positive"',
        ),
        ("background, data.seed)", "background, 0)"),
        (
            'chosen["shown"] = np.arange(len(chosen)) < shown',
            'chosen["shown"] = np.arange(len(chosen)) <= shown',
        ),
        ('_by_turns(shuffled, ["label"])', "_by_turns(shuffled, [])"),
        ('["label", "decided"])[:count]', '["label"])[:count]'),
        ('turns = table.groupby([*keys, "subject"])', "turns = table.groupby([*keys])"),
    ],
    ("explain/study.py", "explain"): [
        (
            'torch.tensor((table["score"] >= DECIDED).to_numpy(np.int64))',
            'torch.tensor(table["label"].to_numpy(np.int64))',
        ),
        ('table["patient"].to_numpy().astype(str)', 'table["subject"].to_numpy().astype(str)'),
        ('table["patient"].to_numpy().astype(str)', 'table["file"].to_numpy().astype(str)'),
        ("images.to(device), Label.ALL, background)", "images.to(device), Label.HEM, background)"),
        ("finite = values[values.isfinite()]", "finite = values.nan_to_num()"),
    ],
    ("explain/quality/checks.py", "explain"): [
        ('np.asarray(rows)[per_image.pop("image")]', 'per_image.pop("image").to_numpy()'),
    ],
    ("explain/figures.py", "panels"): [
        ("for position in cohort.of(outcome) if usable", "for position in range(4) if usable"),
        ("cohort.of(outcome) if usable[position]]", "cohort.of(outcome)]"),
        (
            'return "right" if outcome.startswith("true") else "WRONG"',
            'return "right" if outcome.endswith("positive") else "WRONG"',
        ),
        ("Normalize(-self.limit if self.signed else 0.0", "Normalize(0.0"),
        ("values = values * sizes_of(segments)", "values = values"),
        ("np.percentile(magnitudes, 99)", "np.percentile(magnitudes, 50)"),
        ("images.movedim(-3, -1)", "images.mT.movedim(-3, -1)"),
        ("counts[0] = 0", "counts[0] = 1"),
        (
            "row = 2 * number + (target == Label.HEM)",
            "row = 2 * number + (target == Label.ALL)",
        ),
        ("own.sort(key=lambda position: not outcomes", "own.sort(key=lambda position: outcomes"),
    ],
    (
        "classifiers/base.py",
        "classifier_losses classifiers guards_training classifier_fit",
    ): [
        ("            self.class_weights,\n", ""),
        ("label_smoothing=self.optim.label_smoothing", "label_smoothing=0.0"),
        ("loss = cost.float() + F.cross_entropy(", "loss = F.cross_entropy("),
        ("return (images - self.mean) / self.std", "return images - self.mean"),
        (
            "self.class_weights.copy_(torch.tensor(weights))",
            "self.class_weights.copy_(torch.tensor(weights[::-1]))",
        ),
        (
            "self.val_auroc.update(logits.softmax(dim=1)[:, 1]",
            "self.val_auroc.update(logits.softmax(dim=1)[:, 0]",
        ),
        (
            "scores = logits.double().softmax(dim=1)[:, 1]",
            "scores = logits.double().softmax(dim=1)[:, 0]",
        ),
        (
            "first = torch.cat([torch.ones(1, dtype=torch.bool), rows[1:] != rows[:-1]])",
            "first = torch.ones(len(rows), dtype=torch.bool)",
        ),
        ("order = columns[0].argsort(stable=True)", "order = torch.arange(len(columns[0]))"),
        ("views = dihedral(images) if self.optim.test_views > 1 else [images]", "views = [images]"),
        ("*(view.flip(3) for view in turned)", "*turned"),
        ("torch.cat([-logit / 2, logit / 2], dim=1)", "torch.cat([-logit, logit], dim=1)"),
        ("torch.cat([-logit / 2, logit / 2], dim=1)", "torch.cat([logit / 2, -logit / 2], dim=1)"),
        ("self.current_epoch, self.global_rank)", "self.current_epoch, 0)"),
        ('checkpoint["plateau"] = self._plateau.state_dict()', "pass"),
        ('"interval": "step"', '"interval": "epoch"'),
        ("        self.std.copy_(torch.tensor(std).view(3, 1, 1))\n", ""),
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
