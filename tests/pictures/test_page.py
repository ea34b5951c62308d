"""The page holds what was collected, loads nothing, and no name in it is more than a name."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ami_engine.errors import ConfigError
from ami_engine.pictures.collect import collect_picture
from ami_engine.pictures.draw import draw_run
from ami_engine.pictures.page import page_of
from tests.pictures.conftest import NASTY

PlainRun = tuple[Path, dict[str, Any]]


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data


def shown(page: str) -> dict[str, Any]:
    match = re.search(r"^const shown = (.*);$", page, re.MULTILINE)
    assert match is not None
    value: dict[str, Any] = json.loads(match[1])
    return value


def test_all_panels_share_one_time_axis(plain_run: PlainRun) -> None:
    figure = shown(page_of(collect_picture(plain_run[0])))["run"]
    assert all("xaxis" not in trace for trace in figure["data"])
    assert [name for name in figure["layout"] if name.startswith("xaxis")] == ["xaxis"]
    titles = [re.sub("<.*?>", "", each["text"]) for each in figure["layout"]["annotations"]]
    assert titles == [
        "price SYNTH", "position SYNTH", "equity, USD", "below the peak, USD", "decided", "guards fired",
    ]  # fmt: skip
    domains = [figure["layout"]["yaxis" + ("" if n == 1 else str(n))]["domain"] for n in range(1, len(titles) + 1)]
    assert domains[-1][0] == 0.0
    assert all(lower[1] < upper[0] for upper, lower in pairwise(domains))


def test_every_fill_is_drawn_by_side_and_liquidity(plain_run: PlainRun) -> None:
    picture = collect_picture(plain_run[0])
    data = {trace["name"]: trace for trace in shown(page_of(picture))["run"]["data"]}
    kinds = [f"{side}, {liquidity}" for side in ("buy", "sell") for liquidity in ("maker", "taker")]
    drawn = {kind: len(data[kind]["x"]) for kind in kinds if kind in data}
    figures = picture.figures
    assert sum(drawn.values()) == figures["fills"] > 20
    assert drawn["buy, maker"] + drawn["buy, taker"] == figures["buys"]
    assert drawn["buy, maker"] + drawn["sell, maker"] == figures["makers"]
    assert {"mid", "own bid", "own ask", "equity", "drawdown", "position"} <= set(data)


def test_the_latency_histogram_counts_every_decision(plain_run: PlainRun) -> None:
    picture = collect_picture(plain_run[0])
    step = shown(page_of(picture))["latency"]["data"][0]
    assert step["name"] == "step"
    assert sum(step["y"]) == picture.figures["packets"]


def test_nothing_is_loaded_from_anywhere(plain_run: PlainRun) -> None:
    elements = Elements(page_of(collect_picture(plain_run[0])))
    addresses = [attrs[name] for _, attrs in elements.found for name in ("src", "href", "srcset") if name in attrs]
    assert addresses == ["data:,"]
    policies = [attrs["content"] for tag, attrs in elements.found if tag == "meta" and "http-equiv" in attrs]
    assert len(policies) == 1
    assert str(policies[0]).startswith("default-src 'none';")


def test_markup_in_names_stays_text(nasty_run: Path) -> None:
    page = page_of(collect_picture(nasty_run))
    elements = Elements(page)
    assert len(elements.scripts) == 2
    assert [tag for tag, _ in elements.found if tag in ("img", "b")] == []
    assert not any("onerror" in attrs for _, attrs in elements.found)
    assert "HACKED" in elements.scripts[1]  # it is there, as a name
    assert all(name not in page for name in NASTY)
    assert "renamed &lt;script&gt;" in page
    annotations = [each["text"] for each in shown(page)["run"]["layout"]["annotations"]]
    # The library knows tags, entities and formulas in its labels: none may stand there but our own <b>.
    assert all(not re.search(r"<(?!/?b>)|\$", text) for text in annotations)


def test_without_plotly_it_says_what_to_install(
    plain_run: PlainRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library, suffix in (("plotly", "html"), ("matplotlib", "png")):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ConfigError, match=rf"needs {library}: pip install 'mdm-engine\[viz\]'"):
            draw_run(plain_run[0], tmp_path / f"run.{suffix}")
    assert list(tmp_path.iterdir()) == []
