"""The site builds without a warning, every link in it leads somewhere, and its pages load nothing from elsewhere."""

from __future__ import annotations

import doctest
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

pytest.importorskip("material", reason="needs the extra `docs`")
pytest.importorskip("mkdocstrings_handlers.python", reason="needs the extra `docs`")
if not (ROOT / "src").is_dir():
    pytest.skip("needs the sources: the reference is made from them", allow_module_level=True)


class Links(HTMLParser):
    """Collects what a page links to, what it loads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("id"):
            self.anchors.add(str(found["id"]))
        for key in ("src", "href"):
            value = found.get(key)
            if value:
                (self.links if tag == "a" else self.loaded).append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    return {path: Links(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def local(pages: dict[Path, Links], *, loaded: bool) -> Iterator[tuple[Path, str]]:
    for path, page in pages.items():
        for target in page.loaded if loaded else page.links:
            if not target.startswith(("http://", "https://", "mailto:", "data:")):
                yield path, target


def test_every_page_of_the_documents_is_on_the_site(site: Path) -> None:
    wanted = [path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")]
    wanted = [page.with_name("index.html") if page.stem == "README" else page for page in wanted]
    wanted += [Path(name) for name in ("index.html", "CHANGELOG.html", "CONTRIBUTING.html", "SECURITY.html")]
    assert [str(page) for page in wanted if not (site / page).is_file()] == []


def test_every_link_leads_to_a_page_and_a_place_in_it(site: Path, pages: dict[Path, Links]) -> None:
    broken = []
    for path, target in local(pages, loaded=False):
        parts = urlsplit(target)
        at = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
        if path.name == "404.html":
            at = (site / unquote(parts.path).lstrip("/")).resolve()
        at = at / "index.html" if at.is_dir() else at
        is_own = parts.fragment.startswith("__")  # the theme's own anchors are made by its script
        is_there = not parts.fragment or is_own or unquote(parts.fragment) in pages[at].anchors if at in pages else True
        if not at.is_file() or not is_there:
            broken.append(f"{path.relative_to(site)}: {target}")
    assert broken == []


def test_nothing_is_loaded_from_another_host(site: Path, pages: dict[Path, Links]) -> None:
    foreign = [f"{path.name}: {each}" for path, page in pages.items() for each in page.loaded if "//" in each[:8]]
    assert foreign == []
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*['\"]?https?:", style.read_text(encoding="utf-8")), style.name
    missing = [
        f"{path.name}: {each}"
        for path, each in local(pages, loaded=True)
        if path.name != "404.html" and not (path.parent / urlsplit(each).path).exists()
    ]
    assert missing == []


def test_the_reference_has_the_names_of_the_first_program(site: Path) -> None:
    for page, name in {
        "reference/ami_engine.loop.html": "ami_engine.loop.run_loop.run_loop",
        "reference/ami_engine.sim.html": "ami_engine.sim.paper_broker.PaperBroker",
        "reference/ami_engine.dmc.html": "ami_engine.dmc.risk_policy.RiskPolicy",
        "reference/decision_schema.html": "decision_schema.types.Proposal",
    }.items():
        assert f'id="{name}"' in (site / page).read_text(encoding="utf-8")
    loop = (site / "reference/ami_engine.loop.html").read_text(encoding="utf-8")
    options = loop.partition('id="ami_engine.loop.options.RunOptions"')[2].partition("<h3")[0]
    assert "on_bad_event" in options
    assert "required" not in options  # a struct's defaults are known
    commands = (site / "reference/command-line.html").read_text(encoding="utf-8")
    assert "--on-bad-event" in commands
    assert "ami verify" in commands
    assert "ami data check" in commands


@pytest.mark.parametrize("name", ["site_hooks", "site_griffe"])
def test_the_examples_of_what_makes_the_site_hold(name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    failed, attempted = doctest.testmod(module)
    assert failed == 0
    assert attempted >= 2
