"""Simulation: a little market that can be seeded, and a broker that fills orders as a venue would."""

from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.synthetic_source import SyntheticSource

__all__ = ["MicrostructureSim", "PaperBroker", "SyntheticSource"]
