"""All symbols of a run: finds or makes the state of the symbol that an event belongs to."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from ami_engine.features import FeatureConfig
from ami_engine.loop.symbol_state import SymbolState
from ami_engine.units import Instrument

__all__ = ["Market"]


class Market:
    """Symbol states by symbol, made when a symbol is first seen.

    Parameters
    ----------
    instruments : mapping of str to Instrument
        What is known; a symbol that is not in it gets `default_instrument` under its own name.
    config : FeatureConfig or None
        None takes the defaults. The tick size is each symbol's instrument's in any case.
    """

    def __init__(
        self,
        instruments: Mapping[str, Instrument],
        *,
        default_instrument: Instrument,
        config: FeatureConfig | None = None,
        backend: str = "auto",
        unique_seq: Collection[str] = (),
        snapshots_only: bool = False,
    ) -> None:
        self.states: dict[str, SymbolState] = {}
        self._instruments = dict(instruments)
        self._default = default_instrument
        self._config = config or FeatureConfig()
        self._backend = backend
        self._unique_seq = frozenset(unique_seq)
        self._snapshots_only = snapshots_only

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of a row's features, the same for every symbol."""
        return self._config.feature_names

    def state(self, symbol: str) -> SymbolState:
        """Return the symbol's state, making it when the symbol is new."""
        state = self.states.get(symbol)
        return state if state is not None else self._add(symbol)

    def forget(self, symbol: str) -> None:
        """Drop a symbol's state."""
        self.states.pop(symbol, None)

    def instrument(self, symbol: str) -> Instrument:
        """Return the symbol's instrument."""
        known = self._instruments.get(symbol)
        return known if known is not None else msgspec.structs.replace(self._default, symbol=symbol)

    @property
    def is_priced(self) -> bool:
        """Whether nothing but events of markets came: those of another domain may count time from where they like."""
        return all(state.generic is None for state in self.states.values())

    @property
    def described(self) -> Collection[str]:
        """The symbols that have an instrument."""
        return self._instruments.keys()

    def undescribed(self) -> list[str]:
        """Return the symbols that came and have no instrument, where others have one."""
        return [symbol for symbol in self.states if symbol not in self._instruments] if self._instruments else []

    def _add(self, symbol: str) -> SymbolState:
        instrument = self.instrument(symbol)
        config = msgspec.structs.replace(self._config, tick_size=instrument.tick_size)
        state = SymbolState(
            symbol,
            instrument,
            config,
            backend=self._backend,
            unique_seq=self._unique_seq,
            snapshots_only=self._snapshots_only,
        )
        self.states[symbol] = state
        return state
