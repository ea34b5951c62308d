"""The one place where a broker is called to act: whatever it returns or raises becomes a typed reply.

A broker is foreign code. What it returns may be unreadable and what it raises may be anything, so every call here ends
in a `Reply` or in facts that were checked; nothing foreign goes further.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from math import inf, isfinite
from typing import Any

import msgspec

from ami_engine.adapters.base import Broker
from ami_engine.errors import VenueProtocolError, VenueRejected, VenueUnavailable
from ami_engine.events import Fill, Liquidity, OrderAck, OrderReport, OrderStatus, Side, SubmitOrder
from ami_engine.events.enums import member_of
from ami_engine.security.redaction import redact_text

__all__ = [
    "Answer",
    "RateLimited",
    "Reply",
    "Unreadable",
    "cancel",
    "decode_fill",
    "describe",
    "fetch_fills",
    "fetch_report",
    "is_closing",
    "open_order_of",
    "read_fills",
    "read_open_orders",
    "read_state",
    "submit",
    "supports",
    "sweep",
]


class Answer(Enum):
    """What became of a request."""

    DONE = "done"  # accepted, or cancelled
    REFUSED = "refused"  # certainly not done
    LOST = "lost"  # nobody knows


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A broker's reply to a request.

    `error` is empty for a plain answer. `is_failure`: the venue failed, rather than refused. `is_fatal`: the broker
    cannot do this at all, or broke the protocol, and the run must halt.
    """

    answer: Answer
    error: str = ""
    venue_order_id: str = ""
    is_failure: bool = False
    is_fatal: bool = False


_DONE = Reply(Answer.DONE)
_NOT_CANCELED = Reply(Answer.REFUSED)


def supports(broker: object, name: str) -> bool:
    """Return True when `broker` has its own method `name`, not `Broker`'s that only says what to write."""
    method = getattr(type(broker), name, None) or getattr(broker, name, None)
    return method is not None and method is not getattr(Broker, name)


def submit(broker: Broker, order: SubmitOrder) -> Reply:
    """Place an order. None, an id or an ack is acceptance; `VenueRejected` is refusal; anything else is doubt."""
    try:
        ack: object = broker.submit_order(order)
    except Exception as error:
        return _reply_to(error, unsupported=Answer.LOST)
    if ack is None:
        return _DONE
    if isinstance(ack, OrderAck):
        if ack.client_order_id != order.client_order_id:
            text = f"the broker acknowledged {ack.client_order_id!r} when {order.client_order_id!r} was submitted"
            return Reply(Answer.LOST, text, is_failure=True, is_fatal=True)
        return Reply(Answer.DONE, venue_order_id=ack.venue_order_id)
    if isinstance(ack, (str, int)) and not isinstance(ack, bool):
        return Reply(Answer.DONE, venue_order_id=str(ack))
    text = f"`submit_order` must return None, an id or an OrderAck, was a {type(ack).__name__}: the order is in doubt"
    return Reply(Answer.LOST, text, is_failure=True)


def cancel(broker: Broker, client_order_id: str) -> Reply:
    """Cancel an order. True is done, False is not done; an exception is doubt, unless it says that nothing happened."""
    if not supports(broker, "cancel_order"):
        return Reply(Answer.REFUSED, _missing(broker, "cancel_order(order_id) -> bool"), is_fatal=True)
    try:
        answer: object = broker.cancel_order(client_order_id)
    except Exception as error:
        return _reply_to(error, unsupported=Answer.REFUSED)
    if answer is True:
        return _DONE
    if answer is False:
        return _NOT_CANCELED
    return Reply(Answer.LOST, f"`cancel_order` must return True or False, was {answer!r}", is_failure=True)


def _reply_to(error: Exception, unsupported: Answer) -> Reply:
    if isinstance(error, VenueRejected):
        return Reply(Answer.REFUSED, describe(error))
    if isinstance(error, NotImplementedError):
        return Reply(unsupported, describe(error), is_failure=True, is_fatal=True)
    if isinstance(error, VenueUnavailable) and error.outcome_known:
        return Reply(Answer.REFUSED, describe(error), is_failure=True)
    return Reply(Answer.LOST, describe(error), is_failure=True, is_fatal=isinstance(error, VenueProtocolError))


