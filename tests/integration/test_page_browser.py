"""The report in a real browser: as wide as the screen, light and dark, and without barriers.

Chromium runs without a window on a copy of the page that measures itself. Checks of accessibility
are axe-core's; it is taken from ``LEUK_AXE`` (its ``axe.min.js``) or through npm.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from sweeps import RUN, varied, write_sweep

from leuk.report.page import write_report
from leuk.runs.record import Record

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
PHONE, DESK = 390, 1280
DARK, LIGHT = 0, 1
"""As Chromium numbers what a reader prefers."""

FRAME = """<!doctype html><pre id="result">nothing</pre>
<iframe src="copy.html" width="{width}" height="800" style="border:0"></iframe>
<script>onmessage = event => document.getElementById("result").textContent = event.data</script>"""

MEASURE = """<script>{axe}</script><script>
onload = async () => {
  const root = document.documentElement, result = {
    width: innerWidth, needed: root.scrollWidth,
    paper: getComputedStyle(document.body).backgroundColor,
    tables: [...document.querySelectorAll(".scroll, .card")]
      .map(e => e.getBoundingClientRect().right),
  };
  if (window.axe) {
    const rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"];
    const found = await axe.run(document, {runOnly: rules, resultTypes: ["violations"]});
    result.violations = found.violations.map(v => v.id + ": " + v.nodes[0].html);
  }
  parent.postMessage(JSON.stringify(result), "*");
};
</script>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small sweep with a failure."""
    if BROWSER is None:
        pytest.skip(f"no Chromium: none of {', '.join(NAMES)} is installed")
    sweep = tmp_path_factory.mktemp("browser") / "sweep"
    names = ("none", "oversample", "class_weights", "dcgan")
    models = ("cnn", "vit")
    write_sweep(sweep, [varied(RUN, model=m, augmentation=a) for m in models for a in names])
    failed = Record(replace(RUN, model="hybrid"), "abc")
    failed.fail(RuntimeError("no luck <b>"))
    failed.write(sweep / failed.run.folder)
    write_report(sweep)
    return sweep / "report/report.html"


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core."""
    if "LEUK_AXE" in os.environ:
        return Path(os.environ["LEUK_AXE"]).read_text()
    if shutil.which("npm") is None:
        pytest.skip("no axe-core: LEUK_AXE does not name it and there is no npm")
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "axe-core@4"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"no axe-core: npm could not fetch it ({error})")
    return (folder / "node_modules/axe-core/axe.min.js").read_text()


def chromium(profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        f"--user-data-dir={profile}",
        *arguments,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=90)


def measured(report: Path, folder: Path, width: int, scheme: int, axe: str = "") -> dict[str, Any]:
    """Measurements of a copy of the page that may run scripts, in a frame of this width."""
    open_page = re.sub(r"<meta http-equiv=[^>]*>", "", report.read_text())
    open_page = open_page.replace("<details", "<details open")
    script = MEASURE.replace("{axe}", axe)
    (folder / "copy.html").write_text(open_page.replace("</head>", f"{script}</head>"))
    (folder / "frame.html").write_text(FRAME.replace("{width}", str(width)))
    shown = chromium(
        folder / "profile",
        f"--window-size={width + 100},900",
        f"--blink-settings=preferredColorScheme={scheme}",
        "--virtual-time-budget=20000",
        "--dump-dom",
        f"file://{folder}/frame.html",
    )
    (found,) = re.findall(r'<pre id="result">(.*?)</pre>', shown.stdout, re.DOTALL)
    values: dict[str, Any] = json.loads(unescape(found))
    return values


@pytest.mark.parametrize(("width", "scheme"), [(PHONE, LIGHT), (PHONE, DARK), (DESK, LIGHT)])
def test_the_page_fits_the_screen(report: Path, tmp_path: Path, width: int, scheme: int) -> None:
    found = measured(report, tmp_path, width, scheme)
    assert found["width"] == width
    assert found["needed"] == width
    assert found["tables"]
    assert max(found["tables"]) <= width
    red, *_ = map(int, re.findall(r"\d+", found["paper"]))
    assert (red < 60) is (scheme == DARK)


def test_the_page_has_no_barriers(report: Path, tmp_path: Path, axe: str) -> None:
    for width, scheme in ((PHONE, LIGHT), (DESK, DARK)):
        assert measured(report, tmp_path, width, scheme, axe)["violations"] == []


def test_the_page_as_it_is_obeys_its_own_policy(report: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    shown = chromium(
        tmp_path / "profile",
        "--window-size=1280,900",
        "--blink-settings=preferredColorScheme=1",
        f"--screenshot={shot}",
        f"file://{report}",
    )
    assert "Content Security Policy" not in shown.stderr
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    # The style sheet is applied: its background color, and enough content on it.
    assert tuple(pixels[5, 5]) == (0xFD, 0xFD, 0xFB)
    assert (pixels != pixels[5, 5]).any(axis=2).mean() > 0.03


def test_the_page_prints_on_few_sheets(report: Path, tmp_path: Path) -> None:
    target = tmp_path / "page.pdf"
    chromium(tmp_path / "profile", f"--print-to-pdf={target}", f"file://{report}")
    assert len(re.findall(rb"/Type\s*/Page\b", target.read_bytes())) <= 12
