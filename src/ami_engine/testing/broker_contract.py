"""The broker contract, clause by clause."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ami_engine.adapters.base import REQUIRED_BEFORE_LIVE
from ami_engine.errors import VenueRejected
from ami_engine.events import Fill, OrderAck, OrderReport, OrderStatus, Side, SubmitOrder, TimeInForce
from ami_engine.execution.broker_edge import supports
from ami_engine.security.redaction import is_secret_key
from ami_engine.testing.clause import Clause, NotTried, require
from ami_engine.testing.testbed import BrokerTestbed

__all__ = ["BROKER_CLAUSES"]

_OPEN = (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED)
_DAY_NS = 86_400_000_000_000
_SELDOM = "no-such-order-id-was-ever-sent"


# What is asked of the broker, and checked to be readable. -------------------------------------------------------------


def _submit(bed: BrokerTestbed, order: SubmitOrder) -> str:
    """Place an order that the venue must take; return the venue's id for it, "" where it gives none."""
    answer = bed.broker.submit_order(order)
    require(
        answer is None or isinstance(answer, str | OrderAck),
        f"`submit_order` must return None, an id or an OrderAck, was {answer!r}",
    )
    if isinstance(answer, OrderAck):
        require(
            answer.client_order_id == order.client_order_id,
            f"the ack is of order {answer.client_order_id!r}, the order sent was {order.client_order_id!r}",
        )
        return answer.venue_order_id
    return answer or ""


def _is_refused(bed: BrokerTestbed, order: SubmitOrder) -> bool:
    try:
        bed.broker.submit_order(order)
    except VenueRejected:
        return True
    return False


def _require_refusal(bed: BrokerTestbed, order: SubmitOrder, what: str) -> None:
    try:
        bed.broker.submit_order(order)
    except VenueRejected:
        _require_not_live(bed, order, f"{what} was refused")
        return
    except Exception as error:
        require(
            False,
            f"{what} must raise VenueRejected: any other exception leaves the order in doubt; "
            f"raised {type(error).__name__}: {error}",
        )
    require(False, f"{what} must raise VenueRejected, was accepted")


def _require_not_live(bed: BrokerTestbed, order: SubmitOrder, because: str) -> None:
    ids = _open_ids(bed)
    if ids is not None:
        require(order.client_order_id not in ids, f"{because}, and the order is listed as open")


def _open_ids(bed: BrokerTestbed, market_id: str | None = None) -> list[str] | None:
    """Return the ids of the open orders; None where the broker cannot list them."""
    try:
        listed = bed.need_method("fetch_open_orders")(market_id)
    except NotTried:
        entries = bed.broker.get_state().get("open_orders")
        if entries is None:
            return None
        return [e["client_order_id"] if isinstance(e, Mapping) else e.client_order_id for e in entries]
    require(isinstance(listed, Sequence), f"`fetch_open_orders` must return a sequence, was {type(listed).__name__}")
    for report in listed:
        require(isinstance(report, OrderReport), f"an open order must be an OrderReport, was {type(report).__name__}")
    return [report.client_order_id for report in listed]


def _need_open_ids(bed: BrokerTestbed, market_id: str | None = None) -> list[str]:
    ids = _open_ids(bed, market_id)
    if ids is None:
        raise NotTried("neither `fetch_open_orders` nor `get_state()['open_orders']` is written")
    return ids


def _report(bed: BrokerTestbed, client_order_id: str) -> OrderReport | None:
    report = bed.need_method("fetch_order")(client_order_id)
    require(
        report is None or isinstance(report, OrderReport),
        f"`fetch_order` must return an OrderReport or None, was {type(report).__name__}",
    )
    return report  # type: ignore[no-any-return]


def _position(bed: BrokerTestbed) -> float | None:
    """Return the position that the venue states; None where it states none."""
    positions = bed.broker.get_state().get("positions")
    if positions is None:
        return None
    return float(positions.get(bed.market_id, 0.0))


def _fill_whole(bed: BrokerTestbed, order: SubmitOrder) -> list[Fill]:
    """Move the market through a resting order; return its fills."""
    if order.side is Side.BUY:
        bed.quote(-60, -50)
    else:
        bed.quote(50, 60)
    return [fill for fill in bed.fills() if fill.client_order_id == order.client_order_id]


# Submitting. ----------------------------------------------------------------------------------------------------------


