"""Names of the keys in a packet's `external`, and who owns them.

Context keys are plain snake_case (`now_ms`). Trace keys are dotted and namespaced (`harness.fail_closed`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

__all__ = [
    "CONTEXT_KEY_RE",
    "EXTERNAL_KEY_REGISTRY",
    "RESERVED_NAMESPACES",
    "TRACE_KEY_RE",
    "is_valid_context_key",
    "is_valid_external_key",
    "is_valid_trace_key",
    "registry_keys",
    "validate_external_dict",
]

# `\Z`, not `$`: a key that ends in a line break is not a key.
CONTEXT_KEY_RE = re.compile(r"[a-z0-9_]+\Z")
TRACE_KEY_RE = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)+\Z")

RESERVED_NAMESPACES = frozenset({"harness", "integration", "ops", "dmc", "mdm", "eval", "adapter", "exec"})


def _entries(owner: str, introduced_in: str, descriptions: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {
        key: {"owner": owner, "introduced_in": introduced_in, "description": text} for key, text in descriptions.items()
    }


EXTERNAL_KEY_REGISTRY: dict[str, dict[str, str]] = {
    **_entries(
        "integration-harness",
        "0.2.0",
        {"harness.fail_closed": "True when the harness caught an exception and took the safe decision."},
    ),
    **_entries(
        "execution",
        "0.2.2",
        {
            "exec.total_latency_ms": "Time that executing the decision took, ms.",
            "exec.success_count": "Execution attempts that succeeded.",
            "exec.failed_count": "Execution attempts that failed.",
            "exec.skipped_count": "Actions that were not executed.",
            "exec.denied_count": "Actions that a policy or the kill switch denied.",
            "exec.fail_closed": "True when execution caught an exception and took the safe path.",
            "exec.attempt_count": "Execution attempts over all actions.",
        },
    ),
    **_entries(
        "mdm-engine",
        "0.2.2",
        {
            "ops.seq": "Number of the packet in its trace, from 0, without gaps.",
            "ops.prev_sha256": "SHA-256 of the previous packet's hashed part, hex; 64 zeros for the first packet.",
            "ops.crc32": "CRC-32 of this line's hashed part: all that stands before this key.",
            "ops.dropped": "Packets that were left out just before this one, because the disk was too slow.",
            "ops.trading_state": "REDUCING or HALTED while the operator, or a latch, lets less than everything leave.",
            "ops.latency_ns": "Time that each stage of the step took, ns; outside the hashed part.",
        },
    ),
}


def is_valid_trace_key(key: str) -> bool:
    """Return whether `key` is dotted and namespaced.

    >>> is_valid_trace_key("ops.seq"), is_valid_trace_key("now_ms")
    (True, False)
    """
    return TRACE_KEY_RE.match(key) is not None


def is_valid_context_key(key: str) -> bool:
    """Return whether `key` is plain snake_case.

    >>> is_valid_context_key("now_ms"), is_valid_context_key("nowMs")
    (True, False)
    """
    return CONTEXT_KEY_RE.match(key) is not None


def is_valid_external_key(key: str, mode: Literal["both", "context", "trace"] = "both") -> bool:
    """Return whether `key` is written as a context key, a trace key, or either.

    >>> is_valid_external_key("ops.seq", mode="context")
    False
    """
    if mode == "context":
        return is_valid_context_key(key)
    if mode == "trace":
        return is_valid_trace_key(key)
    if mode == "both":
        return is_valid_context_key(key) or is_valid_trace_key(key)
    raise ValueError(f"`mode` must be 'both', 'context' or 'trace', was {mode!r}")


def registry_keys() -> set[str]:
    """Return the registered trace keys, as a set of the caller's own.

    >>> "ops.seq" in registry_keys()
    True
    """
    return set(EXTERNAL_KEY_REGISTRY)


def validate_external_dict(
    external: Any,
    *,
    require_registry_for_prefixes: Iterable[str] | None = None,
    mode: Literal["both", "context", "trace"] = "both",
) -> list[str]:
    """Return what is wrong with the keys of a packet's `external`, as codes; [] when nothing is.

    Parameters
    ----------
    external : mapping or None
        None is valid.
    require_registry_for_prefixes : iterable of str or None
        Namespaces whose keys must be registered, such as ``{"harness"}`` or ``"harness."``.
    mode : {"both", "context", "trace"}
        Which form of key is allowed.

    Examples
    --------
    >>> validate_external_dict({"now_ms": 1, "FailClosed": True})
    ['INV-T1:invalid_key_format:FailClosed']
    >>> validate_external_dict({"ops.sequence": 1}, require_registry_for_prefixes=["ops"])
    ['INV-T1:unregistered_key:ops.sequence']
    """
    if mode not in ("both", "context", "trace"):
        raise ValueError(f"`mode` must be 'both', 'context' or 'trace', was {mode!r}")
    if external is None:
        return []
    if not isinstance(external, Mapping):
        return ["INV-T1:external_not_mapping"]
    given = require_registry_for_prefixes or ()
    strict = {prefix.rstrip(".") for prefix in ([given] if isinstance(given, str) else given)}
    form = "key" if mode == "both" else f"{mode}_key"
    codes = []
    for key in external:
        if not isinstance(key, str):
            codes.append("INV-T1:key_not_str")
        elif not is_valid_external_key(key, mode):
            codes.append(f"INV-T1:invalid_{form}_format:{key}")
        elif "." in key and key.partition(".")[0] in strict and key not in EXTERNAL_KEY_REGISTRY:
            codes.append(f"INV-T1:unregistered_key:{key}")
    return codes
