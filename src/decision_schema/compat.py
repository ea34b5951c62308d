"""Which versions of the contract understand one another."""

from __future__ import annotations

import re

from decision_schema.version import __version__

__all__ = ["get_current_version", "is_compatible", "parse_version"]

_VERSION_RE = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?", re.ASCII)


def get_current_version() -> str:
    """Return the version of the contract that this package implements.

    >>> parse_version(get_current_version()) >= (0, 2, 2)
    True
    """
    return __version__


def parse_version(version: str) -> tuple[int, int, int]:
    """Return (major, minor, patch); a missing patch is 0.

    Raises
    ------
    ValueError
        When `version` is not two or three whole numbers joined by dots.

    Examples
    --------
    >>> parse_version("0.2")
    (0, 2, 0)
    """
    match = _VERSION_RE.fullmatch(version) if isinstance(version, str) else None
    if match is None:
        raise ValueError(f"`version` must look like '0.2.2', was {version!r}")
    major, minor, patch = match.groups(default="0")
    return int(major), int(minor), int(patch)


def is_compatible(
    version: str, expected_major: int, min_minor: int | None = None, max_minor: int | None = None
) -> bool:
    """Return whether `version` has the expected major and a minor within the bounds, both inclusive.

    A malformed version is compatible with nothing.

    >>> is_compatible("0.2.2", 0, min_minor=2), is_compatible("1.0", 0), is_compatible("latest", 0)
    (True, False, False)
    """
    try:
        major, minor, _ = parse_version(version)
    except ValueError:
        return False
    if major != expected_major:
        return False
    return (min_minor is None or minor >= min_minor) and (max_minor is None or minor <= max_minor)