def _accepts_a_resting_order(bed: BrokerTestbed) -> None:
    bed.quote()
    for side, ticks in ((Side.BUY, -20), (Side.SELL, 20)):
        order = bed.order(side, ticks, post_only=True)
        _submit(bed, order)
        ids = _open_ids(bed)
        if ids is not None:
            require(
                ids.count(order.client_order_id) == 1,
                f"an accepted {side} order must be listed as open once, was {ids.count(order.client_order_id)} times",
            )


def _repeats_nothing(bed: BrokerTestbed) -> None:
    bed.quote()
    order = bed.order()
    first = _submit(bed, order)
    second = _submit(bed, order)
    require(first == second, f"the second submit of one id must return the first's ack, {first!r}, was {second!r}")
    _require_one_life(bed, order)


def _require_one_life(bed: BrokerTestbed, order: SubmitOrder) -> None:
    """One id, sent more than once, is one order: in the list, and in what it can fill."""
    ids = _open_ids(bed)
    if ids is not None:
        mine = len([found for found in ids if found == order.client_order_id])
        require(len(ids) == 1 and mine == 1, f"one order was placed, the venue lists {len(ids)} open orders: {ids}")
    filled = sum(fill.qty for fill in _fill_whole(bed, order))
    require(filled <= order.qty * (1 + 1e-9), f"an order of {order.qty} must not fill more, filled {filled}")


def _repeats_nothing_once_it_ended(bed: BrokerTestbed) -> None:
    bed.quote()
    order = bed.order()
    _submit(bed, order)
    bed.need_method("cancel_order")(order.client_order_id)
    _is_refused(bed, order)
    ids = _need_open_ids(bed)
    require(order.client_order_id not in ids, "the id of a cancelled order was sent again, and a new order is live")


def _repeats_nothing_after_a_restart(bed: BrokerTestbed) -> None:
    bed.quote()
    order = bed.order()
    first = _submit(bed, order)
    bed.broker = bed.reconnect()
    second = _submit(bed, order)
    require(
        not (first and second) or first == second,
        f"after a restart the id's first ack, {first!r}, must come again, was {second!r}: remember ids at the venue",
    )
    ids = _need_open_ids(bed)
    require(ids.count(order.client_order_id) == 1, f"one order was placed, the venue lists {ids}")


def _rejects_what_is_no_number(bed: BrokerTestbed) -> None:
    bed.quote()
    for field, value in (("price", math.nan), ("price", -1.0), ("qty", math.inf), ("qty", 0.0), ("qty", -1.0)):
        wrong: dict[str, Any] = {"size_usd": 0.0, field: value}
        order = bed.order(**wrong)
        _require_refusal(bed, order, f"an order with `{field}` {value!r}")


def _rejects_what_is_off_the_grid(bed: BrokerTestbed) -> None:
    bed.quote()
    instrument = bed.instrument
    order = bed.order(price=bed.price(-20) + 0.5 * instrument.tick_size)
    _require_refusal(bed, order, f"a price off the tick of {instrument.tick_size}")
    if instrument.lot_size:
        order = bed.order(qty=bed.qty() + 0.5 * instrument.lot_size)
        _require_refusal(bed, order, f"a size off the lot of {instrument.lot_size}")


def _rejects_what_is_too_small(bed: BrokerTestbed) -> None:
    instrument = bed.instrument
    if not (instrument.lot_size and instrument.is_below_minimum(bed.price(-20), instrument.lot_size)):
        raise NotTried("the instrument's smallest lot is not below its minima")
    bed.quote()
    _require_refusal(bed, bed.order(qty=instrument.lot_size), "an order below the venue's minimum")


def _a_rejected_id_stays_rejected(bed: BrokerTestbed) -> None:
    bed.quote()
    order = bed.order(price=bed.price(-20) + 0.5 * bed.instrument.tick_size)
    if not _is_refused(bed, order):
        raise NotTried("the venue refused nothing")
    report = _report(bed, order.client_order_id)
    require(
        report is None or report.status is OrderStatus.REJECTED,
        f"a look-up of a rejected order must give None or REJECTED, was {report and report.status}",
    )


def _post_only_never_takes(bed: BrokerTestbed) -> None:
    bed.quote()
    order = bed.order(Side.BUY, 5, post_only=True)
    _is_refused(bed, order)
    bed.quote()
    taken = [fill for fill in bed.fills() if fill.client_order_id == order.client_order_id]
    require(not taken, f"a post-only order at the opposite best must not trade, filled {taken}")


