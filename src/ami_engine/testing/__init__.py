"""The conformance kit: the contracts of brokers and sources, tried on an adapter of your own.

From the command line, with a readable report at the end::

    pytest --pyargs ami_engine.testing --ami-broker my_package.venue:make_broker
    pytest --pyargs ami_engine.testing --ami-source my_package.feed:make_source

or from your own tests:

>>> from ami_engine.sim.paper_broker import PaperBroker
>>> from ami_engine.testing import check_broker
>>> def make_broker(clock=None, instrument=None, seed=0):
...     return PaperBroker(instrument=instrument, cash=1_000_000.0, seed=seed)
>>> [outcome.name for outcome in check_broker(make_broker) if outcome.result == "broken"]
[]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ami_engine.testing.broker_contract import BROKER_CLAUSES
from ami_engine.testing.broker_faults import BROKER_FAULT_CLAUSES
from ami_engine.testing.clause import Clause, ContractBroken, NotTried, Outcome, try_clauses
from ami_engine.testing.source_contract import SOURCE_CLAUSES, SourceTestbed, source_testbeds
from ami_engine.testing.testbed import FAULTS, BrokerTestbed, broker_testbeds

__all__ = [
    "BROKER_CLAUSES",
    "BROKER_FAULT_CLAUSES",
    "FAULTS",
    "SOURCE_CLAUSES",
    "BrokerTestbed",
    "Clause",
    "ContractBroken",
    "NotTried",
    "Outcome",
    "SourceTestbed",
    "check_broker",
    "check_source",
]


def check_broker(factory: Callable[..., Any], *, seed: int = 0) -> list[Outcome]:
    """Try every clause of the broker contract, each on a fresh broker.

    Parameters
    ----------
    factory : callable
        Called as ``factory(clock=…, instrument=…, seed=…)``, each with a default; returns a `Broker`, or a
        `BrokerTestbed` where the kit is to cause faults, make a second adapter or move the market.
    seed : int
        Handed to the factory.

    Returns
    -------
    list of Outcome
        One a clause, in order: `result` is "kept", "broken" or "not tried", and `why` says why.
    """
    return try_clauses((*BROKER_CLAUSES, *BROKER_FAULT_CLAUSES), broker_testbeds(factory, seed=seed))


def check_source(factory: Callable[..., Any], *, seed: int = 0) -> list[Outcome]:
    """Try every clause of the source contract, each on a fresh source; see `check_broker`."""
    return try_clauses(SOURCE_CLAUSES, source_testbeds(factory, seed=seed))
