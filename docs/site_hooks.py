"""What the site has beside the pages of docs/: the pages of the checkout's root, and reference made from the code.

Links are written for the repository. A page that stands elsewhere on the site has its links written anew here, so that
they lead to the same thing on both.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src"
PACKAGES = ("ami_engine", "decision_schema")
# Where the root's pages stand on the site.
MOVED = {
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
    "LICENSE": "LICENSE.md",
    "docs/examples/feeds": "examples/feeds.md",
    "docs/adr": "adr/README.md",
}
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)]*)?\))")


def site_path(repository_path: str) -> str:
    """Return where something of the repository stands on the site.

    >>> site_path("README.md"), site_path("docs/GUARDS.md")
    ('index.md', 'GUARDS.md')
    """
    return MOVED.get(repository_path, repository_path.removeprefix("docs/"))


def with_site_links(text: str, repository_path: str) -> str:
    """Return a page with its links as they must be on the site.

    >>> with_site_links("see [G](docs/GUARDS.md#limits)", "README.md")
    'see [G](GUARDS.md#limits)'
    >>> with_site_links("see [R](../README.md)", "docs/GUARDS.md")
    'see [R](index.md)'
    """
    here = posixpath.dirname(repository_path)
    here_on_site = posixpath.dirname(site_path(repository_path))

    def moved(found: re.Match[str]) -> str:
        target = found[2]
        if target.startswith(("http://", "https://", "mailto:")):
            return found[0]
        on_site = site_path(posixpath.normpath(posixpath.join(here, target)))
        return found[1] + posixpath.relpath(on_site, here_on_site or ".") + found[3]

    return LINK.sub(moved, text)


def public_modules() -> dict[str, list[str]]:
    """Return the modules that name what is public in them, by the room they are in."""
    rooms: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in sorted((SOURCES / package).rglob("*.py")):
            parts = path.relative_to(SOURCES).with_suffix("").parts
            if path.name == "__init__.py" or any(part.startswith("_") for part in parts):
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = [node for node in tree.body if isinstance(node, ast.Assign) and _is_all(node)]
            if names and parts[1] != "cli":
                room = ".".join(parts[:2]) if len(parts) > 2 else package
                rooms.setdefault(room, []).append(".".join(parts))
    return rooms


def _is_all(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)


def command_line_page() -> str:
    """Return the page of the command line, from the commands' own help."""
    import typer

    from ami_engine.cli import app

    lines = [
        "# Command line",
        "",
        "Made from the commands' own help. Exit codes: 0 it went well; 1 the run ended by an",
    ]
    lines += ["error, or the trace is damaged; 2 the input was wrong.", ""]
    for name, command in _commands("ami", typer.main.get_command(app)):
        lines += [f"## {name}", "", (command.help or "").replace("\f", ""), "", "| option | default | meaning |"]
        lines.append("| --- | --- | --- |")
        for each in command.params:
            shown = ", ".join(each.opts) if each.param_type_name == "option" else each.name.upper()
            default = "–" if each.default in (None, False, "", ()) or callable(each.default) else f"`{each.default}`"
            default = "needed" if each.required else default
            lines.append(f"| `{shown}` | {default} | {(getattr(each, 'help', '') or '').replace('|', '/')} |")
        lines.append("")
    return "\n".join(lines)


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield the commands that do something, by their whole names; one that only holds others does nothing itself."""
    held = getattr(command, "commands", None)
    if held is None:
        yield name, command
    for part, each in (held or {}).items():
        yield from _commands(f"{name} {part}", each)


def feeds_page() -> str:
    """Return the page of the instrument and policy files that stand beside the examples."""
    lines = ["# Instrument and policy files", "", "Files to start from, of `docs/examples/feeds`.", ""]
    for path in sorted((ROOT / "docs" / "examples" / "feeds").glob("*.toml")):
        lines += [f"## {path.name}", "", "```toml", path.read_text(encoding="utf-8").rstrip(), "```", ""]
    return "\n".join(lines)


def notebook_page(path: Path) -> str:
    """Return a notebook in the percent format as a page: its text as text, its code as code."""
    lines = []
    for cell in re.split(r"^# %%", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        kind, _, body = cell.partition("\n")
        if kind.strip() == "[markdown]":
            lines += [re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE), ""]
        else:
            lines += ["```python", body.strip(), "```", ""]
    lines += [f"The notebook: [{path.name}]({path.name}), for Jupyter with jupytext, or to be run as a script."]
    return "\n".join(lines) + "\n"


def generated_pages() -> dict[str, str]:
    """Return the pages that are in no file of docs/, by their place on the site."""
    pages = {"reference/command-line.md": command_line_page(), "examples/feeds.md": feeds_page()}
    for repository_path in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
        text = (ROOT / repository_path).read_text(encoding="utf-8")
        pages[site_path(repository_path)] = with_site_links(text, repository_path)
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    pages["LICENSE.md"] = f"# Licence\n\n```text\n{licence.strip()}\n```\n"
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.py")):
        pages[f"notebooks/{path.stem}.md"] = notebook_page(path)
    for room, modules in public_modules().items():
        pages[f"reference/{room}.md"] = "\n\n".join([f"# {room}", *(f"::: {module}" for module in modules)]) + "\n"
    return pages


def on_config(config: Any) -> Any:
    """Put the pages of the reference where the navigation says so."""
    for section in config["nav"]:
        for entries in section.values():
            for entry in entries:
                if isinstance(entry, dict) and entry.get("Python") == "REFERENCE":
                    entry["Python"] = [f"reference/{room}.md" for room in public_modules()]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    for place, text in generated_pages().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Write a page's links anew where it is a file of docs/."""
    if page.file.generated_by is not None:
        return markdown
    return with_site_links(markdown, f"docs/{page.file.src_uri}")
