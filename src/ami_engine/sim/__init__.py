"""Simulation: a little market that can be seeded, a broker that fills orders as a venue would, and one that fails."""

from ami_engine.sim.faults import Fault, FaultKind, FaultPlan
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.mock_broker import MockExchangeBroker, MockExchangeSource
from ami_engine.sim.mock_exchange import MockExchange
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.synthetic_source import SyntheticSource

__all__ = [
    "Fault",
    "FaultKind",
    "FaultPlan",
    "MicrostructureSim",
    "MockExchange",
    "MockExchangeBroker",
    "MockExchangeSource",
    "PaperBroker",
    "SyntheticSource",
]
