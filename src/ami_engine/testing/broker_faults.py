"""What a broker does when the venue or the line fails, clause by clause; and a short run of the engine on it."""

from __future__ import annotations

import math
from collections.abc import Callable

from ami_engine.adapters.base import Broker
from ami_engine.errors import VenueRejected, VenueUnavailable
from ami_engine.events import OrderReport, Side, SubmitOrder
from ami_engine.loop.run_loop import run_loop
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.synthetic_source import SyntheticSource
from ami_engine.testing.clause import Clause, NotTried, require
from ami_engine.testing.testbed import BrokerTestbed

__all__ = ["BROKER_FAULT_CLAUSES"]

# After so long an adapter that lost its connection is expected to have it again.
_RECOVERY_MS = 200


def _fails(bed: BrokerTestbed, order: SubmitOrder, what: str) -> Exception:
    """Submit an order that the fault spoils; return the error, which must leave the order in doubt or be known."""
    try:
        answer = bed.broker.submit_order(order)
    except VenueRejected as error:
        require(False, f"{what}: raised VenueRejected, which says that nothing is live; nobody knows that. ({error})")
        raise
    except Exception as error:
        return error
    require(False, f"{what}: `submit_order` returned {answer!r}, which says that the order was accepted")
    raise NotTried("unreachable")


def _live(bed: BrokerTestbed, order: SubmitOrder) -> list[OrderReport]:
    listed = bed.need_method("fetch_open_orders")()
    return [report for report in listed if report.client_order_id == order.client_order_id]


def _lost_answer(fault: str, what: str) -> Callable[[BrokerTestbed], None]:
    """The order is live and the caller cannot know: the error says so, a look-up finds it, a repeat adds nothing."""

    def check(bed: BrokerTestbed) -> None:
        bed.quote()
        order = bed.order()
        bed.need(fault)
        error = _fails(bed, order, what)
        is_known = isinstance(error, VenueUnavailable) and error.outcome_known
        require(not is_known, f"{what}: `outcome_known` must be False, the order may be live")
        report = bed.need_method("fetch_order")(order.client_order_id)
        require(report is not None, f"{what}: the order is live, and `fetch_order` knows nothing of it")
        bed.broker.submit_order(order)
        require(len(_live(bed, order)) == 1, f"{what}: sent again, the order is live {len(_live(bed, order))} times")

    return check


def _lost_request(bed: BrokerTestbed) -> None:
    what = "the request was lost"
    bed.quote()
    order = bed.order()
    bed.need("timeout_before_accept")
    _fails(bed, order, what)
    report = bed.need_method("fetch_order")(order.client_order_id)
    require(report is None, f"{what}: `fetch_order` must return None, was {report!r}")
    bed.broker.submit_order(order)
    require(
        len(_live(bed, order)) == 1, f"{what}: sent again, the order must be live once, was {len(_live(bed, order))}"
    )


def _refused_unseen(fault: str, what: str) -> Callable[[BrokerTestbed], None]:
    def check(bed: BrokerTestbed) -> None:
        bed.quote()
        order = bed.order()
        bed.need(fault)
        error = _fails(bed, order, what)
        require(
            isinstance(error, VenueUnavailable),
            f"{what}: must raise VenueUnavailable, raised {type(error).__name__}: {error}",
        )
        require(not _live(bed, order), f"{what}: the order is live all the same")
        bed.advance(_RECOVERY_MS)
        bed.broker.submit_order(order)
        require(len(_live(bed, order)) == 1, f"{what}: the next submit must be as any other, it is not live")

    return check


def _lost_cancel_answer(bed: BrokerTestbed) -> None:
    bed.quote()
    order = bed.order()
    bed.broker.submit_order(order)
    bed.need("cancel_timeout")
    cancel = bed.need_method("cancel_order")
    try:
        done = cancel(order.client_order_id)
    except Exception:
        return
    require(
        done is True and not _live(bed, order),
        f"the answer to a cancel was lost: `cancel_order` must raise, or be sure; it returned {done!r}",
    )


def _lost_report(bed: BrokerTestbed) -> None:
    bed.quote()
    order = bed.order()
    bed.broker.submit_order(order)
    fetch = bed.need_method("fetch_order")
    bed.need("query_timeout")
    try:
        report = fetch(order.client_order_id)
    except Exception:
        report = fetch(order.client_order_id)
        require(report is not None, "the look-up after a failed one finds nothing, and the order is live")
        return
    require(report is not None, "the answer to a look-up was lost: None says that the order is unknown; raise instead")


