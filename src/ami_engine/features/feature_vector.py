"""One row of features: read by name, or by NumPy without a copy."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import ItemsView, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ami_engine.features.schema import ALIASES, BASE_FEATURE_COUNT, FEATURE_COUNT, FEATURE_INDEX, FEATURE_NAMES

__all__ = ["FeatureVector"]

_INDEX = FEATURE_INDEX | {alias: FEATURE_INDEX[name] for alias, name in ALIASES.items()}


class FeatureVector(metaclass=ABCMeta):  # noqa: B024 - abstract only so that the compiled type can register
    """A row of features, read-only and detached from the builder that made it.

    The compiled core returns its own type with the same behaviour; ``isinstance(v, FeatureVector)`` holds for both. A
    name of `ALIASES` reads like the feature it stands for, and is not listed.

    Parameters
    ----------
    values : array_like
        One float a feature, in the order of `FEATURE_NAMES`, with the signals at their end or without; copied.

    Examples
    --------
    >>> v = FeatureVector(range(30))
    >>> v.mid, v["bid"], v.get("nothing", -1.0), v.pressure == v["pressure_ticks"]
    (0.0, 1.0, -1.0, True)
    >>> list(v.as_dict())[:3]
    ['mid', 'bid', 'ask']
    >>> float(np.asarray(v)[2])
    2.0
    """

    __slots__ = ("_names", "_values")

    def __init__(self, values: npt.ArrayLike) -> None:
        array = np.array(values, dtype=np.float64)
        if array.shape not in ((FEATURE_COUNT,), (BASE_FEATURE_COUNT,)):
            raise ValueError(
                f"`values` must hold {FEATURE_COUNT} features, or {BASE_FEATURE_COUNT} without signals, "
                f"had shape {array.shape}"
            )
        array.flags.writeable = False
        self._names = FEATURE_NAMES[: len(array)]
        self._values: npt.NDArray[np.float64] = array

    def __getattr__(self, name: str) -> float:
        if name not in self:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return float(self._values[_INDEX[name]])

    def __getitem__(self, name: str) -> float:
        if name not in self:
            raise KeyError(name)
        return float(self._values[_INDEX[name]])

    def get(self, name: str, default: Any = None) -> Any:
        """Return a feature, or `default`."""
        index = _INDEX.get(name, len(self._names))
        return float(self._values[index]) if index < len(self._names) else default

    def as_dict(self) -> dict[str, float]:
        """Return a new dict of all features in their order."""
        return dict(zip(self._names, self._values.tolist(), strict=True))

    def keys(self) -> tuple[str, ...]:
        """Return the names in their order."""
        return self._names

    def values(self) -> list[float]:
        """Return the values in their order."""
        return list(self._values.tolist())

    def items(self) -> ItemsView[str, float]:
        """Return the pairs of name and value in their order."""
        return self.as_dict().items()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in _INDEX and _INDEX[name] < len(self._names)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy:
            return np.array(self._values, dtype=dtype)
        return np.asarray(self._values, dtype=dtype)

    def __repr__(self) -> str:
        return f"FeatureVector({', '.join(f'{name}={value!r}' for name, value in self.items())})"

    def __reduce__(self) -> tuple[type[FeatureVector], tuple[list[float]]]:
        return type(self), (self.values(),)


# A model may ask for a mapping: this is one in all but the base class, which costs an attribute lookup its speed.
Mapping.register(FeatureVector)
