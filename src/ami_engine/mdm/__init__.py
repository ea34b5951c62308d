"""Models: what turns features into a proposal, and when to leave a position."""

from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.mdm.position_manager import PositionManager
from ami_engine.mdm.reference_model import compute_proposal_reference

__all__ = ["DecisionEngine", "PositionManager", "compute_proposal_reference"]