def _repeated_fill(bed: BrokerTestbed) -> None:
    bed.quote()
    order = bed.order()
    bed.broker.submit_order(order)
    bed.need("duplicate_fill")
    bed.quote(-60, -50)
    fills = [fill for fill in bed.fills() + bed.fills() if fill.client_order_id == order.client_order_id]
    by_id = {fill.trade_id: fill for fill in fills}
    total = sum(fill.qty for fill in by_id.values())
    require(
        total <= order.qty * (1 + 1e-9),
        f"a fill that is reported twice must carry one trade id: {len(by_id)} ids sum to {total}, ordered {order.qty}",
    )


def _runs_under_the_engine(bed: BrokerTestbed) -> None:
    if type(bed.broker).on_market_data is Broker.on_market_data:
        raise NotTried("the broker sees no market data, so that a recorded run cannot fill its orders")
    bed.need_method("cancel_order")
    tick = bed.instrument.tick_size
    sim = MicrostructureSim(mid=bed.reference_price, spread=4 * tick, tick_size=tick, seed=7)
    before = bed.broker.get_state().get("positions", {}).get(bed.market_id, 0.0)
    summary = run_loop(
        source=SyntheticSource(sim, num_events=300, symbol=bed.market_id),
        broker=bed.broker,
        market_id=bed.market_id,
        instrument=bed.instrument,
        trace=False,
    )
    require(
        summary["stopped_reason"] == "source_exhausted" and not summary["error_count"],
        f"a run of 300 events must end by itself without errors, ended {summary['stopped_reason']!r} with "
        f"{summary['error_count']} errors ({summary.get('last_error', '')})",
    )
    listed = bed.need_method("fetch_open_orders")()
    require(not listed, f"a run leaves nothing open, the venue lists {listed}")
    positions = bed.broker.get_state().get("positions")
    if positions is not None:
        ours, venues = summary["positions"].get(bed.market_id, 0.0), positions.get(bed.market_id, 0.0) - before
        require(
            math.isclose(ours, venues, rel_tol=1e-9, abs_tol=1e-9),
            f"at the end of a run the engine holds {ours!r}, the venue {venues!r}: a fill was lost or made up",
        )


def _both_sides(bed: BrokerTestbed) -> None:
    bed.quote()
    for side, ticks in ((Side.BUY, 5), (Side.SELL, -5)):
        order = bed.order(side, ticks)
        bed.broker.submit_order(order)
        fills = [fill for fill in bed.fills() if fill.client_order_id == order.client_order_id]
        if not fills:
            raise NotTried("nothing could be traded")
        require(all(fill.side is side for fill in fills), f"a fill of a {side} must say {side}, said {fills[0].side}")
        bed.quote()


BROKER_FAULT_CLAUSES: tuple[Clause[BrokerTestbed], ...] = tuple(
    Clause(name, text, check)
    for name, text, check in (
        ("sides", "A fill says which side of ours it was, not the aggressor's.", _both_sides),
        (
            "lost-answer",
            "When the answer to a submit is lost, the order is in doubt: not rejected, not accepted.",
            _lost_answer("timeout_after_accept", "the answer to a submit was lost"),
        ),
        ("lost-request", "When a submit is lost, the order is in doubt, and can be sent again.", _lost_request),
        (
            "garbage",
            "An answer that cannot be read leaves the order in doubt.",
            _lost_answer("garbage_reply", "the answer to a submit could not be read"),
        ),
        (
            "rate-limit",
            "A rate limit raises VenueUnavailable: the order was not looked at.",
            _refused_unseen("rate_limit", "a rate limit refused the request"),
        ),
        (
            "disconnect",
            "Without a connection a submit raises VenueUnavailable, and the adapter recovers.",
            _refused_unseen("disconnect", "there was no connection"),
        ),
        ("lost-cancel", "When the answer to a cancel is lost, the adapter does not guess it.", _lost_cancel_answer),
        ("lost-report", "When the answer to a look-up is lost, the adapter raises; None means unknown.", _lost_report),
        ("repeated-fill", "A fill that is reported twice carries one trade id.", _repeated_fill),
        ("engine", "A short run of the engine ends clean, and both sides hold the same.", _runs_under_the_engine),
    )
)