def _ioc_never_rests(bed: BrokerTestbed) -> None:
    bed.quote()
    order = bed.order(Side.BUY, -20, tif=TimeInForce.IOC)
    _is_refused(bed, order)
    ids = _need_open_ids(bed)
    require(order.client_order_id not in ids, "an IOC order that met nothing is listed as open: it must expire")


def _reduce_only_never_opens(bed: BrokerTestbed) -> None:
    bed.quote()
    order = bed.order(Side.BUY, 5, reduce_only=True, tif=TimeInForce.IOC)
    _is_refused(bed, order)
    opened = [fill for fill in bed.fills() if fill.client_order_id == order.client_order_id]
    require(not opened, f"a reduce-only order without a position must not trade, filled {opened}")


def _reduce_only_never_flips(bed: BrokerTestbed) -> None:
    bed.quote()
    held = sum(fill.qty for fill in _take(bed, Side.BUY, bed.qty()))
    if held <= 0.0:
        raise NotTried("no position could be opened on this venue")
    bed.quote()
    order = bed.order(Side.SELL, -5, bed.qty(12), reduce_only=True, tif=TimeInForce.IOC)
    if _is_refused(bed, order):
        return  # refusing what is larger than the position is as safe as cutting it
    sold = sum(fill.qty for fill in bed.fills() if fill.client_order_id == order.client_order_id)
    require(sold <= held * (1 + 1e-9), f"a reduce-only order must not flip a position of {held}, sold {sold}")


def _take(bed: BrokerTestbed, side: Side, qty: float) -> list[Fill]:
    """Trade at once at the best price; return the fills."""
    order = bed.order(side, 5 if side is Side.BUY else -5, qty, tif=TimeInForce.IOC)
    _submit(bed, order)
    return [fill for fill in bed.fills() if fill.client_order_id == order.client_order_id]


# Cancelling. ----------------------------------------------------------------------------------------------------------


def _cancels_once(bed: BrokerTestbed) -> None:
    cancel = bed.need_method("cancel_order")
    bed.quote()
    order = bed.order()
    _submit(bed, order)
    done = cancel(order.client_order_id)
    require(done is True, f"`cancel_order` of an open order must return True, was {done!r}")
    _require_not_live(bed, order, "`cancel_order` returned True")
    again = cancel(order.client_order_id)
    require(again is False, f"`cancel_order` of an order that is not open must return False, was {again!r}")


def _cancel_of_the_unknown_is_false(bed: BrokerTestbed) -> None:
    done = bed.need_method("cancel_order")(_SELDOM)
    require(done is False, f"`cancel_order` of an id that the venue does not know must return False, was {done!r}")


def _a_cancelled_order_never_fills(bed: BrokerTestbed) -> None:
    cancel = bed.need_method("cancel_order")
    bed.quote()
    order = bed.order()
    _submit(bed, order)
    if cancel(order.client_order_id) is not True:
        raise NotTried("the order could not be cancelled")
    filled = _fill_whole(bed, order)
    require(not filled, f"`cancel_order` returned True, and the order filled afterwards: {filled}")


def _cancel_of_the_filled_is_false(bed: BrokerTestbed) -> None:
    cancel = bed.need_method("cancel_order")
    bed.quote()
    order = bed.order()
    _submit(bed, order)
    if sum(fill.qty for fill in _fill_whole(bed, order)) < order.qty:
        raise NotTried("the order could not be filled whole")
    done = cancel(order.client_order_id)
    require(done is False, f"`cancel_order` of a filled order must return False, was {done!r}")


def _cancels_all(bed: BrokerTestbed) -> None:
    cancel_all = bed.need_method("cancel_all")
    bed.quote()
    orders = [bed.order(ticks=-20 - n) for n in range(3)]
    for order in orders:
        _submit(bed, order)
    count = cancel_all(bed.market_id)
    require(isinstance(count, int) and count == 3, f"`cancel_all` must return how many it cancelled, 3, was {count!r}")
    for order in orders:
        _require_not_live(bed, order, "`cancel_all` was called")
    again = cancel_all(bed.market_id)
    require(again == 0, f"a second `cancel_all` must find nothing and return 0, was {again!r}")


