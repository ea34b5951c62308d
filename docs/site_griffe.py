"""What the site's reference needs to know of docstrings and of msgspec's structs.

A doctest that stands in a docstring without a heading gets one, so that it is shown as code. A struct gets the
constructor that its fields make, so that their defaults are shown.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

BARE = re.compile(r"^>>> ", re.MULTILINE)
HEADING = "Examples\n--------\n"


def with_heading(text: str) -> str:
    """Return a docstring whose first doctest stands under a heading.

    >>> with_heading("Say it.").count("Examples")
    0
    >>> with_heading("Say it." + chr(10) + ">>> 1").splitlines()
    ['Say it.', 'Examples', '--------', '>>> 1']
    """
    found = BARE.search(text)
    if found is None or HEADING in text:
        return text
    return text[: found.start()] + HEADING + text[found.start() :]


class Docstrings(griffe.Extension):
    """Changes docstrings and structs before they are read."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Give a struct its constructor."""
        if not any("Struct" in str(base) for base in cls.bases):
            return
        fields = [
            griffe.Parameter(
                name,
                annotation=member.annotation,
                kind=griffe.ParameterKind.positional_or_keyword,
                default=None if member.value is None else str(member.value),
            )
            for name, member in cls.members.items()
            if isinstance(member, griffe.Attribute) and member.annotation is not None and not _is_class_variable(member)
        ]
        itself = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
        cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(itself, *fields)))

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Put the heading into an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = with_heading(obj.docstring.value)


def _is_class_variable(member: griffe.Attribute) -> bool:
    return "ClassVar" in str(member.annotation)
