"""Simulation testing: the whole engine against a failing exchange, killed and started again, from one seed.

A case is a seed and a plan of faults and kills; see docs/SIMTEST.md. From the command line::

    ami simtest --seeds 1000 --steps 200 --workers 2
"""

from ami_engine.testing.simtest.campaign import Result, run_case, run_seeds, shrink
from ami_engine.testing.simtest.case import Case
from ami_engine.testing.simtest.invariants import Violation
from ami_engine.testing.simtest.mutants import MUTANTS

__all__ = ["MUTANTS", "Case", "Result", "Violation", "run_case", "run_seeds", "shrink"]