def _cancel_all_is_of_one_market(bed: BrokerTestbed) -> None:
    cancel_all = bed.need_method("cancel_all")
    bed.quote()
    order = bed.order()
    _submit(bed, order)
    count = cancel_all(f"{bed.market_id}-other")
    require(count == 0, f"`cancel_all` of a market without orders must return 0, was {count!r}")
    ids = _open_ids(bed)
    require(ids is None or order.client_order_id in ids, "`cancel_all` of one market cancelled another market's order")


# Looking up. ----------------------------------------------------------------------------------------------------------


def _reports_what_was_sent(bed: BrokerTestbed) -> None:
    bed.quote()
    order = bed.order(Side.SELL, 20)
    _submit(bed, order)
    report = _report(bed, order.client_order_id)
    if report is None:
        require(False, "`fetch_order` of an accepted order must return its report, was None")
        return
    for name in ("client_order_id", "market_id", "side", "price", "qty"):
        sent, told = getattr(order, name), getattr(report, name)
        require(sent == told, f"`{name}` of the report must be as sent, {sent!r}, was {told!r}")
    require(report.status is OrderStatus.NEW, f"a resting order's status must be NEW, was {report.status}")
    require(report.filled_qty == 0.0, f"nothing was filled, `filled_qty` was {report.filled_qty!r}")


def _knows_nothing_of_the_unknown(bed: BrokerTestbed) -> None:
    report = _report(bed, _SELDOM)
    require(report is None, f"`fetch_order` of an id that the venue does not know must return None, was {report!r}")


def _reports_the_end(bed: BrokerTestbed) -> None:
    cancel = bed.need_method("cancel_order")
    bed.quote()
    order = bed.order()
    _submit(bed, order)
    cancel(order.client_order_id)
    report = _report(bed, order.client_order_id)
    require(
        report is None or report.status is OrderStatus.CANCELED,
        f"a cancelled order's status must be CANCELED, was {report and report.status}",
    )


def _reports_what_filled(bed: BrokerTestbed) -> None:
    bed.need_method("fetch_order")
    bed.quote()
    order = bed.order()
    _submit(bed, order)
    bed.trade(-21, bed.instrument.round_qty(order.qty / 2), -1)
    filled = sum(fill.qty for fill in bed.fills())
    report = _report(bed, order.client_order_id)
    if report is None:
        require(False, "`fetch_order` of an open order returned None")
        return
    require(
        math.isclose(report.filled_qty, filled, rel_tol=1e-9, abs_tol=1e-12),
        f"`filled_qty` of the report must be the sum of the fills, {filled!r}, was {report.filled_qty!r}",
    )
    if 0.0 < filled < order.qty:
        require(
            report.status is OrderStatus.PARTIALLY_FILLED,
            f"an order that is filled in part must be PARTIALLY_FILLED, was {report.status}",
        )


def _lists_open_orders_by_market(bed: BrokerTestbed) -> None:
    fetch = bed.need_method("fetch_open_orders")
    bed.quote()
    order = bed.order()
    _submit(bed, order)
    listed = fetch(bed.market_id)
    require(
        [report.client_order_id for report in listed] == [order.client_order_id],
        f"`fetch_open_orders({bed.market_id!r})` must list the one open order, was {listed!r}",
    )
    require(listed[0].status in _OPEN, f"a listed order's status must be open, was {listed[0].status}")
    others = fetch(f"{bed.market_id}-other")
    require(not others, f"`fetch_open_orders` of another market must be empty, was {others!r}")


# Fills and money. -----------------------------------------------------------------------------------------------------


def _tells_each_fill_once(bed: BrokerTestbed) -> None:
    bed.quote()
    order = bed.order()
    _submit(bed, order)
    fills = _fill_whole(bed, order)
    require(fills, "the market went through a resting order, and `process_fills` tells of no fill")
    ids = [fill.trade_id for fill in fills]
    require(len(set(ids)) == len(ids), f"trade ids must differ, were {ids}")
    again = [fill for fill in bed.fills() if fill.trade_id in ids]
    require(not again, f"`process_fills` must tell of a fill once, told again: {again}")
    total = sum(fill.qty for fill in fills)
    require(total <= order.qty * (1 + 1e-9), f"an order of {order.qty} must not fill more, filled {total}")
    now_ns, last_ns = bed.clock.now_ns(), 0
    for fill in fills:
        require(fill.market_id == order.market_id, f"a fill's market must be the order's, was {fill.market_id!r}")
        require(fill.side is order.side, f"a fill's side must be the order's, {order.side}, was {fill.side}")
        require(
            abs(fill.ts_ns - now_ns) < _DAY_NS,
            f"`ts_ns` of a fill must be the venue's time in ns since 1970, was {fill.ts_ns} at {now_ns}",
        )
        require(fill.ts_ns >= last_ns, f"fills must come oldest first, {fill.ts_ns} came after {last_ns}")
        last_ns = fill.ts_ns


