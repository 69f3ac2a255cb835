"""Page and summary of a sweep: content, accessibility, escaping, and pictures of explanations."""

import base64
import hashlib
import io
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sweeps import RUN, predictions, varied, write_run

from leuk.data.labels import Label
from leuk.errors import StoreError
from leuk.report.explanations import explained_image, explained_pictures
from leuk.report.facts import data_section, last_command, run_section
from leuk.report.load import read_results
from leuk.report.page import write_report
from leuk.report.remarks import Kind, Remark, boxes, listed
from leuk.report.table import Pictures
from leuk.runs.record import Record, RunWarning
from leuk.store import write_text

EVIL = '<script>alert("x")</script><img src=//evil onerror=alert(1)>'


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with every kind of warning, pictures, and texts that contain HTML."""
    outputs = tmp_path_factory.mktemp("page")
    folder = outputs / "runs" / "grid"
    run_ids = [varied(RUN, augmentation=name) for name in ("none", "oversample", "dcgan")]
    run_ids.append(replace(RUN, split="random", leaky=True))
    warnings = [RunWarning("degenerate", f"gradcam: 2 of 16 maps are degenerate {EVIL}")]
    warnings.append(RunWarning("leaky", "images, not patients, were drawn"))
    cohort = {"pictures": ["explanations/panels/00001.png"], "left_out": {}}
    for run_id in run_ids:
        record = write_run(
            folder, run_id, predictions(run_id, healthy=3, images=8), warnings=warnings,
            explanations={"cohort": cohort},
        )  # fmt: skip
        path = folder / run_id.folder / "explanations/panels/00001.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (600, 200)).save(path)
    record.data["synthetic"] = {"counts": {"hem": 2}, "gans": ["1"], "quality_artifact": "7"}
    record = replace(record, run=varied(RUN, augmentation="dcgan"))
    record.write(folder / record.run.folder)
    (kept := outputs / "artifacts/quality/7").mkdir(parents=True)
    shown = np.zeros((5, 8, 8, 3), np.uint8)
    np.savez(kept / "images_hem.npz", real=shown + 255, synthetic=shown)
    failed = Record(replace(RUN, model="vit"), "abc")
    failed.fail(RuntimeError(EVIL))
    failed.write(folder / failed.run.folder)
    write_text(folder / "vit-dcgan-folds-s0/.lock", "")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(sweep: Path) -> Page:
    return Page((sweep / "report/report.html").read_text())


def test_the_page_is_one_file_that_may_load_nothing(sweep: Path, page: Page) -> None:
    text = (sweep / "report/report.html").read_text()
    (policy,) = [m["content"] for m in page.of("meta") if "http-equiv" in m]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form"}
    assert not re.search(r"@import|url\(", style)
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith(("#", "../"))
    assert f"maps are degenerate {EVIL}" in page.text
    assert f"failed: {EVIL}" in page.text


def test_the_page_is_accessible(page: Page) -> None:
    ids = Counter(a["id"] for _, a in page.tags if "id" in a)
    assert set(ids.values()) == {1}
    assert len(page.of("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.of("html")[0]["lang"] == "en"
    for link in page.of("a"):
        assert not link["href"].startswith("#") or link["href"][1:] in ids
    for _, attributes in page.tags:
        assert attributes.get("aria-labelledby", "content") in ids
    assert len(page.of("table")) == len(page.of("caption"))
    assert all(heading["scope"] in ("row", "col") for heading in page.of("th"))
    assert all(len(picture["alt"]) > 25 for picture in page.of("img"))
    scrolled = [a for a in page.of("div") if a.get("class") in ("scroll", "card")]
    assert all(a["tabindex"] == "0" for a in scrolled)


def test_the_first_screen_has_the_answer_grid_images_and_two_warnings(
    sweep: Path, page: Page
) -> None:
    html = (sweep / "report/report.html").read_text()
    first = Page(html[: html.index("<details")])
    for words in (
        "Do synthetic images from a GAN improve a classifier",
        "Classifiers (cnn, vit) learned",
        "4 of 5 runs complete",
        "1 failed",
        "LEAKY split: the same patients may be in training and test",
        "vit-none-folds-s0: failed",
        "real, healthy",
        "dcgan, healthy",
        "One explained image",
    ):
        assert words in first.text, words
    assert "of patients who were not used for training" not in first.text  # the split leaks
    assert len(first.of("table")) == 1
    assert len(first.of("img")) == 3
    strips = [base64.b64decode(one["src"].partition(",")[2]) for one in first.of("img")[:2]]
    assert [Image.open(io.BytesIO(one)).getpixel((0, 0))[0] for one in strips] == [255, 0]
    levels = [a["class"] for a in page.of("td") if a.get("class", "").startswith("level")]
    assert len(levels) == 4
    assert {"level0", "level7"} <= set(levels)
    for words in (
        "only 3.0 effective healthy subjects (of 3)",
        "vit-dcgan-folds-s0: no record.json",
    ):
        assert words in page.text, words
        assert words not in first.text, words


def test_the_page_has_every_table_and_figure_folded(sweep: Path, page: Page) -> None:
    titles = {section.stem for section in (sweep / "report").glob("*.md")}
    assert titles == {section.stem for section in (sweep / "report").glob("*.csv")}
    assert titles >= {"table", "answer", "grid", "data", "run", "synthetic_images", "thesis_tables"}
    table = pd.read_csv(sweep / "report/table.csv").set_index("configuration")
    assert f"{table.loc['cnn-dcgan-folds', 'auroc']:.3f}" in page.text
    assert "1.274" in page.text  # the published FID of the thesis's DCGAN
    assert "HEALTHY" in page.text
    drawn = {path.stem for path in (sweep / "report/figures").glob("*.png")}
    assert drawn >= {"grid", "augmentation", "differences", "roc", "confusion"}
    html = (sweep / "report/report.html").read_text()
    chapters = re.findall(r'<details class="chapter.*?<h2.*?<p class="intro">(.*?)</p>', html, re.S)
    assert len(chapters) > 12
    assert all(len(intro) > 20 for intro in chapters)


def test_the_summary_has_answer_grid_warnings_page_and_next_command(sweep: Path) -> None:
    lines = (sweep / "report/summary.txt").read_text().splitlines()
    assert len(lines) <= 20
    assert lines[0].startswith("grid: ")
    table = pd.read_csv(sweep / "report/table.csv").set_index("configuration")
    header, row = (line.split() for line in lines if line.startswith(("test", "cnn-folds")))
    assert header == ["test", "AUROC", "none", "oversample", "dcgan"]
    assert row[7] == f"{table.loc['cnn-dcgan-folds', 'auroc']:.3f}"
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert 2 <= len(warnings) <= 4
    assert warnings[0].startswith("warning: LEAKY")
    assert lines[-2] == f"page: {sweep}/report/report.html"
    assert lines[-1].startswith("next: leuk train -m name=grid")


@pytest.mark.parametrize("half", [False, True])
def test_a_folder_without_records_has_a_page_that_lists_the_problems(
    tmp_path: Path, half: bool
) -> None:
    if half:
        (tmp_path / RUN.folder).mkdir()
        (tmp_path / RUN.folder / "record.json").write_text('{"status": "<b>')
        write_text(tmp_path / "vit-none-folds-s0/.lock", "")
    with pytest.raises(StoreError, match="no records"):
        write_report(tmp_path)
    found = Page((tmp_path / "report/report.html").read_text())
    assert "Nothing to report yet" in found.text
    assert f"leuk train -m name={tmp_path.name}" in found.text
    assert ("vit-none-folds-s0: no record.json" in found.text) is half
    assert ("no readable record" in found.text) is half


def texts_of(remarks: list[Remark]) -> dict[Kind, list[str]]:
    """Texts of the page by kind."""
    found = boxes(remarks)
    return {
        kind: ["".join(span.text for span in text) for text in texts]
        for kind, texts in found.items()
    }


def test_equal_remarks_on_many_runs_are_counted() -> None:
    remarks = [Remark("other", "too hot", f"cell-{number}") for number in range(9)]
    remarks += [Remark("leaky", "leaks", "one"), Remark("few", "test: only 2", "one", of_run=True)]
    assert texts_of(remarks) == {"leaky": ["one: leaks"], "other": ["too hot (in 9 runs)"]}
    assert listed(remarks).markdown.splitlines() == [
        "- too hot (in 9 runs)", "- one: leaks", "- one: test: only 2",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["failed", "synthetic", "degenerate"])
def test_runs_that_need_action_are_each_named_in_the_table(kind: Kind) -> None:
    remarks = [Remark(kind, "running: not finished", f"cell-{number}") for number in range(3)]
    named = [item.partition(":")[0] for item in listed(remarks).markdown.splitlines()]
    assert named == ["- cell-0", "- cell-1", "- cell-2"]
    assert texts_of(remarks) == {kind: ["running: not finished (in 3 runs)"]}


def test_pictures_of_explanations_come_from_the_folder_of_the_run(tmp_path: Path) -> None:
    explanations = {
        "gradcam": {"picture": "explanations/gradcam.png", "images": 4, "degenerate": 1},
        "outside": {"picture": "../secret.png"},
        "broken": {"picture": "explanations/broken.png"},
        "gone": {"picture": "explanations/gone.png"},
        "odd": "no mapping",
        "cohort": {"curves": "explanations/curves.png"},
    }
    write_run(tmp_path, RUN, predictions(RUN, images=5), explanations=explanations)
    folder = tmp_path / RUN.folder / "explanations"
    folder.mkdir()
    (tmp_path / "panels").mkdir()
    outside = (tmp_path / "secret.png", tmp_path / "panels/1.png")
    for path in (folder / "gradcam.png", folder / "curves.png", *outside):
        Image.new("RGB", (2000, 40)).save(path)
    (folder / "broken.png").write_text("no picture")
    results = read_results(tmp_path)
    configurations = results.configurations
    results.records[0].explanations["cohort"]["pictures"] = ["../panels/1.png"]
    assert explained_image(tmp_path, configurations) is None
    shown = explained_pictures(tmp_path, configurations)
    first, second = (block for block in shown if isinstance(block, Pictures))
    assert (first.title, second.title) == ("gradcam", "deletion and insertion")
    (picture,) = first.pictures
    assert "1 maps are degenerate" in picture.alt
    png = base64.b64decode(picture.uri.partition(",")[2])
    assert int.from_bytes(png[16:20]) == 1100  # made narrower


def test_the_run_section_has_command_versions_and_times(tmp_path: Path) -> None:
    sweep = tmp_path / "runs/s"
    data = {
        "fingerprint": "f00d",
        "counts": {"train": {"all": 9, "hem": 5, "subjects": 3}},
        "dropped": {"train: same person in test": 7},
        "oversampled": {"hem": 4},
    }
    facts = {"data": data, "device": {"name": "CPU", "precision": "32-true"}}
    for seed, version in ((0, "1.0"), (1, "1.0"), (2, "2.0")):
        run_id = varied(RUN, augmentation="oversample", seed=seed)
        write_run(
            sweep, run_id, predictions(run_id, images=5), versions={"torch": version}, **facts
        )
    audits = tmp_path / "data/mine"
    audits.mkdir(parents=True)
    found = {"problems": [1], "linked_patients": ["a+b"], "split": {"counts": data["counts"]}}
    (audits / "audit.json").write_text(json.dumps(found))
    task = ["name=s", "data.root=/my cells"]
    (sweep / "multirun.yaml").write_text(json.dumps({"hydra": {"overrides": {"task": task}}}))
    results = read_results(sweep)
    run, of_data = (
        run_section(sweep, results.records).markdown,
        data_section(sweep, results.records),
    )
    assert "`leuk train -m name=s 'data.root=/my cells'`" in run
    assert re.search(r"torch +\| +1.0 \| +2 \|", run)
    assert re.search(r"fit +\| +3 \| +60 s \| +60 s \| +3.0 min", run)
    assert of_data.table["leukemic"].tolist()[0] == 9
    # Older records lack effective patients; predictions give those of val and test.
    assert of_data.table["effective_hem"].tolist()[:3] == ["-", "-", "-"]
    of_data = data_section(sweep, results.records, results.configurations)
    known = results.configurations[0].runs[0]
    expected = [one.sample.effective_subjects_of(Label.HEM) for one in (known.val, known.test)]
    assert of_data.table["effective_hem"].tolist()[1:3] == pytest.approx(expected, abs=0.01)
    for words in (
        "folds, fold 0: 7 images left out of train: same person in test",
        "oversample (folds, fold 0): 4 hem images added (oversampled)",
        "f00d (3 runs)",
        "Audit mine: 1 problem(s), 1 patient(s) with several subject numbers (a+b)",
    ):
        assert words in of_data.markdown
    (sweep / "multirun.yaml").write_text(": [")
    assert last_command(sweep) == ""
