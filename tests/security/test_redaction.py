"""Secrets are found by key and by shape; everything else is left alone."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import traceback
from collections import OrderedDict, namedtuple
from enum import Enum
from types import MappingProxyType, SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.security.redaction import (
    SENTINEL,
    TRIGGERS,
    TRUNCATED,
    Redactor,
    is_secret_key,
    redact_secrets,
    redact_text,
)

CANARY = "cAnArY9f3b"

_SECRET_KEYS = [
    *("secret", "password", "passphrase", "authorization", "credential", "credentials", "cookie", "signature"),
    *("client_secret", "accessToken", "EXCHANGE_API_SECRET", "api_key", "api-key", "apiKey", "APIKey", "API_KEY"),
    *("X-MBX-APIKEY", "X-BAPI-SIGNATURE", "Set-Cookie", "Authorization", "access_key_id", "AWSSecretAccessKey"),
    *("api_keys", "private_keys", "rawPayloads"),
    *("private key", "signingKey", "raw_payload", "RawPayload", "request_headers", "HTTPHeaders", "token"),
    *("oauth2_token", "okAccessPassphrase", "binance.api_key", "apikey2", "passWord", "user-PASSWORD", "APIkey"),
    *("secrets", "passwords", "passphrases", "cookies", "signatures"),
]
_PLAIN_KEYS = [
    *("tokens_left", "keyboard", "author", "authored_by", "monkey", "key", "public_key", "idempotency_key"),
    *("secretary", "headers_seen", "token_count", "payload", "bid", "order_id", "client_order_id", "policy_hash"),
    *("api", "access", "keys_api", "mid", "", "__", "signal", "passed", "cookiecutter"),
]


@pytest.mark.parametrize("key", _SECRET_KEYS)
def test_secret_keys(key: str) -> None:
    assert is_secret_key(key)
    assert is_secret_key(key.encode())
    assert redact_secrets({key: CANARY}) == {key: SENTINEL}
    assert any(trigger in key.lower() for trigger in TRIGGERS)


@pytest.mark.parametrize("key", _PLAIN_KEYS)
def test_plain_keys(key: str) -> None:
    assert not is_secret_key(key)
    data = {key: "value", key.encode(): b"value"}
    assert redact_secrets(data) is data


@pytest.mark.parametrize("key", [None, 1, 1.5, ("secret",), True])
def test_keys_that_are_no_text_are_not_secret(key: object) -> None:
    assert not is_secret_key(key)


@pytest.mark.parametrize("value", [CANARY, CANARY.encode(), 17, None, [CANARY], {"x": {"y": CANARY}}, (CANARY,)])
def test_a_secret_keys_value_is_replaced_whatever_it_is(value: object) -> None:
    assert redact_secrets({"mid": 0.5, "api_key": value}) == {"mid": 0.5, "api_key": SENTINEL}


class _Venue(msgspec.Struct, frozen=True, tag="venue"):
    name: str
    api_key: str
    note: str = ""


class _Nested(msgspec.Struct):
    venues: list[_Venue]


@dataclasses.dataclass(frozen=True, slots=True)
class _Account:
    name: str
    password: str

    def __post_init__(self) -> None:
        if len(self.password) > 12:
            raise ValueError("too long")


@dataclasses.dataclass
class _OneField:
    text: str


_Pair = namedtuple("_Pair", ["name", "secret"])


def test_structs_keep_their_type_and_other_fields() -> None:
    nested = _Nested([_Venue("x", CANARY, f"token={CANARY}")])
    redacted = redact_secrets(nested)
    assert redacted == _Nested([_Venue("x", SENTINEL, f"token={SENTINEL}")])
    assert msgspec.json.decode(msgspec.json.encode(redacted.venues[0]))["type"] == "venue"
    assert nested.venues[0].api_key == CANARY


def test_dataclasses_and_named_tuples_keep_their_type() -> None:
    redacted = redact_secrets(_Account("a", CANARY))
    assert (type(redacted), redacted.name, redacted.password) == (_Account, "a", SENTINEL)
    assert redact_secrets(_Pair("a", CANARY)) == _Pair("a", SENTINEL)
    assert redact_secrets(_OneField(f"token={CANARY}")) == _OneField(f"token={SENTINEL}")
    clean = _OneField("mid")
    assert redact_secrets(clean) is clean


@pytest.mark.parametrize(
    "container",
    [
        lambda x: [x],
        lambda x: (x, 1),
        lambda x: {"a": x},
        lambda x: OrderedDict(a=x),
        lambda x: MappingProxyType({"a": x}),
        lambda x: {"a": ({"b": [x]},)},
        lambda x: _OneField(x),
    ],
)
def test_containers_are_searched_and_never_changed(container: Any) -> None:
    original = container({"password": CANARY, "mid": 0.5})
    assert CANARY in repr(original)
    redacted = redact_secrets(original)
    assert CANARY not in repr(redacted)
    assert SENTINEL in repr(redacted)
    assert CANARY in repr(original)
    clean = container({"mid": 0.5})
    assert redact_secrets(clean) is clean


class _Attrs:
    """What a class of attrs looks like from outside."""

    __attrs_attrs__ = (SimpleNamespace(name="api_key"), SimpleNamespace(name="note"))

    def __init__(self, api_key: str, note: str) -> None:
        self.api_key, self.note = api_key, note


def test_classes_of_attrs_members_and_views_are_searched() -> None:
    cleaned = redact_secrets({"account": _Attrs(CANARY, f"token={CANARY}")})["account"]
    assert (type(cleaned), cleaned.api_key, cleaned.note) == (_Attrs, SENTINEL, f"token={SENTINEL}")
    member = Enum("member", {"LEAKS": f"token={CANARY}", "IS_PLAIN": "x"})
    assert redact_secrets([member.LEAKS, member.IS_PLAIN]) == [f"token={SENTINEL}", member.IS_PLAIN]
    assert redact_secrets(memoryview(f"token={CANARY}".encode())) == f"token={SENTINEL}".encode()
    plain = memoryview(b"mid")
    assert redact_secrets(plain) is plain


def test_sets_bytes_and_keys_are_searched() -> None:
    shaped = f"token={CANARY}"
    assert redact_secrets({shaped, "mid"}) == {f"token={SENTINEL}", "mid"}
    assert redact_secrets(frozenset({shaped})) == frozenset({f"token={SENTINEL}"})
    assert redact_secrets(shaped.encode()) == f"token={SENTINEL}".encode()
    assert redact_secrets(bytearray(shaped.encode())) == bytearray(f"token={SENTINEL}".encode())
    assert redact_secrets({shaped: 1, "mid": 2}) == {f"token={SENTINEL}": 1, "mid": 2}
    assert redact_secrets({1: shaped, None: "x"}) == {1: f"token={SENTINEL}", None: "x"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GET /api?symbol=X&signature={c}&recvWindow=5", "GET /api?symbol=X&signature={s}&recvWindow=5"),
        ("api_key={c}", "api_key={s}"),
        ("api_key = {c}, order_id=12", "api_key = {s}, order_id=12"),
        ("password={c},REST", "password={s}"),
        ("password={c};x)y&z", "password={s}"),
        ("connect(password={c})", "connect(password={s})"),
        ("password={c};mid=5", "password={s};mid=5"),
        ("https://a/?next=https%3A%2F%2Fb%3Fapi_key%3D{c}", "https://a/?next=https%3A%2F%2Fb%3Fapi_key%3D{s}"),
        ("x%26api_key%3d{c}", "x%26api_key%3d{s}"),
        ("API key: {c}", "API key: {s}"),
        ("api_key: {c}, order_id: 17", "api_key: {s}, order_id: 17"),
        ("api_key: {c} order_id: 17", "api_key: {s} order_id: 17"),
        ("password: two {c} words", "password: {s}"),
        ('{{"api_key": "{c}", "mid": 0.5}}', '{{"api_key": "{s}", "mid": 0.5}}'),
        ("{{'api_key': '{c}', 'mid': 0.5}}", "{{'api_key': '{s}', 'mid': 0.5}}"),
        ('{{"api_key": "{c}\\"{c}", "mid": 0.5}}', '{{"api_key": "{s}", "mid": 0.5}}'),
        ('"{{\\"secret\\": \\"{c}\\", \\"mid\\": 1}}"', '"{{\\"secret\\": \\"{s}\\", \\"mid\\": 1}}"'),
        ("headers={{'X-MBX-APIKEY': '{c}', 'a': {{'b': '{c}'}}}} status=200", "headers={s} status=200"),
        ("headers: ['{c}'", "headers: {s}"),
        ("Config(api_secret=b'{c}', n=1)", "Config(api_secret=b'{s}', n=1)"),
        ("Cookie: a={c}; b={c}\r\nHost: x", "Cookie: {s}\r\nHost: x"),
        ("Authorization: Basic {c}==", "Authorization: {s}"),
        ("authorization: Bearer {c}.{c}", "authorization: {s}"),
        ("sent Bearer {c}.x-y_z/~+== to venue", "sent Bearer {s} to venue"),
        ("BEARER {c}", "BEARER {s}"),
        ("https://user:{c}@host:443/path", "https://user:{s}@host:443/path"),
        ("params['secret'] = '{c}'", "params['secret'] = '{s}'"),
        ("client_secret => {c}", "client_secret => {s}"),
        ("-----BEGIN EC PRIVATE KEY-----\n{c}\n-----END EC PRIVATE KEY-----\nrest", "{s}\nrest"),
        ("-----BEGIN RSA PRIVATE KEY-----\n{c}", "{s}"),
        ("token={c}&token={c}", "token={s}&token={s}"),
        ("token='{c}", "token='{s}"),
    ],
)
def test_secrets_in_text(text: str, expected: str) -> None:
    redacted = redact_text(text.format(c=CANARY, s=SENTINEL))
    assert redacted == expected.format(c=CANARY, s=SENTINEL)
    assert redact_text(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tight_spread",
        "spread_bps: 512.3 is above max_spread_bps=500",
        "0f3b9c6a7d1e4f5a8b2c0f3b9c6a7d1e4f5a8b2c0f3b9c6a7d1e4f5a8b2c1234",
        "order 8f3a-9c0e: refused (code=-2010)",
        "https://api.example.com:443/v3/order?symbol=BTCUSDT&orderId=123",
        "2024-08-09T00:00:00Z",
        "tokens_left=3, keyboard: qwerty",
        "secret missing: BINANCE_ID",
        "C:\\data\\book.csv:7: `bid` must be finite",
        "a=b=c:d=>e",
    ],
)
def test_text_without_secrets_is_the_same_object(text: str) -> None:
    assert redact_text(text) is text
    assert redact_secrets(text) is text


@given(st.text(alphabet="abkeytosrc =:&{}[]\"'\\/@-\n", max_size=60))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact_text(text)
    assert redact_text(once) == once


@pytest.mark.parametrize("text", ["a" * 200_000 + ":", "secret:" + "[" * 200_000, ":" * 100_000, "token=" * 30_000])
def test_long_texts_take_no_more_than_their_length(text: str) -> None:
    # Quadratic work on these would take minutes.
    assert isinstance(redact_text(text), str)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["mid", "x1", "key", "author"]), inner),
    max_leaves=20,
)


@given(_VALUES, st.sampled_from(_SECRET_KEYS))
def test_a_secret_is_found_at_any_place(value: Any, key: str) -> None:
    holder = {"mid": [value, {key: CANARY, "x": value}]}
    assert CANARY not in repr(redact_secrets(holder))
    assert CANARY in repr(holder)


@given(_VALUES)
def test_a_value_without_secrets_comes_back_itself(value: Any) -> None:
    before = repr(value)
    result = redact_secrets(value)
    assert repr(value) == before
    if not any(sign in before for sign in (":", "=")):
        assert result is value


def test_cycles_and_depths_end() -> None:
    cycle: dict[str, Any] = {"mid": 0.5}
    cycle["again"] = [cycle, cycle, cycle]
    assert TRUNCATED in json.dumps(redact_secrets(cycle))
    deep: list[Any] = [{"secret": CANARY}]
    for _ in range(sys.getrecursionlimit() // 2):
        deep = [deep]
    assert CANARY not in repr(redact_secrets(deep))
    shared = [1.0, "x"]
    twice = {"a": {"b": {"c": {"d": [shared, shared]}}}}
    assert redact_secrets(twice) is twice


def test_numbers_arrays_and_many_values_pass_untouched() -> None:
    row = {f"f{index}": float(index) for index in range(30)}
    assert redact_secrets(row) is row
    assert redact_secrets({**row, "note": f"token={CANARY}"})["note"] == f"token={SENTINEL}"
    array = np.arange(10.0)
    assert redact_secrets({"row": array})["row"] is array
    mixed = [float("nan"), *range(10), f"token={CANARY}"]
    assert redact_secrets(mixed)[-1] == f"token={SENTINEL}"


def test_exceptions_tracebacks_and_reprs_can_be_shown_once_redacted() -> None:
    try:
        try:
            raise ConnectionError(f"GET https://x/?api_key={CANARY} failed: headers={{'X-MBX-APIKEY': '{CANARY}'}}")
        except ConnectionError as error:
            raise RuntimeError(f"password: {CANARY}") from error
    except RuntimeError as error:
        texts = [str(error), repr(error), repr(error.__cause__), traceback.format_exception_only(error)[0]]
        # Source lines of this file quote no secret: only the messages do.
        texts += [line for line in traceback.format_exception(error) if "Error:" in line]
    assert all(CANARY in text for text in texts)
    assert not any(CANARY in redact_text(text) for text in texts)
    assert CANARY not in redact_text(repr({"venue": {"client_secret": CANARY}}))


def test_caches_stay_bounded() -> None:
    redactor = Redactor()
    for index in range(10_000):
        redactor.clean({f"name {index}": f"text: {index}"})
    assert len(redactor._clean_strings) <= 4096
    assert len(redactor._key_plans) <= 4096


def test_threads_do_not_disturb_each_other() -> None:
    shared = {"a": {"b": {"c": {"d": {"e": [{"mid": 0.5, "note": "x y"}] * 20}}}}}
    results: list[Any] = []

    def redact_often() -> None:
        for _ in range(300):
            results.append(redact_secrets(shared))

    threads = [threading.Thread(target=redact_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 1200
    assert all(result is shared for result in results)
