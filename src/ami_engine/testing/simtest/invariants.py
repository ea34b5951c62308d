"""What must hold, whatever goes wrong: the engine's word against the exchange's truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Context, Decimal, Inexact
from typing import NoReturn

import msgspec

from ami_engine.events import OrderStatus
from ami_engine.execution.journal import Journal
from ami_engine.execution.order_state import Order
from ami_engine.portfolio.ledger import Ledger
from ami_engine.sim.mock_venue import MockMarket
from ami_engine.testing.simtest.life import Life
from ami_engine.testing.simtest.world import World

__all__ = ["Violation", "ViolationFound", "check_end", "check_kill", "check_step", "unbalanced", "unfinished"]

# Prices wander by a percent or two while an order rests.
_EXPOSURE_TOLERANCE = 1.02
_CASH_TOLERANCE = 1e-9
_REJECTED = OrderStatus.REJECTED
_EXACT = Context(prec=400, traps=[Inexact])


class Violation(msgspec.Struct, frozen=True):
    """An invariant that did not hold: which, at which step, and what was seen."""

    invariant: str
    step: int
    detail: str


class ViolationFound(Exception):
    """Carries a `Violation` out of a run."""

    def __init__(self, violation: Violation) -> None:
        self.violation = violation
        super().__init__(f"{violation.invariant} at step {violation.step}: {violation.detail}")


def check_step(world: World, life: Life) -> None:
    """Check what must hold after every step.

    Raises
    ------
    ViolationFound
        When something does not.
    """
    venue = world.exchange.venue
    if venue.most_of_an_id > 1:
        twice = [name for name, count in venue.placements.items() if count > 1]
        _fail(world, "no order is placed twice", ", ".join(twice))
    if venue.most_on_a_side > 1:
        _fail(world, "no doubled live order", f"{venue.most_on_a_side} quotes were live on one side at once")
    if world.submits_after_switch:
        _fail(world, "after kill, no new order", ", ".join(world.submits_after_switch))
    for live in venue.open_orders():
        name = live.request.client_order_id
        known = life.order(name)
        if known is None:
            _fail(world, "no order is lost", f"{name} is live at the venue, and unknown here")
        if not known.is_open:
            _fail(
                world,
                "no terminal state that the venue did not report",
                f"{name} is {known.status.value} here, and live at the venue",
            )
    check_placed(world, life)


def check_placed(world: World, life: Life) -> None:
    """Check the worst case when orders were placed: fills move it, but never beyond itself.

    Also of a life that was killed: what its engine could not know then, the next one's has been told.

    Raises
    ------
    ViolationFound
        When it is over the limit.
    """
    if world.exchange.venue.placed != world.placed:
        world.placed = world.exchange.venue.placed
        _check_exposure(world, life)


def check_kill(world: World, asked: int) -> None:
    """Check that a kill, when `asked` cancels had been asked for before it and orders were working, asked for more.

    Raises
    ------
    ViolationFound
        When it did not.
    """
    if world.cancels == asked:
        _fail(world, "a kill cancels what is working", "no cancel was asked for")


def _check_exposure(world: World, life: Life) -> None:
    limit_usd = world.limit_usd * _EXPOSURE_TOLERANCE
    markets = world.exchange.venue.markets.values()
    worst_usd = sum(_worst_usd(market, market.position) for market in markets)
    if worst_usd <= limit_usd:
        world.excused_usd = 0.0
        return
    if worst_usd <= world.excused_usd:
        return
    untold = _untold(world, life)
    if sum(_worst_usd(market, market.position - untold[market.instrument.symbol]) for market in markets) > limit_usd:
        held = ", ".join(f"{market.position} lots of {market.instrument.symbol}" for market in markets)
        _fail(world, "exposure never over its limit, worst case counted", f"{worst_usd:.2f} USD, {held} held")
    # What was over when it could not be known stays over until it is worked off: it must not grow.
    world.excused_usd = worst_usd * _EXPOSURE_TOLERANCE


def _worst_usd(market: MockMarket, position: int) -> float:
    buys = sum(live.leaves for live in market.resting if live.is_buy)
    sells = sum(live.leaves for live in market.resting if not live.is_buy)
    worst = max(abs(position + buys), abs(position - sells))
    return market.instrument.notional(market.instrument.price_from_ticks(market.ask), market.qty(worst))


def _untold(world: World, life: Life) -> Counter[str]:
    """Return by market what was filled, in signed lots, of orders that have ended, and has not been told yet.

    A venue that confirms a cancel and tells of a fill before it only later has left out what nobody could count.
    """
    venue, journal = world.exchange.venue, life.journal
    lots: Counter[str] = Counter()
    for fill in venue.fills:
        order = venue.orders[fill.client_order_id]
        if not order.leaves and not journal.has_fill(fill):
            size = round(fill.qty / order.market.instrument.lot_size)
            lots[fill.market_id] += size if order.is_buy else -size
    return lots


def check_end(world: World, life: Life) -> None:
    """Check that everything has come to rest, and that the engine and the venue say the same.

    Raises
    ------
    ViolationFound
        When they do not.
    """
    check_step(world, life)
    venue = world.exchange.venue
    if left := [each.request.client_order_id for each in venue.open_orders()]:
        _fail(world, "every restart converges", f"still live at the venue: {', '.join(left)}")
    for order in unfinished(world, life):
        _fail(world, "every restart converges", f"{order.client_order_id} is still {order.status.value} here")
    journal = life.read_journal()
    _check_fills(world, life, journal)
    _check_orders(world, journal)
    _check_ledger(world, journal)
    if life.stopped_by and not world.is_switched and "overfill" not in world.case.faults:
        _fail(world, "no lost message halts", life.stopped_by)


def unfinished(world: World, life: Life) -> Iterator[Order]:
    """Yield the orders that are open here and must not stay so, once the model has cancelled and nothing goes wrong."""
    for order in life.open_orders():
        # Where requests cannot expire, one of which nothing is known may come for ever: it has to stay in doubt.
        name = order.client_order_id
        may_come = world.case.recv_window_ms is None and name not in world.exchange.venue.orders and order.in_doubt
        # One that the venue filled beyond its size has no state that is right: trading halted, and an operator looks.
        if not (may_come or (life.stopped_by and _is_overfilled(world, name))):
            yield order


def _is_overfilled(world: World, client_order_id: str) -> bool:
    venue = world.exchange.venue
    order = venue.orders.get(client_order_id)
    filled = sum(fill.qty for fill in venue.fills if fill.client_order_id == client_order_id)
    return order is not None and filled > order.request.qty + 0.5 * order.market.instrument.lot_size


def _check_fills(world: World, life: Life, journal: Journal) -> None:
    venue = world.exchange.venue
    truth = Counter((fill.trade_id, fill.side, fill.price, fill.qty) for fill in venue.fills)
    kept = Counter((fill.trade_id, fill.side, fill.price, fill.qty) for fill in journal.state.fills)
    if missing := truth - kept:
        _fail(world, "no fill is lost", ", ".join(name for name, *_ in missing))
    if invented := kept - truth:
        _fail(world, "no fill is invented or booked twice", ", ".join(name for name, *_ in invented))
    for name, market in venue.markets.items():
        held = market.qty(abs(market.position)) * (1 if market.position >= 0 else -1)
        for where, position in (("the loop", life.position(name)), ("the journal", float(journal.position(name)))):
            if position != held:
                _fail(world, "position is the sum of the fills at the venue", f"{held} there, {position} in {where}")
    cash = float(venue.ledger.cash["USD"])
    if abs(life.cash - cash) > _CASH_TOLERANCE:
        _fail(world, "cash is the venue's", f"{cash} there, {life.cash} here")


def _check_orders(world: World, journal: Journal) -> None:
    """Compare how every order ended, in the journal and at the venue."""
    venue = world.exchange.venue
    for kept in journal.state.closed:
        order = kept.order
        name, status = order.client_order_id, order.status
        there = venue.orders.get(name)
        if there is None or there.status is _REJECTED:
            is_right = status is _REJECTED and not order.filled_qty
        else:
            is_right = status is there.status
        if not is_right:
            word = "unknown" if there is None else there.status.value
            _fail(
                world,
                "no terminal state that the venue did not report",
                f"{name} is {status.value} here, {word} at the venue",
            )


def _check_ledger(world: World, journal: Journal) -> None:
    """Check the journaled ledger: every transaction sums to zero, and its cash is the venue's."""
    problems = unbalanced(journal.postings())
    if problems:
        _fail(world, "the ledger balances", ", ".join(problems))
    ledger = Ledger()
    ledger.restore(journal.postings())
    cash, there = ledger.balance("cash:USD", "USD"), world.exchange.venue.ledger.cash["USD"]
    if abs(float(cash) - float(there)) > _CASH_TOLERANCE:
        _fail(world, "the ledger balances", f"cash is {there} at the venue, {cash} in the ledger")


def unbalanced(postings: Iterable[tuple[str, str, str, Decimal, str, int]]) -> list[str]:
    """Return the transactions whose postings do not sum to zero in every currency.

    Examples
    --------
    >>> one = ("t1", "cash:USD", "USD", Decimal(5), "transfer", 0)
    >>> unbalanced([one, ("t1", "outside:bank", "USD", Decimal(-5), "transfer", 0)]), unbalanced([one])
    ([], ['t1'])
    """
    sums: dict[tuple[str, str], Decimal] = {}
    for transaction, _, currency, amount, _, _ in postings:
        key = (transaction, currency)
        sums[key] = _EXACT.add(sums.get(key, Decimal(0)), amount)
    return [name for (name, _), amount in sums.items() if amount]


def _fail(world: World, invariant: str, detail: str) -> NoReturn:
    raise ViolationFound(Violation(invariant, world.step, detail))
