"""What a broker returns or raises becomes one of three answers."""

from __future__ import annotations

from enum import Enum
from typing import Any

import pytest

from ami_engine.adapters.base import Broker
from ami_engine.errors import OrderError, VenueProtocolError, VenueRejected, VenueUnavailable
from ami_engine.events import Fill, Liquidity, OrderAck, OrderReport, OrderStatus, Side, SubmitOrder, TimeInForce
from ami_engine.execution import broker_edge
from ami_engine.execution.broker_edge import Answer

ORDER = SubmitOrder(client_order_id="a", market_id="X", side=Side.BUY, price=9.0, qty=1.0)
FILL = {"trade_id": "t", "client_order_id": "a", "market_id": "X", "side": "BUY", "price": 9.0, "qty": 1.0}


class Scripted(Broker):
    """Answers every call with one thing, raising it when it is an exception."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def _say(self) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def submit_order(self, order: SubmitOrder) -> Any:
        return self._say()

    def cancel_order(self, order_id: str) -> Any:
        return self._say()

    def cancel_all(self, market_id: str | None = None) -> Any:
        return self._say()

    def get_state(self) -> Any:
        return self._say()

    def fetch_order(self, client_order_id: str) -> Any:
        return self._say()

    def process_fills(self, now_ms: int) -> Any:
        return self._say()


class Minimal(Broker):
    def submit_order(self, order: SubmitOrder) -> None:
        return None


@pytest.mark.parametrize(
    ("answer", "expected", "is_failure", "is_fatal"),
    [
        (None, Answer.DONE, False, False),
        ("v1", Answer.DONE, False, False),
        (17, Answer.DONE, False, False),
        (OrderAck(client_order_id="a", venue_order_id="v1"), Answer.DONE, False, False),
        (OrderAck(client_order_id="b"), Answer.LOST, True, True),
        (True, Answer.LOST, True, False),
        ({"id": 1}, Answer.LOST, True, False),
        (VenueRejected("no"), Answer.REFUSED, False, False),
        (VenueUnavailable("?"), Answer.LOST, True, False),
        (VenueUnavailable("no route", outcome_known=True), Answer.REFUSED, True, False),
        (VenueProtocolError("odd"), Answer.LOST, True, True),
        (NotImplementedError("IOC"), Answer.LOST, True, True),
        (KeyError("orderId"), Answer.LOST, True, False),
    ],
    ids=repr,
)
def test_replies_to_a_submit(answer: Any, expected: Answer, is_failure: bool, is_fatal: bool) -> None:
    reply = broker_edge.submit(Scripted(answer), ORDER)
    assert (reply.answer, reply.is_failure, reply.is_fatal) == (expected, is_failure, is_fatal)
    assert bool(reply.error) is (expected is not Answer.DONE)


@pytest.mark.parametrize(
    ("answer", "expected", "is_failure", "is_fatal"),
    [
        (True, Answer.DONE, False, False),
        (False, Answer.REFUSED, False, False),
        (None, Answer.LOST, True, False),
        (1, Answer.LOST, True, False),
        (VenueRejected("too late"), Answer.REFUSED, False, False),
        (VenueUnavailable("no route", outcome_known=True), Answer.REFUSED, True, False),
        (NotImplementedError("no"), Answer.REFUSED, True, True),
        (TimeoutError(), Answer.LOST, True, False),
    ],
    ids=repr,
)
def test_replies_to_a_cancel(answer: Any, expected: Answer, is_failure: bool, is_fatal: bool) -> None:
    reply = broker_edge.cancel(Scripted(answer), "a")
    assert (reply.answer, reply.is_failure, reply.is_fatal) == (expected, is_failure, is_fatal)


def test_an_interrupt_is_nobodys_reply() -> None:
    with pytest.raises(KeyboardInterrupt):
        broker_edge.submit(Scripted(KeyboardInterrupt()), ORDER)


def test_an_object_without_the_methods_is_a_broker_that_lacks_them() -> None:
    class Duck:
        def submit_order(self, order: SubmitOrder) -> None:
            return None

    duck: Any = Duck()
    assert broker_edge.submit(duck, ORDER).answer is Answer.DONE
    assert broker_edge.cancel(duck, "a").is_fatal
    assert [broker_edge.supports(b, "cancel_order") for b in (duck, Minimal(), Scripted(1))] == [False, False, True]
    assert broker_edge.read_state(duck)[0] == {}
    assert broker_edge.read_fills(duck, 0)[0] == []


@pytest.mark.parametrize(
    ("answer", "count"), [(3, 3), (0, 0), (None, 0), (True, 0), (-1, 0), (TimeoutError(), 0)], ids=repr
)
def test_a_sweep_counts_or_says_why_not(answer: Any, count: int) -> None:
    found, error = broker_edge.sweep(Scripted(answer), None)
    assert found == count
    assert (error == "") is (answer in (3, 0) and answer is not False)


def test_a_missing_method_is_named() -> None:
    assert "Minimal cannot do what the decision needs: write cancel_all" in broker_edge.sweep(Minimal(), None)[1]
    assert "write cancel_order" in broker_edge.cancel(Minimal(), "a").error


@pytest.mark.parametrize("state", [None, {}, [1], TimeoutError("slow")], ids=repr)
def test_a_state_that_is_not_known_is_empty(state: Any) -> None:
    found, error = broker_edge.read_state(Scripted(state))
    assert found == {}
    assert bool(error) is (state not in (None, {}))


def test_a_report_may_be_a_struct_or_a_dict_and_must_be_of_that_order() -> None:
    report = OrderReport(client_order_id="a", market_id="X", side=Side.BUY, price=9.0, qty=1.0)
    as_dict = {"client_order_id": "a", "market_id": "X", "side": "BUY", "price": 9.0, "qty": 1.0}
    assert broker_edge.fetch_report(Scripted(report), "a") == (report, "")
    assert broker_edge.fetch_report(Scripted(as_dict), "a") == (report, "")
    assert broker_edge.fetch_report(Scripted(None), "a") == (None, "")
    for answer in (as_dict | {"client_order_id": "b"}, {"side": "BUY"}, 7, TimeoutError()):
        found, error = broker_edge.fetch_report(Scripted(answer), "a")
        assert found is None
        assert error


def test_open_orders_may_be_listed_in_several_forms() -> None:
    report = OrderReport(client_order_id="a", market_id="X", side=Side.BUY, price=9.0, qty=1.0)
    as_dict = {"client_order_id": "a", "market_id": "X", "side": "BUY", "price": 9.0, "qty": 1.0, "venue_says": 1}
    assert [broker_edge.open_order_of(entry) for entry in (report, ORDER, as_dict)] == [report] * 3
    for entry in ("a", {"client_order_id": "a"}, None):
        with pytest.raises(VenueProtocolError, match="open_orders"):
            broker_edge.open_order_of(entry)


def test_fills_are_read_from_structs_and_dicts() -> None:
    expected = Fill(trade_id="t", client_order_id="a", market_id="X", side=Side.BUY, price=9.0, qty=1.0)
    assert broker_edge.decode_fill(expected) is expected
    assert broker_edge.decode_fill(expected.to_dict()) == expected
    assert broker_edge.decode_fill(FILL | {"side": Side.BUY, "liquidity": Liquidity.MAKER, "fee": None}) == expected
    taken = broker_edge.decode_fill(FILL | {"liquidity": "taker", "fee": -1, "fee_currency": "BNB", "ts_ns": 5})
    assert (taken.liquidity, taken.fee, taken.fee_currency, taken.ts_ns) == (Liquidity.TAKER, -1.0, "BNB", 5)


@pytest.mark.parametrize("name", ["trade_id", "client_order_id", "market_id", "side", "price", "qty"])
def test_a_fill_without_a_field_is_refused_and_the_field_named(name: str) -> None:
    with pytest.raises(VenueProtocolError, match=f"`{name}`"):
        broker_edge.decode_fill({key: value for key, value in FILL.items() if key != name})


@pytest.mark.parametrize(
    "change",
    [
        {"price": float("nan")},
        {"price": -1},
        {"qty": 0},
        {"qty": True},
        {"qty": "1"},
        {"fee": float("inf")},
        {"side": None},
        {"liquidity": "BOTH"},
        {"trade_id": ""},
        {"trade_id": None},
        {"client_order_id": 1.5},
        {"ts_ns": [1]},
    ],
    ids=repr,
)
def test_a_fill_with_a_wrong_value_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(VenueProtocolError):
        broker_edge.decode_fill(FILL | change)


def test_what_is_no_fill_at_all_is_refused() -> None:
    with pytest.raises(VenueProtocolError, match="was a str"):
        broker_edge.decode_fill("fill")


def test_fills_before_a_break_are_kept() -> None:
    def half() -> Any:
        yield FILL
        raise ConnectionError("closed\nby peer")

    assert broker_edge.read_fills(Scripted(half()), 0) == ([FILL], "ConnectionError: closed by peer")
    assert broker_edge.read_fills(Scripted(None), 0) == ([], "")
    assert broker_edge.read_fills(Scripted(TimeoutError()), 0) == ([], "TimeoutError")


def test_what_a_venue_quotes_of_a_secret_goes_no_further() -> None:
    error = VenueUnavailable("timeout, Authorization: Bearer sk-live-AAAABBBBCCCCDDDD1234")
    reply = broker_edge.submit(Scripted(error), ORDER)
    assert reply.answer is Answer.LOST
    assert reply.error.startswith("VenueUnavailable: timeout")
    assert "AAAABBBB" not in reply.error


class OtherSide(Enum):
    """A venue client's own enum."""

    BUY = "buy"