def _fills_within_the_limit(bed: BrokerTestbed) -> None:
    for side, sign, ticks in ((Side.BUY, 1, -20), (Side.SELL, -1, 20)):
        bed.quote()
        order = bed.order(side, ticks)
        _submit(bed, order)
        for fill in _fill_whole(bed, order):
            require(
                sign * (fill.price - order.price) <= 1e-9 * order.price,
                f"a {side} limited at {order.price} must not fill at {fill.price}",
            )


def _fills_come_in_order(bed: BrokerTestbed) -> None:
    bed.quote()
    order = bed.order(Side.SELL, 20, bed.qty(16))
    _submit(bed, order)
    part = bed.instrument.round_qty(order.qty / 4)
    for ticks in (21, 22, 23):
        bed.trade(ticks, part, 1)
    fills = [fill for fill in bed.fills() if fill.client_order_id == order.client_order_id]
    if len(fills) < 2:
        raise NotTried("the order could not be filled in parts")
    times = [fill.ts_ns for fill in fills]
    require(times == sorted(times), f"`process_fills` must list the oldest first, the times were {times}")
    ids = {fill.trade_id for fill in fills}
    require(len(ids) == len(fills), f"the trade ids of {len(fills)} executions must differ, were {sorted(ids)}")


def _fees_have_a_currency(bed: BrokerTestbed) -> None:
    bed.quote()
    fills = _take(bed, Side.BUY, bed.qty())
    if not fills:
        raise NotTried("nothing could be traded")
    for fill in fills:
        require(
            fill.fee == 0.0 or fill.fee_currency,
            f"a fill with a fee of {fill.fee!r} must name `fee_currency`",
        )
        require(
            bed.instrument.taker_fee_bps < 0.0 or fill.fee >= 0.0,
            f"a fee that is paid is above 0, a rebate below; the taker pays here, and the fee was {fill.fee!r}",
        )


def _tells_old_fills_again_when_asked(bed: BrokerTestbed) -> None:
    fetch = bed.need_method("fetch_fills")
    bed.quote()
    order = bed.order()
    _submit(bed, order)
    told = {fill.trade_id: fill for fill in _fill_whole(bed, order)}
    if not told:
        raise NotTried("nothing was filled")
    again = {fill.trade_id: fill for fill in fetch(0)}
    for trade_id, fill in told.items():
        require(trade_id in again, f"`fetch_fills(0)` must list fill {trade_id!r}, which `process_fills` told of")
        for name in ("client_order_id", "side", "price", "qty", "fee"):
            first, second = getattr(fill, name), getattr(again[trade_id], name)
            require(first == second, f"`{name}` of fill {trade_id!r} was {first!r} first and {second!r} later")
    later = max(fill.ts_ns for fill in told.values()) + 1
    stale = [fill for fill in fetch(later) if fill.ts_ns < later]
    require(not stale, f"`fetch_fills(since_ns)` must leave out what is older, listed {stale}")


def _position_is_the_sum_of_fills(bed: BrokerTestbed) -> None:
    bed.quote()
    before = _position(bed)
    if before is None:
        raise NotTried("`get_state()` has no positions: the engine keeps its own books")
    signed = sum(fill.signed_qty for fill in _take(bed, Side.BUY, bed.qty(8)))
    bed.quote()
    signed += sum(fill.signed_qty for fill in _take(bed, Side.SELL, bed.qty(12)))
    after = _position(bed)
    require(
        after is not None and math.isclose(after, before + signed, rel_tol=1e-9, abs_tol=1e-9),
        f"the position must be what fills made of it, {before + signed!r}, was {after!r}",
    )


