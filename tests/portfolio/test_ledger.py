"""Every transaction sums to zero in every currency, and the books agree with the positions they are of."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.errors import ConfigError
from ami_engine.events import Fill, Side
from ami_engine.portfolio.ledger import Ledger, LedgerError, Posting, Transaction
from ami_engine.portfolio.positions import Positions
from ami_engine.units import Instrument

FILLS = st.lists(
    st.tuples(
        st.sampled_from(["X", "Y"]),
        st.sampled_from(Side),
        st.integers(1, 10**7).map(lambda n: n / 100),
        st.integers(1, 10**6).map(lambda n: n / 1_000),
        st.floats(-5.0, 5.0),
        st.sampled_from(["", "BNB"]),
    ),
    max_size=25,
)


def fills_of(rows: list[tuple[str, Side, float, float, float, str]]) -> list[Fill]:
    return [
        Fill(
            trade_id=str(number), client_order_id="a", market_id=market, side=side, price=price, qty=qty, fee=fee,
            fee_currency=currency,
        )
        for number, (market, side, price, qty, fee, currency) in enumerate(rows)
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["linear", "inverse"])
@given(rows=FILLS)
def test_the_ledger_of_any_fills_balances_and_agrees_with_the_positions(
    kind: str, rows: list[tuple[str, Side, float, float, float, str]]
) -> None:
    currency = "USD" if kind == "linear" else "BTC"
    instrument = Instrument("", multiplier=10.0, kind=kind, currency=currency)  # type: ignore[arg-type]
    positions, ledger = Positions(instrument=instrument), Ledger()
    for fill in fills_of(rows):
        positions.apply(fill)
        assert ledger.post_fill(fill, instrument, realized=positions.last_realized)
        assert not ledger.post_fill(fill, instrument, realized=positions.last_realized)
    assert set(ledger.trial_balance().values()) <= {Decimal(0)}
    assert float(ledger.balance(f"cash:{currency}", currency)) == pytest.approx(positions.cash, abs=1e-9)
    assert float(-ledger.total("pnl", currency)) == pytest.approx(positions.realized, rel=1e-12, abs=1e-12)
    assert float(ledger.total("fees", currency)) == positions.fees
    assert float(ledger.total("fees", "BNB")) == pytest.approx(positions.other_fees.get("BNB", 0.0))
    for market in positions.markets:
        carried = float(ledger.balance(f"position:{market}", currency))
        cost = positions.position(market) * positions.avg_price(market) * 10.0
        assert carried == pytest.approx(cost if kind == "linear" else 0.0, rel=1e-9, abs=1e-6)


AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**12), max_value=10**12)


@given(st.lists(AMOUNTS, min_size=1, max_size=6))
def test_what_does_not_balance_cannot_be_made(amounts: list[Decimal]) -> None:
    postings = tuple(Posting("cash:USD", "USD", amount) for amount in amounts)
    if sum(amounts):
        with pytest.raises(LedgerError, match="is off by"):
            Transaction("t", postings)
    balanced = (*postings, Posting("pnl:X", "USD", -sum(amounts, Decimal(0))))
    assert Ledger().post(Transaction("t", balanced))


@pytest.mark.parametrize(
    "posting",
    [
        Posting("cash", "USD", Decimal(0)),
        Posting("cash:", "USD", Decimal(0)),
        Posting("wallet:USD", "USD", Decimal(0)),
        Posting("cash:US D", "USD", Decimal(0)),
        Posting("cash:USD\n", "USD", Decimal(0)),
        Posting("cash:USD", "", Decimal(0)),
        Posting("cash:USD", "USD", Decimal("NaN")),
        Posting("cash:USD", "USD", Decimal("Infinity")),
    ],
)
def test_what_is_no_posting_is_refused(posting: Posting) -> None:
    with pytest.raises(LedgerError):
        Transaction("t", (posting,))


def test_currencies_do_not_make_up_for_each_other() -> None:
    with pytest.raises(LedgerError, match="off by"):
        Transaction("t", (Posting("cash:USD", "USD", Decimal(1)), Posting("cash:EUR", "EUR", Decimal(-1))))


def test_a_keeper_that_fails_leaves_the_ledger_as_it_was_and_one_that_keeps_brings_it_back() -> None:
    kept: list[tuple[str, str, str, Decimal, str, int]] = []

    class Keeping:
        fails = False

        def __call__(self, tx: str, account: str, currency: str, amount: Decimal, *, kind: str, now_ns: int) -> None:
            if self.fails:
                raise OSError
            kept.append((tx, account, currency, amount, kind, now_ns))

    keeper = Keeping()
    ledger = Ledger(keeper)
    ledger.transfer("t1", "outside:bank", "cash:USD", "USD", Decimal("10.10"), now_ns=3)
    ledger.post_funding("t2", "X", "USD", Decimal("-0.1"))
    keeper.fails = True
    with pytest.raises(OSError):
        ledger.transfer("t3", "cash:USD", "reserve:USD", "USD", Decimal(1))
    assert ledger.balance("cash:USD", "USD") == Decimal("10.00")
    restored = Ledger()
    restored.restore(kept)
    assert restored.balances() == ledger.balances()
    assert not restored.transfer("t1", "outside:bank", "cash:USD", "USD", Decimal("10.10"))
    with pytest.raises(LedgerError, match="empty ledger"):
        restored.restore(kept)
    with pytest.raises(LedgerError, match="off by"):
        Ledger().restore(kept[:1])


def test_a_kind_that_does_not_exist_has_no_total() -> None:
    with pytest.raises(ConfigError, match="`kind`"):
        Ledger().total("wallet", "USD")
