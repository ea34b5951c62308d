"""Pictures of a run: one self-contained page, or a still."""
