"""Modulation: guards that may make a proposal safer, and never bolder."""

from ami_engine.dmc.context import GuardContext
from ami_engine.dmc.modulator import guard_ladder, modulate
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.dmc.risk_state import RiskState

__all__ = ["GuardContext", "RiskPolicy", "RiskState", "guard_ladder", "modulate"]