def _cash_is_what_fills_left(bed: BrokerTestbed) -> None:
    before = bed.broker.get_state().get("cash")
    if before is None or bed.instrument.is_inverse:
        raise NotTried("`get_state()` has no cash, or the contract settles in coin")
    bed.quote()
    expected = float(before)
    for fill in _take(bed, Side.BUY, bed.qty(8)):
        expected -= fill.signed_qty * fill.price * bed.instrument.multiplier
        expected -= fill.fee if fill.fee_currency in ("", bed.instrument.currency) else 0.0
    after = bed.broker.get_state().get("cash")
    require(
        after is not None and math.isclose(after, expected, rel_tol=1e-9, abs_tol=1e-9),
        f"cash is what was there less what fills and fees took, {expected!r}, was {after!r}",
    )


def _state_is_readable(bed: BrokerTestbed) -> None:
    state: Any = bed.broker.get_state()
    require(isinstance(state, dict), f"`get_state` must return a dict, was {type(state).__name__}")
    for market, qty in (state.get("positions") or {}).items():
        require(isinstance(market, str), f"a position's market must be a string, was {market!r}")
        require(
            isinstance(qty, int | float) and math.isfinite(qty),
            f"the position of {market!r} must be finite, was {qty!r}",
        )
    cash = state.get("cash")
    require(
        cash is None or (isinstance(cash, int | float) and math.isfinite(cash)), f"`cash` must be finite, was {cash!r}"
    )


def _two_lists_agree(bed: BrokerTestbed) -> None:
    fetch = bed.need_method("fetch_open_orders")
    entries = bed.broker.get_state().get("open_orders")
    if entries is None:
        raise NotTried("`get_state()` has no open orders")
    bed.quote()
    for n in range(2):
        _submit(bed, bed.order(ticks=-20 - n))
    entries = bed.broker.get_state().get("open_orders") or []
    stated = sorted(e["client_order_id"] if isinstance(e, Mapping) else e.client_order_id for e in entries)
    listed = sorted(report.client_order_id for report in fetch())
    require(stated == listed, f"`get_state()['open_orders']` and `fetch_open_orders()` differ: {stated} and {listed}")


def _balances_are_readable(bed: BrokerTestbed) -> None:
    balances = bed.need_method("fetch_balances")()
    require(isinstance(balances, Mapping), f"`fetch_balances` must return a mapping, was {type(balances).__name__}")
    for currency, amount in balances.items():
        is_amount = isinstance(amount, int | float) and math.isfinite(amount)
        require(isinstance(currency, str) and is_amount, f"the balance of {currency!r} must be finite, was {amount!r}")


# Time and secrets. ----------------------------------------------------------------------------------------------------


def _obeys_the_receive_window(bed: BrokerTestbed) -> None:
    window_ms = getattr(bed.broker, "recv_window_ms", None)
    if window_ms is None:
        raise NotTried(
            "`recv_window_ms` is None: this venue cannot expire requests, so a lost order is never sent again"
        )
    require(
        isinstance(window_ms, int) and not isinstance(window_ms, bool) and window_ms > 0,
        f"`recv_window_ms` must be a whole number above 0, or None, was {window_ms!r}",
    )
    bed.quote()
    order = bed.order(expires_ns=bed.clock.now_ns() - 1)
    _require_refusal(bed, order, "an order whose `expires_ns` is past")


def _has_what_live_needs(bed: BrokerTestbed) -> None:
    missing = [name for name in REQUIRED_BEFORE_LIVE if not supports(bed.broker, name)]
    if missing and bed.paper_only:
        raise NotTried(
            f"the testbed says `paper_only`: without {', '.join(missing)} no live run starts with this broker"
        )
    require(
        not missing,
        f"{', '.join(missing)} must be written: a live run refuses it. A broker for recorded runs alone says so by a"
        " BrokerTestbed whose `paper_only` is True",
    )


def _keeps_secrets(bed: BrokerTestbed) -> None:
    values = getattr(bed.broker, "__dict__", {})
    secrets = {name: value for name, value in values.items() if is_secret_key(name) and isinstance(value, str)}
    shown = repr(bed.broker)
    for name, value in secrets.items():
        require(len(value) < 4 or value not in shown, f"`repr` of the broker shows what `{name}` holds")


