"""The contract between decision cores."""