WORDS: dict[str, Any] = {"client_order_id": "a", "market_id": "X", "price": 9.0, "qty": 1.0}


@pytest.mark.parametrize("text", ["BUY", "buy", Side.BUY, OtherSide.BUY])
def test_the_text_of_a_side_is_that_side(text: Any) -> None:
    fill = Fill(trade_id="t", side=text, **WORDS)
    assert fill.side is Side.BUY
    assert fill.signed_qty == 1.0
    assert SubmitOrder(side=text, tif="ioc", **WORDS).tif is TimeInForce.IOC  # type: ignore[arg-type]
    assert OrderReport(side=text, status="FILLED", **WORDS).status is OrderStatus.FILLED  # type: ignore[arg-type]
    assert broker_edge.open_order_of({"side": text, **WORDS}).side is Side.BUY


@pytest.mark.parametrize(
    ("make", "error", "field"),
    [
        (lambda: SubmitOrder(side="long", **WORDS), OrderError, "side"),
        (lambda: SubmitOrder(side=None, **WORDS), OrderError, "side"),
        (lambda: SubmitOrder(side="BUY", tif="FOK", **WORDS), OrderError, "tif"),
        (lambda: Fill(trade_id="t", side="long", **WORDS), VenueProtocolError, "side"),
        (lambda: Fill(trade_id="t", side="BUY", liquidity=7, **WORDS), VenueProtocolError, "liquidity"),
        (lambda: OrderReport(side="BUY", status="gone", **WORDS), VenueProtocolError, "status"),
        (lambda: broker_edge.open_order_of({"side": "long", **WORDS}), VenueProtocolError, "side"),
        (lambda: broker_edge.decode_fill(FILL | {"side": 1}), VenueProtocolError, "side"),
        (
            lambda: broker_edge.decode_fill(Fill(trade_id="t", side=Side.BUY, **WORDS | {"qty": "1"})),
            VenueProtocolError,
            "qty",
        ),
    ],
)
def test_what_names_no_member_is_refused_with_field_and_value(make: Any, error: type[Exception], field: str) -> None:
    with pytest.raises(error, match=f"`{field}`.* must be .*, was "):
        make()


def test_a_fill_that_a_broker_cannot_read_itself_is_told_apart_from_a_venue_that_is_away() -> None:
    def fills() -> Any:
        yield FILL
        yield Fill(trade_id="t2", side="long", **WORDS)  # type: ignore[arg-type]

    found, error = broker_edge.read_fills(Scripted(fills()), 0)
    assert found == [FILL]
    assert isinstance(error, broker_edge.Unreadable)
    assert not isinstance(broker_edge.read_fills(Scripted(TimeoutError()), 0)[1], broker_edge.Unreadable)
