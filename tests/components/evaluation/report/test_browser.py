"""The pages in a real browser: nothing overlaps or is cut off, and the console is silent."""

import dataclasses
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from components.evaluation.report import compare, page
from tests.components.evaluation.report.made_up import made_up

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

# Text that reaches into other text, pictures without a text, and a page that is too wide. What
# scrolls on its own may be wide.
_LOOK = """
window.addEventListener("load", () => {
  const boxes = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) {
    const hidden = node.parentElement.closest("details:not([open]) > :not(summary)");
    if (hidden || !node.textContent.trim()) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const scrolls = node.parentElement.closest(".scroll");
    for (const box of range.getClientRects())
      boxes.push({text: node.textContent.trim(), box, scrolls});
  }
  for (const image of document.images) {
    const box = image.getBoundingClientRect();
    if (box.width) boxes.push({text: "image " + image.alt, box, scrolls: null});
  }
  const overlaps = [];
  for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
    const [a, b] = [boxes[i], boxes[j]];
    const wide = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
    const high = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top);
    if (wide > 2 && high > 4 && !a.scrolls && !b.scrolls) overlaps.push([a.text, b.text]);
  }
  const result = {
    overlaps,
    boxes: boxes.length,
    width: document.scrollingElement.scrollWidth,
    outside: boxes.filter(b => !b.scrolls && b.box.right > innerWidth + 1).map(b => b.text),
    without_text: [...document.images].filter(image => !image.alt.trim()).length,
    broken: [...document.images].filter(image => !image.naturalWidth).length,
    unreachable: [...document.querySelectorAll(".scroll")].filter(e => e.tabIndex < 0).length,
    background: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
  };
  parent.document.getElementById("result").textContent = JSON.stringify(result);
});
"""


def look(html, tmp_path, width, dark=False):
    """Opens a page in a window of some width, and returns what is seen."""
    inner = html.replace("</head>", f"<script>{_LOOK}</script></head>")
    (tmp_path / "inner.html").write_text(inner)
    # A window has a least width, but a frame has none.
    (tmp_path / "outer.html").write_text(
        f'<iframe src="inner.html" width="{width}" height="900"></iframe><pre id="result"></pre>'
    )
    seen = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--allow-file-access-from-files", "--enable-logging=stderr", "--v=0"),
            *("--window-size=1400,1000", "--virtual-time-budget=10000"),
            *(["--blink-settings=preferredColorScheme=0"] if dark else []),
            f"--user-data-dir={tmp_path / 'profile'}",
            str(tmp_path / "outer.html"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in seen.stderr, seen.stderr
    found = re.search(r'<pre id="result">(.+?)</pre>', seen.stdout)
    assert found, seen.stderr
    return json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with long names of classes."""
    data = made_up(
        ("a very long name of a class", "Donaudampfschifffahrtsgesellschaft", "odd" * 12)
    )
    folder = tmp_path_factory.mktemp("report")
    page.write(str(folder), data)
    return folder, data


def is_sound(seen, width):
    assert seen["boxes"] > 100
    assert seen["overlaps"] == []
    assert seen["outside"] == []
    assert seen["width"] <= width
    assert seen["without_text"] == seen["broken"] == seen["unreachable"] == 0


@pytest.mark.parametrize("width", [400, 1200])
def test_a_report(width, report, tmp_path):
    folder, _ = report
    is_sound(look((folder / "report.html").read_text(), tmp_path, width), width)


def test_a_report_of_photographs_with_heat_maps(report, tmp_path):
    _, data = report
    count = len(data.images)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 40, 60, 3), dtype="uint8")
    changed = dataclasses.replace(
        data,
        images=images,
        reconstructions=None,
        anomaly_maps=generator.random((count, 4, 6)).astype("float32"),
        nearest_images=images[::-1],
    )
    page.write(str(tmp_path), changed)
    is_sound(look((tmp_path / "report.html").read_text(), tmp_path, 400), 400)


def test_dark_and_light(report, tmp_path):
    html = (report[0] / "report.html").read_text()
    light, dark = look(html, tmp_path, 800), look(html, tmp_path, 800, dark=True)

    def brightness(colour):
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    assert brightness(light["ink"]) < 200 < 600 < brightness(light["background"])
    assert brightness(dark["background"]) < 200 < 600 < brightness(dark["ink"])


@pytest.mark.parametrize("width", [400, 1200])
def test_a_comparison(width, report, tmp_path):
    folder, data = report
    other = tmp_path / "other"
    other.mkdir()
    page.write(str(other), dataclasses.replace(data, config={"data": {"source": "else"}}))
    runs = [compare.read("runs/first", folder), compare.read("runs/second" * 5, other)]
    seen = look(compare.html(runs), tmp_path, width)
    assert seen["overlaps"] == seen["outside"] == []
    assert seen["width"] <= width
    assert seen["without_text"] == seen["broken"] == seen["unreachable"] == 0
