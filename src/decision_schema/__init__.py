"""The contract between decision cores: what they propose, what is decided, and how a decision is recorded."""

from decision_schema.version import __version__

__all__ = ["__version__"]
