"""Place for the user's own `model.py` with `compute_proposal_private(features, **kwargs)`; it is git-ignored."""
