"""MDM Engine: events, features, proposals, guards, orders and a trace that proves each decision."""

from __future__ import annotations

__version__ = "0.1.0"
