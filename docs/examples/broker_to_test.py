"""A broker factory for the conformance kit: the paper venue, with two faults of the line and a second connection.

Run it with::

    pytest --pyargs ami_engine.testing --ami-broker docs.examples.broker_to_test:make_broker
"""

from __future__ import annotations

from typing import Any

from ami_engine.adapters import Broker
from ami_engine.clock import ManualClock
from ami_engine.errors import VenueUnavailable
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.testing import BrokerTestbed
from ami_engine.units import Instrument


class LossyPaperBroker(PaperBroker):
    """Loses the next answer or the next request when it is told to."""

    lost = ""

    def submit_order(self, order: Any) -> Any:
        """Place an order, unless it is lost on the way; its answer may be lost on the way back."""
        lost, self.lost = self.lost, ""
        if lost == "timeout_before_accept":
            raise VenueUnavailable("no answer within 1 s")
        ack = super().submit_order(order)
        if lost:
            raise VenueUnavailable("no answer within 1 s")
        return ack


class PaperTestbed(BrokerTestbed):
    """What the kit may do to the venue beside trading on it."""

    faults = frozenset({"timeout_after_accept", "timeout_before_accept"})

    def inject(self, fault: str) -> None:
        """Cause a fault at the next submit."""
        self.broker.lost = fault  # type: ignore[attr-defined]

    def reconnect(self) -> Broker:
        """The paper venue lives in the process: a second connection is the same object."""
        return self.broker


def make_broker(clock: Any = None, instrument: Any = None, seed: int = 0) -> PaperTestbed:
    """Make a venue of its own for each clause. All three parameters have defaults: the kit asks for that."""
    instrument = instrument or Instrument("KITUSD")
    broker = LossyPaperBroker(instrument=instrument, cash=1_000_000.0, seed=seed)
    return PaperTestbed(broker, instrument, clock or ManualClock(1))


if __name__ == "__main__":
    from ami_engine.testing import check_broker

    for outcome in check_broker(make_broker):
        print(f"{outcome.result:9}  {outcome.name}: {outcome.text}")
