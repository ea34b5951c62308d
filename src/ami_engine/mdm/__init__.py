"""Models: what turns features into a proposal, and when to leave a position."""

from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.mdm.position_manager import PositionManager
from ami_engine.mdm.reference_model import ReferenceModel, compute_proposal_reference
from ami_engine.mdm.registry import ModelParam, ModelRegistry, ModelSpec

__all__ = [
    "DecisionEngine",
    "ModelParam",
    "ModelRegistry",
    "ModelSpec",
    "PositionManager",
    "ReferenceModel",
    "compute_proposal_reference",
]