def _missing(broker: object, signature: str) -> str:
    return f"{type(broker).__name__} cannot do what the decision needs: write {signature}"


def sweep(broker: Broker, market_id: str | None) -> tuple[int, str]:
    """Cancel every order, or a market's, known to us or not; return how many, and the error or ''."""
    if not supports(broker, "cancel_all"):
        return 0, _missing(broker, "cancel_all(market_id) -> int")
    try:
        count: object = broker.cancel_all(market_id)
    except Exception as error:
        return 0, describe(error)
    if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
        return count, ""
    return 0, f"`cancel_all` must return how many orders it cancelled, was {count!r}"


def fetch_report(broker: Broker, client_order_id: str) -> tuple[OrderReport | None, str]:
    """Ask the venue about one order; return its report (None: it knows nothing), and the error or ''."""
    try:
        told: object = broker.fetch_order(client_order_id)
        report = None if told is None else _report_of(told, "the answer of `fetch_order`")
    except Exception as error:
        return None, describe(error)
    if report is not None and report.client_order_id != client_order_id:
        return None, f"the broker reported on {report.client_order_id!r} when {client_order_id!r} was asked for"
    return report, ""


def read_open_orders(broker: Broker) -> tuple[dict[str, OrderReport] | None, str]:
    """Return the orders that are live at the venue, by client id (None: it does not say), and the error or ''."""
    entries: Iterable[object] | None
    if supports(broker, "fetch_open_orders"):
        try:
            entries = list(broker.fetch_open_orders())
        except Exception as error:
            return None, describe(error)
    else:
        state, error_text = read_state(broker)
        entries = state.get("open_orders")
        if error_text or entries is None:
            return None, error_text
    found = {}
    for entry in entries:
        try:
            report = open_order_of(entry)
        except VenueProtocolError as broken:
            return None, str(broken)
        found[report.client_order_id] = report
    return found, ""


def open_order_of(entry: object) -> OrderReport:
    """Read one entry of ``get_state()["open_orders"]``: an `OrderReport`, a `SubmitOrder`, or a dict or object alike.

    Raises
    ------
    VenueProtocolError
        When it does not say which order it is, its side or its size.
    """
    return _report_of(entry, "an entry of `open_orders`")


def _report_of(told: object, what: str) -> OrderReport:
    if isinstance(told, OrderReport):
        return told
    found = {name: value for name in OrderReport.__struct_fields__ if (value := _field(told, name)) is not None}
    try:
        for name, kind in (("side", Side), ("status", OrderStatus)):
            if name in found:
                found[name] = member_of(kind, found[name], f"`{name}`")
        return msgspec.convert(found, OrderReport)
    except ValueError as error:  # msgspec's own is one
        raise VenueProtocolError(f"{what} cannot be read: {error}") from error


def is_closing(entry: object) -> bool:
    """Return True when an entry of ``open_orders`` says that the order only reduces a position."""
    return bool(_field(entry, "reduce_only"))


def _field(entry: object, name: str) -> object:
    return entry.get(name) if isinstance(entry, Mapping) else getattr(entry, name, None)


def decode_fill(raw: Fill | Mapping[str, Any] | object) -> Fill:
    """Return a broker's fill as a checked `Fill`.

    Parameters
    ----------
    raw : Fill or mapping
        As `Broker.process_fills` lists it. The side's case does not matter; ids may be integers.

    Raises
    ------
    VenueProtocolError
        When a field is missing, of a wrong type, not finite or out of range.

    Examples
    --------
    >>> fill = {"trade_id": 7, "client_order_id": "a", "market_id": "X", "side": "buy", "price": 10.0, "qty": 1}
    >>> decode_fill(fill).side.value
    'BUY'
    >>> decode_fill(fill | {"qty": -1})
    Traceback (most recent call last):
    ami_engine.errors.VenueProtocolError: `qty` of a fill must be finite and > 0, was -1.0
    """
    if not isinstance(raw, Fill):
        if not isinstance(raw, Mapping):
            raise VenueProtocolError(f"a fill must be a Fill or a mapping, was a {type(raw).__name__}")
        raw = _fill_from_mapping(raw)
    elif not (
        type(raw.price) is type(raw.qty) is type(raw.fee) is float
        and type(raw.trade_id) is type(raw.client_order_id) is type(raw.market_id) is str
        and type(raw.ts_ns) is int
    ):
        raw = _fill_from_mapping(msgspec.structs.asdict(raw))  # nobody checks a struct's fields when it is made
    # Written so that NaN is refused.
    if not (0.0 < raw.price < inf and 0.0 < raw.qty < inf):
        name, value = ("qty", raw.qty) if 0.0 < raw.price < inf else ("price", raw.price)
        raise VenueProtocolError(f"`{name}` of a fill must be finite and > 0, was {value!r}")
    if not isfinite(raw.fee):
        raise VenueProtocolError(f"`fee` of a fill must be finite, was {raw.fee!r}")
    if not raw.trade_id:
        raise VenueProtocolError("`trade_id` of a fill must not be empty: without it a repeat cannot be told")
    return raw


