"""Rolling features of events: the schema, the builder and its interchangeable backends."""

from __future__ import annotations
