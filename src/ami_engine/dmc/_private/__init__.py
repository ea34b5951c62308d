"""Place for the user's own `policy.py` with `override_policy(policy, context) -> RiskPolicy`; it is git-ignored."""
