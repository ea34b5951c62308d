"""The page in a real browser: it draws, its console stays silent, and no name in it runs.

Skipped where no Chromium is installed (`apt-get install chromium`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ami_engine.pictures.draw import draw_run

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((path for path in map(shutil.which, NAMES) if path), None)
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--window-size=1400,1800", "--virtual-time-budget=20000", "--enable-logging=stderr",
)  # fmt: skip

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt-get install chromium")

PlainRun = tuple[Path, dict[str, Any]]


class Opened(NamedTuple):
    """What the page became, and every line of its console."""

    dom: str
    console: list[str]

    @property
    def title(self) -> str:
        match = re.search(r"<title>(.*?)</title>", self.dom, re.DOTALL)
        assert match is not None
        return match[1]


def open_page(page: Path, profile: Path) -> Opened:
    assert BROWSER is not None
    command = [BROWSER, *QUIET, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    environment = {**os.environ, "HOME": str(profile.parent)}
    done = subprocess.run(command, capture_output=True, env=environment, timeout=180, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2_000:]
    lines = done.stderr.decode(errors="replace").splitlines()
    return Opened(done.stdout.decode(), [line for line in lines if ":CONSOLE:" in line])


def test_every_figure_is_drawn_and_the_console_stays_silent(plain_run: PlainRun, tmp_path: Path) -> None:
    draw_run(plain_run[0], tmp_path / "run.html")
    opened = open_page(tmp_path / "run.html", tmp_path / "profile")
    assert opened.console == []
    assert opened.dom.count('data-drawn="yes"') == 2
    assert opened.title == plain_run[1]["run_id"]
    for name in ("price SYNTH", "position SYNTH", "equity, USD", "below the peak, USD", "decided", "guards fired"):
        assert f">{name}<" in opened.dom, name
    # Lines and fills: plotly draws each trace as a group of paths.
    assert len(re.findall(r'<path class="js-line"', opened.dom)) >= 10
    markers = len(re.findall(r'<path class="point', opened.dom))
    assert markers >= plain_run[1]["fills_count"]


def test_on_a_narrow_screen_nothing_lies_over_the_names(plain_run: PlainRun, tmp_path: Path) -> None:
    draw_run(plain_run[0], tmp_path / "run.html")
    frame = tmp_path / "frame.html"
    frame.write_text("<iframe src='run.html' style='width:420px;height:2600px'></iframe>")
    measure = (
        "<script>addEventListener('load', () => setTimeout(() => { const box = name => "
        "document.querySelector('#run ' + name).getBoundingClientRect(); "
        "console.log('over', document.querySelectorAll('.modebar-btn').length, "
        "box('.legend').bottom <= box('.annotation-text').bottom, box('.legend').top >= box('svg').top); }, 3000));"
        "</script>"
    )
    page = tmp_path / "run.html"
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", measure + "</body>"), encoding="utf-8")
    [said] = [line for line in open_page(frame, tmp_path / "profile").console if "over" in line]
    assert "over 0 true true" in said


def test_zooming_one_panel_zooms_all(plain_run: PlainRun, tmp_path: Path) -> None:
    draw_run(plain_run[0], tmp_path / "run.html")
    zoom = (
        "<script>addEventListener('load', () => setTimeout(() => {"
        "const place = document.getElementById('run'); const axis = place._fullLayout.xaxis;"
        "const [from, to] = axis.range.map(axis.r2l); const half = [axis.l2r((from + to) / 2), axis.l2r(to)];"
        "Plotly.relayout(place, {'xaxis.range': half}).then(() => {"
        "const used = new Set(place._fullData.map(trace => trace.xaxis));"
        "document.body.dataset.axes = [...used].join(); "
        "document.body.dataset.share = (axis.range.map(axis.r2l)[0] - from) / (to - from); }); }, 3000));</script>"
    )
    page = tmp_path / "run.html"
    page.write_text(
        page.read_text(encoding="utf-8").replace("</body></html>", zoom + "</body></html>"), encoding="utf-8"
    )
    opened = open_page(page, tmp_path / "profile")
    assert opened.console == []
    assert 'data-axes="x"' in opened.dom
    share = re.search(r'data-share="([^"]*)"', opened.dom)
    assert share is not None
    assert float(share[1]) == pytest.approx(0.5, abs=0.01)


def test_markup_and_script_in_names_are_shown_and_do_nothing(nasty_run: Path, tmp_path: Path) -> None:
    draw_run(nasty_run, tmp_path / "run.html")
    opened = open_page(tmp_path / "run.html", tmp_path / "profile")
    assert opened.console == []
    assert "HACKED" not in opened.title
    assert opened.dom.count('data-drawn="yes"') == 2
    assert "<img" not in opened.dom
    assert "price &lt;/script&gt;&lt;script&gt;document.title='HACKED'&lt;/script&gt;" in opened.dom
    assert "$a$ $b$ &amp;amp; &lt;b&gt;bold&lt;/b&gt;" in opened.dom


@pytest.mark.parametrize(
    "fault", ["<script>throw new Error('broken')</script>", "<script src='https://example.invalid/x.js'></script>"]
)
def test_a_page_that_fails_or_loads_something_would_be_found(plain_run: PlainRun, tmp_path: Path, fault: str) -> None:
    draw_run(plain_run[0], tmp_path / "run.html")
    page = tmp_path / "run.html"
    page.write_text(
        page.read_text(encoding="utf-8").replace("</body></html>", fault + "</body></html>"), encoding="utf-8"
    )
    assert open_page(page, tmp_path / "profile").console != []