def _fill_from_mapping(raw: Mapping[str, Any]) -> Fill:
    try:
        return Fill(
            trade_id=_text(raw, "trade_id"),
            client_order_id=_text(raw, "client_order_id"),
            market_id=_text(raw, "market_id"),
            side=member_of(Side, raw["side"], "`side`"),
            price=_float(raw, "price"),
            qty=_float(raw, "qty"),
            fee=_float(raw, "fee", 0.0),
            fee_currency=str(raw.get("fee_currency") or ""),
            liquidity=member_of(Liquidity, raw.get("liquidity") or Liquidity.MAKER, "`liquidity`"),
            ts_ns=int(raw.get("ts_ns") or 0),
        )
    except KeyError as error:
        raise VenueProtocolError(f"a fill must have `{error.args[0]}`, keys were {sorted(map(str, raw))}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise VenueProtocolError(f"a fill cannot be read: {error}") from error


def _text(raw: Mapping[str, Any], name: str) -> str:
    value = raw[name]
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise TypeError(f"`{name}` must be a text, was {value!r}")
    return str(value)


def _float(raw: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = raw[name] if default is None else raw.get(name)
    if value is None and default is not None:
        return default
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"`{name}` must be a number, was {value!r}")
    return float(value)  # type: ignore[arg-type]


def read_fills(broker: Broker, now_ms: int) -> tuple[list[object], str]:
    """Return what the broker lists since the last call, unchecked, and the error or ''.

    A list that breaks off half-way gives what came before: a fill once told is never told again. An `Unreadable` error
    says that one of them was, and could not be read.
    """
    found: list[object] = []
    try:
        fills: Iterable[object] | None = broker.process_fills(now_ms)
        if fills is not None:
            found.extend(fills)
    except VenueProtocolError as error:
        return found, Unreadable(describe(error))
    except Exception as error:
        return found, describe(error)
    return found, ""


def fetch_fills(broker: Broker, since_ns: int) -> tuple[tuple[Fill, ...] | None, str]:
    """Return the fills that the venue lists since `since_ns` (None: it does not say), checked, and the error or ''."""
    try:
        return tuple(decode_fill(raw) for raw in broker.fetch_fills(since_ns)), ""
    except Exception as error:
        return None, describe(error)


def read_state(broker: Broker) -> tuple[dict[str, Any], str]:
    """Return the broker's state ({} when it does not know), and the error or ''."""
    try:
        state: object = broker.get_state()
    except Exception as error:
        return {}, describe(error)
    if state is None:
        return {}, ""
    if not isinstance(state, Mapping):
        return {}, f"`get_state` must return a dict, was a {type(state).__name__}"
    return dict(state), ""


class Unreadable(str):
    """What an error says of which the venue had told something that cannot be read, and will not be told again."""


class RateLimited(str):
    """What an error says of which the venue told that we ask too often."""


def describe(error: BaseException) -> str:
    """Return an exception as one line, its kind first; a `RateLimited` when that is what it says."""
    # Venues' errors quote requests, headers and keys included; this text goes into the journal and to callers.
    text = redact_text(" ".join(str(error).split()))
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return RateLimited(line) if isinstance(error, VenueUnavailable) and error.is_rate_limit else line
