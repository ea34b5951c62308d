"""A user's own model as a compiled function: the same pointer for the compiled loop and for the Python one."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ami_engine.errors import BackendError, ConfigError
from ami_engine.features.schema import BASE_FEATURE_COUNT, BASE_SCHEMA_HASH, FEATURE_NAMES, SCHEMA_HASH
from decision_schema.types import Action, Proposal

__all__ = ["CompiledModel"]

_ACTIONS = tuple(Action)
_ROW_NAMES = {SCHEMA_HASH: FEATURE_NAMES, BASE_SCHEMA_HASH: FEATURE_NAMES[:BASE_FEATURE_COUNT]}
_SIGNATURE = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.POINTER(ctypes.c_double),
    ctypes.c_int64,
    ctypes.POINTER(ctypes.c_double),
    ctypes.POINTER(ctypes.c_double),
)
_ANY_FUNCTION: Any = _SIGNATURE.__mro__[1]  # what every function of ctypes is
_Outputs = ctypes.c_double * 5


class CompiledModel:
    """A function ``int32 f(const double* row, int64 n, const double* params, double* out)``.

    `row` holds the `n` features in the order of the schema. The function returns the place of an action in
    HOLD, ACT, EXIT, CANCEL, STOP (0 … 4) and may write into `out`: confidence (1 when it writes none), bid quote and
    ask quote (0: that side is withdrawn), size in USD, and whether quotes are post-only (0: no; 1 when not written). A
    NaN in `out` is HOLD (reason ``model_nan``); another number as the action, a confidence outside [0, 1], or a
    negative or infinite quote or size is HOLD, too (reason ``private_hook_error``). It must not fail, and must give the
    same answer for the same row.

    An instance is a model of `DecisionEngine` as well, so that `run_loop` and `run_compiled` ask the same function.

    Parameters
    ----------
    function : numba CFunc, ctypes function or int
        The function, or its address.
    schema_hash : str
        `ami_engine.features.schema.SCHEMA_HASH` as it was when the function's feature indices were written; its
        `BASE_SCHEMA_HASH` for one that reads rows without signals. A run whose rows are others refuses the model.
    params : sequence of float
        What the function gets as `params`.

    Raises
    ------
    BackendError
        When the features' order has changed since: the function would read other columns than it means.
    ConfigError
        When `function` is no function, or a parameter no number.

    Examples
    --------
    >>> import ctypes
    >>> @ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.POINTER(ctypes.c_double), ctypes.c_int64] * 2)
    ... def unfit(row, n, params, out):
    ...     return 0
    >>> CompiledModel(unfit, schema_hash="0" * 16)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ami_engine.errors.BackendError: the model was written for feature schema 0000000000000000, this package has ...
    """

    model_name = "compiled"

    def __init__(self, function: Any, *, schema_hash: str, params: Sequence[float] = ()) -> None:
        if schema_hash not in _ROW_NAMES:
            raise BackendError(
                f"the model was written for feature schema {schema_hash}, this package has {SCHEMA_HASH}, and "
                f"{BASE_SCHEMA_HASH} without signals: check its feature indices"
            )
        self.schema_hash = schema_hash
        self._names = _ROW_NAMES[schema_hash]
        self.address = _address(function)
        self.params = tuple(float(value) for value in params)
        if not all(map(math.isfinite, self.params)):
            raise ConfigError(f"`params` of a model must be finite, were {self.params!r}")
        self._function = function  # keeps the machine code alive
        self._call = _SIGNATURE(self.address)
        self._params = (ctypes.c_double * max(1, len(self.params)))(*self.params)

    @property
    def compiled_address(self) -> int | None:
        """The function's address for who calls it directly; None where a subclass may answer otherwise."""
        return self.address if type(self) is CompiledModel else None

    def __call__(self, features: Any, **_: Any) -> Proposal:
        """Return the function's answer as a proposal."""
        row = np.ascontiguousarray(
            features if not hasattr(features, "keys") else [features[name] for name in self._names], dtype=np.float64
        )
        if row.shape != (len(self._names),):
            raise BackendError(f"the model reads rows of {len(self._names)} features, was given shape {row.shape}")
        out = _Outputs(1.0, 0.0, 0.0, 0.0, 1.0)
        pointer = row.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
        action = self._call(pointer, len(row), self._params, out)
        return _proposal(action, *out)


def _address(function: Any) -> int:
    address: int | None = None
    if isinstance(function, int) and not isinstance(function, bool):
        address = function
    elif isinstance(function, _ANY_FUNCTION):
        address = ctypes.cast(function, ctypes.c_void_p).value
    elif hasattr(function, "address"):
        address = int(function.address)
    if not address or address < 0:
        raise ConfigError(
            f"`function` must be a numba cfunc, a ctypes function or an address, was {type(function).__name__}"
        )
    return address


def _proposal(action: int, confidence: float, bid: float, ask: float, size_usd: float, post_only: float) -> Proposal:
    if any(map(math.isnan, (confidence, bid, ask, size_usd, post_only))):
        return Proposal(Action.HOLD, 0.0, ["model_nan"])
    is_amount = bid >= 0.0 and ask >= 0.0 and size_usd >= 0.0 and math.isfinite(bid + ask + size_usd)
    if not 0 <= action < len(_ACTIONS) or not 0.0 <= confidence <= 1.0 or not is_amount:
        return Proposal(Action.HOLD, 0.0, ["private_hook_error"])
    params: dict[str, Any] | None = None
    if _ACTIONS[action] is Action.ACT:
        quotes = {"bid_quote": bid, "ask_quote": ask}
        params = {name: price for name, price in quotes.items() if price}
        params |= {"size_usd": size_usd, "post_only": post_only != 0.0}
    return Proposal(_ACTIONS[action], confidence, ["model"], params)
