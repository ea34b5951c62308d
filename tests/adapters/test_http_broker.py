"""The HTTP broker against peers that answer badly; what it does at the mock exchange is in tests/sim."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from ami_engine.adapters.http_broker import HttpBroker
from ami_engine.errors import ConfigError, VenueRejected, VenueUnavailable
from ami_engine.events import Side, SubmitOrder

ORDER = SubmitOrder(client_order_id="a1", market_id="X", side=Side.BUY, price=1.0, qty=1.0)


class Peer:
    """Answers every connection with the same bytes, and keeps what it was sent."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.asked: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                request = connection.recv(65_536)
                if b"/v1/stream" not in request:
                    self.asked.append(request)
                    connection.sendall(self._answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(2.0)


def http(status: int, body: str) -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


@pytest.fixture
def broker_to() -> Iterator[Callable[[bytes], tuple[HttpBroker, Peer]]]:
    made: list[tuple[HttpBroker, Peer]] = []

    def make(answer: bytes) -> tuple[HttpBroker, Peer]:
        peer = Peer(answer)
        made.append((HttpBroker(peer.url, timeout_ms=500), peer))
        return made[-1]

    yield make
    for broker, peer in made:
        broker.close()
        peer.close()


To = Callable[[bytes], tuple[HttpBroker, Peer]]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\xff\x00\xff\r\n\r\n",
        b"HTTP/1.1 200 X\r\nContent-Length: 50\r\n\r\n{",
        http(200, "<html>"),
        http(200, '{"client_order_id": 7}'),
        http(500, "oops"),
        http(404, "<html>no such page</html>"),
        http(302, ""),
    ],
    ids=["closed", "no HTTP", "cut", "no JSON", "other JSON", "500", "404", "302"],
)
def test_what_is_no_answer_leaves_the_order_in_doubt(broker_to: To, answer: bytes) -> None:
    broker, _ = broker_to(answer)
    with pytest.raises(VenueUnavailable) as caught:
        broker.submit_order(ORDER)
    assert not caught.value.outcome_known


def test_a_refusal_is_a_refusal(broker_to: To) -> None:
    broker, _ = broker_to(http(400, '{"error": "too small"}'))
    with pytest.raises(VenueRejected, match="too small"):
        broker.submit_order(ORDER)


def test_a_refusal_that_cannot_be_read_is_none(broker_to: To) -> None:
    broker, _ = broker_to(http(400, "<html>bad gateway</html>"))
    with pytest.raises(VenueUnavailable):
        broker.submit_order(ORDER)


def test_too_many_requests_did_nothing(broker_to: To) -> None:
    broker, _ = broker_to(http(429, '{"error": "slow down"}'))
    with pytest.raises(VenueUnavailable, match="slow down") as caught:
        broker.submit_order(ORDER)
    assert caught.value.outcome_known
    assert caught.value.is_rate_limit


def test_only_the_venues_own_word_makes_an_order_unknown(broker_to: To) -> None:
    broker, _ = broker_to(http(404, '{"error": "unknown order"}'))
    assert broker.fetch_order("a1") is None
    proxy, _ = broker_to(http(404, '{"error": "no route"}'))
    with pytest.raises(VenueUnavailable):
        proxy.fetch_order("a1")


def test_a_request_is_sent_once(broker_to: To) -> None:
    broker, peer = broker_to(b"")
    with pytest.raises(VenueUnavailable):
        broker.submit_order(ORDER)
    assert len([each for each in peer.asked if each.startswith(b"POST")]) == 1


def test_ids_are_quoted(broker_to: To) -> None:
    broker, peer = broker_to(http(200, "true"))
    assert broker.cancel_order("a/../b c") is True
    assert peer.asked[-1].startswith(b"DELETE /v1/order/a%2F..%2Fb%20c HTTP")


def test_where_nobody_listens_nothing_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    broker = HttpBroker(f"http://127.0.0.1:{port}", timeout_ms=200)
    try:
        with pytest.raises(VenueUnavailable, match="no connection") as caught:
            broker.submit_order(ORDER)
        assert caught.value.outcome_known
        with pytest.raises(VenueUnavailable):
            broker.process_fills(0)
    finally:
        broker.close()
        broker.close()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"url": "venue:80"}, "url"),
        ({"url": "http://x", "timeout_ms": 0}, "timeout_ms"),
        ({"url": "http://x", "recv_window_ms": 0}, "recv_window_ms"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        HttpBroker(**settings)  # type: ignore[arg-type]