BROKER_CLAUSES: tuple[Clause[BrokerTestbed], ...] = tuple(
    Clause(name, text, check)
    for name, text, check in (
        ("accepts", "An order that breaks no rule is accepted, and open once.", _accepts_a_resting_order),
        ("repeats-nothing", "The second submit of an id returns the first's ack and places nothing.", _repeats_nothing),
        (
            "repeats-nothing-ended",
            "The id of an order that has ended never becomes a live order again.",
            _repeats_nothing_once_it_ended,
        ),
        (
            "repeats-nothing-restarted",
            "An id is known after a restart of the adapter: the venue remembers it, not the process.",
            _repeats_nothing_after_a_restart,
        ),
        (
            "rejects-no-number",
            "A price or size that is not a finite number above 0 raises VenueRejected.",
            _rejects_what_is_no_number,
        ),
        (
            "rejects-off-grid",
            "A price off the tick or a size off the lot raises VenueRejected; it is not rounded silently.",
            _rejects_what_is_off_the_grid,
        ),
        (
            "rejects-too-small",
            "An order below the venue's minimum raises VenueRejected.",
            _rejects_what_is_too_small,
        ),
        (
            "rejected-stays-rejected",
            "A look-up of a rejected order says so, or knows nothing of it.",
            _a_rejected_id_stays_rejected,
        ),
        ("post-only", "A post-only order never takes.", _post_only_never_takes),
        ("ioc", "An IOC order never rests.", _ioc_never_rests),
        ("reduce-only-opens-nothing", "A reduce-only order opens no position.", _reduce_only_never_opens),
        ("reduce-only-flips-nothing", "A reduce-only order flips no position.", _reduce_only_never_flips),
        ("cancel", "`cancel_order` is True once for an open order, and False after it.", _cancels_once),
        (
            "cancel-unknown",
            "`cancel_order` of an unknown id is False and raises nothing.",
            _cancel_of_the_unknown_is_false,
        ),
        (
            "cancel-is-final",
            "After `cancel_order` was True nothing of the order fills.",
            _a_cancelled_order_never_fills,
        ),
        (
            "cancel-filled",
            "`cancel_order` of a filled order is False: True would hide a fill.",
            _cancel_of_the_filled_is_false,
        ),
        ("cancel-all", "`cancel_all` leaves nothing open, counts it, and can be repeated.", _cancels_all),
        ("cancel-all-market", "`cancel_all` of one market leaves the others alone.", _cancel_all_is_of_one_market),
        ("fetch-order", "`fetch_order` reports an order as it was sent.", _reports_what_was_sent),
        (
            "fetch-unknown",
            "`fetch_order` of an unknown id is None; an exception would leave the order in doubt for ever.",
            _knows_nothing_of_the_unknown,
        ),
        ("fetch-canceled", "`fetch_order` of a cancelled order says CANCELED.", _reports_the_end),
        ("fetch-filled", "`fetch_order` counts what was filled as the fills do.", _reports_what_filled),
        ("fetch-open", "`fetch_open_orders` lists what is open, by market.", _lists_open_orders_by_market),
        (
            "fills-once",
            "`process_fills` tells of each fill once, and of nothing that cannot be.",
            _tells_each_fill_once,
        ),
        ("limit", "A fill is never at a worse price than the order's.", _fills_within_the_limit),
        ("fills-in-order", "Fills come oldest first, each with a trade id of its own.", _fills_come_in_order),
        ("fees", "A fee names its currency; what is paid is above 0.", _fees_have_a_currency),
        (
            "fetch-fills",
            "`fetch_fills` tells old fills again, with the same ids and numbers.",
            _tells_old_fills_again_when_asked,
        ),
        ("position", "The position stated is what the fills made of it.", _position_is_the_sum_of_fills),
        ("cash", "Cash is what fills and fees left of it (linear markets).", _cash_is_what_fills_left),
        ("state", "`get_state` returns what can be read; {} is allowed.", _state_is_readable),
        ("two-lists", "`get_state` and `fetch_open_orders` name the same orders.", _two_lists_agree),
        ("balances", "`fetch_balances` returns an amount for each currency.", _balances_are_readable),
        (
            "receive-window",
            "A request that arrives after its `expires_ns` is refused.",
            _obeys_the_receive_window,
        ),
        (
            "before-live",
            "What a live run needs is written: `fetch_order`, `fetch_open_orders`, `fetch_fills`, `fetch_balances`.",
            _has_what_live_needs,
        ),
        ("secrets", "`repr` of the broker shows no secret.", _keeps_secrets),
    )
)
