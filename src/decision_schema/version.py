"""The version of the contract that this package implements."""

__version__ = "0.2.2"
