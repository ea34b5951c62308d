"""Keys of a packet's `external`."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from decision_schema.trace_registry import (
    CONTEXT_KEY_RE,
    EXTERNAL_KEY_REGISTRY,
    RESERVED_NAMESPACES,
    TRACE_KEY_RE,
    is_valid_context_key,
    is_valid_external_key,
    is_valid_trace_key,
    registry_keys,
    validate_external_dict,
)

_TRACE_KEYS = ["harness.fail_closed", "ops.prev_sha256", "a.b.c", "0.1"]
_CONTEXT_KEYS = ["now_ms", "run_id", "x", "adverse_15_ticks"]
_BAD_KEYS = ["FailClosed", "harness.", ".x", "a..b", "now-ms", "harness.fail-closed", "", "now_ms\n", "ops.seq\n", "é"]


@pytest.mark.parametrize("key", _TRACE_KEYS)
def test_trace_keys_are_dotted(key: str) -> None:
    assert is_valid_trace_key(key)
    assert not is_valid_context_key(key)
    assert TRACE_KEY_RE.match(key)


@pytest.mark.parametrize("key", _CONTEXT_KEYS)
def test_context_keys_are_plain(key: str) -> None:
    assert is_valid_context_key(key)
    assert not is_valid_trace_key(key)
    assert CONTEXT_KEY_RE.match(key)


@pytest.mark.parametrize("key", _BAD_KEYS)
def test_other_keys_are_neither(key: str) -> None:
    assert not is_valid_external_key(key)
    assert validate_external_dict({key: 1}) == [f"INV-T1:invalid_key_format:{key}"]


def test_modes_choose_the_form() -> None:
    assert is_valid_external_key("now_ms", "context")
    assert not is_valid_external_key("now_ms", "trace")
    assert validate_external_dict({"now_ms": 1}, mode="trace") == ["INV-T1:invalid_trace_key_format:now_ms"]
    assert validate_external_dict({"ops.seq": 1}, mode="context") == ["INV-T1:invalid_context_key_format:ops.seq"]
    with pytest.raises(ValueError, match="`mode` must be"):
        is_valid_external_key("now_ms", "any")  # type: ignore[arg-type]


def test_only_the_prefixes_asked_for_must_be_registered() -> None:
    external = {"harness.new": 1, "ops.new": 1, "ops.seq": 1, "now_ms": 1}
    assert validate_external_dict(external) == []
    assert validate_external_dict(external, require_registry_for_prefixes=["ops"]) == [
        "INV-T1:unregistered_key:ops.new"
    ]


@pytest.mark.parametrize("external", [[], "now_ms", 1])
def test_external_must_be_a_mapping(external: object) -> None:
    assert validate_external_dict(external) == ["INV-T1:external_not_mapping"]


def test_none_other_mappings_and_odd_keys() -> None:
    assert validate_external_dict(None) == []
    assert validate_external_dict(MappingProxyType({"now_ms": 1})) == []
    assert validate_external_dict({1: 1}) == ["INV-T1:key_not_str"]


def test_every_registered_key_is_well_formed_owned_and_described() -> None:
    assert {"harness.fail_closed", "exec.attempt_count", "ops.seq", "ops.crc32"} <= set(EXTERNAL_KEY_REGISTRY)
    for key, entry in EXTERNAL_KEY_REGISTRY.items():
        assert TRACE_KEY_RE.match(key)
        assert key.split(".")[0] in RESERVED_NAMESPACES
        assert sorted(entry) == ["description", "introduced_in", "owner"]
        assert all(entry.values())


def test_registry_keys_is_the_callers_own_set() -> None:
    keys = registry_keys()
    assert isinstance(keys, set)
    keys.clear()
    assert registry_keys() == set(EXTERNAL_KEY_REGISTRY)


@pytest.mark.parametrize("prefixes", ["ops", "ops.", ["ops."], {"ops"}])
def test_a_namespace_may_be_named_alone_and_with_its_dot(prefixes: object) -> None:
    external = {"ops.new": 1, "dmc.new": 1}
    assert validate_external_dict(external, require_registry_for_prefixes=prefixes) == [
        "INV-T1:unregistered_key:ops.new"
    ]


def test_an_unknown_mode_is_refused_whatever_is_given() -> None:
    with pytest.raises(ValueError, match="`mode` must be"):
        validate_external_dict({}, mode="all")
