"""Native, numba and reference features agree over whole feeds, through the chain that the loop uses.

What a backend computes from given rows is proved beside the backends; here reader, book and builder stand together.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ami_engine.errors import EventError
from ami_engine.features import available_backends
from ami_engine.features.schema import FEATURE_INDEX, FEATURE_NAMES, FEATURES
from ami_engine.loop.market import Market
from ami_engine.units import Instrument

from .conftest import Feed, open_feed

_REFERENCE_ROWS = 5_000
_Rows = npt.NDArray[np.float64]

_REL_TOL_NATIVE = np.array([feature.rel_tol_native for feature in FEATURES])
_REL_TOL_REFERENCE = np.array([feature.rel_tol_reference for feature in FEATURES])
_ABS_TOL = np.array([feature.abs_tol for feature in FEATURES])
_ABS_TOL_PRICE = np.array([feature.abs_tol_price_per_tick for feature in FEATURES])


class Chain:
    """A market of one backend, and the rows and refusals it gave."""

    def __init__(self, backend: str, feed: Feed, instruments: dict[str, Instrument], source: object) -> None:
        self.market = Market(
            instruments,
            default_instrument=Instrument("", tick_size=next(iter(instruments.values())).tick_size),
            backend=backend,
            unique_seq=source.unique_seq,  # type: ignore[attr-defined]
            snapshots_only=source.snapshots_only,  # type: ignore[attr-defined]
        )
        self.rows: _Rows = np.empty((feed.steps, len(FEATURE_NAMES)))
        self.count = 0
        self.refused: list[tuple[int, str]] = []

    def take(self, number: int, event: object) -> None:
        state = self.market.state(event.symbol)  # type: ignore[attr-defined]
        try:
            state.observe(event)  # type: ignore[arg-type]
        except EventError as error:
            self.refused.append((number, error.reason))
            return
        self.rows[self.count] = state.row
        self.count += 1


@pytest.fixture(scope="module")
def chains(feed: Feed, data_dir: Path) -> dict[str, Chain]:
    """One reading of the feed, each event shown to a chain of every backend that is here."""
    source = open_feed(data_dir, feed)
    instruments = dict(source.instruments())
    found = {
        name: Chain(name, feed, instruments, source) for name, missing in available_backends().items() if not missing
    }
    fast = [chain for name, chain in found.items() if name != "reference"]
    reference = found["reference"]
    number = 0
    while (event := source.next_event()) is not None:
        for chain in fast:
            chain.take(number, event)
        if reference.count < _REFERENCE_ROWS:
            reference.take(number, event)
        number += 1
    source.close()
    return found


def disagreement(left: _Rows, right: _Rows, rel_tol: _Rows, tick_size: float) -> str:
    """Say where two tables of feature rows first differ by more than the schema allows; "" when nowhere."""
    mid = np.nan_to_num(left[:, FEATURE_INDEX["mid"]])
    allowed = _ABS_TOL + _ABS_TOL_PRICE * mid[:, None] / tick_size
    with np.errstate(invalid="ignore"):
        near = np.abs(left - right) <= np.maximum(rel_tol * np.maximum(np.abs(left), np.abs(right)), allowed)
    same = near | (np.isnan(left) & np.isnan(right))
    if same.all():
        return ""
    row, column = (int(place) for place in np.argwhere(~same)[0])
    values = f"{float(left[row, column])!r} and {float(right[row, column])!r}"
    return f"row {row}, {FEATURE_NAMES[column]}: {values}; {int((~same).sum())} in all"


def need(chains: dict[str, Chain], *names: str) -> tuple[Chain, ...]:
    for name in names:
        if name not in chains:
            pytest.skip(f"needs the {name} backend: {available_backends()[name]}")
    return tuple(chains[name] for name in names)


def tick_of(chain: Chain) -> float:
    (state,) = chain.market.states.values()
    return state.instrument.tick_size


def test_native_and_numba_agree_on_every_row(feed: Feed, chains: dict[str, Chain]) -> None:
    native, numba = need(chains, "native", "numba")
    assert native.count == numba.count == feed.steps
    assert disagreement(native.rows, numba.rows, _REL_TOL_NATIVE, tick_of(native)) == ""


@pytest.mark.parametrize("backend", ["native", "numba"])
def test_the_fast_backends_agree_with_the_reference_on_the_first_rows(
    feed: Feed, chains: dict[str, Chain], backend: str
) -> None:
    fast, reference = need(chains, backend, "reference")
    rows = reference.count
    assert rows == min(_REFERENCE_ROWS, feed.steps)
    assert disagreement(fast.rows[:rows], reference.rows[:rows], _REL_TOL_REFERENCE, tick_of(fast)) == ""


def test_all_backends_refuse_the_same_events(feed: Feed, chains: dict[str, Chain]) -> None:
    whole = [chain for name, chain in chains.items() if name != "reference"]
    for chain in whole:
        assert chain.refused == whole[0].refused
        assert sorted(reason for _, reason in chain.refused) == ["crossed_book"] * feed.refused.get("crossed_book", 0)
    refused = chains["reference"].refused
    assert refused == whole[0].refused[: len(refused)]


def test_no_feature_of_a_two_sided_book_is_lost(feed: Feed, chains: dict[str, Chain]) -> None:
    """Equal stamps, still prices and events without a change give no NaN: nothing divides by time."""
    chain = chains.get("native") or chains["reference"]
    rows = chain.rows[: chain.count]
    begun = rows[np.flatnonzero(~np.isnan(rows[:, FEATURE_INDEX["mid"]]))[0] :]
    assert len(begun) >= chain.count - 1
    assert np.isfinite(begun).all()
    assert (begun[:, FEATURE_INDEX["bid"]] <= begun[:, FEATURE_INDEX["ask"]]).all()
    assert (begun[:, FEATURE_INDEX["staleness_ms"]] >= 0.0).all()
    assert (np.abs(begun[:, FEATURE_INDEX["imbalance"]]) <= 1.0).all()


def test_the_comparison_sees_a_difference() -> None:
    rows = np.ones((3, len(FEATURE_NAMES)))
    other = rows.copy()
    other[1, FEATURE_INDEX["sigma"]] += 1e-6
    assert disagreement(rows, other, _REL_TOL_NATIVE, 0.1).startswith("row 1, sigma: 1.0 and ")
    other[1, FEATURE_INDEX["sigma"]] = np.nan
    assert "row 1, sigma" in disagreement(rows, other, _REL_TOL_NATIVE, 0.1)
