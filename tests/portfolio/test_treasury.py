"""A day's result pays its costs, then protects the principal, then fills the reserve, and only then leaves."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.errors import ConfigError
from ami_engine.portfolio.ledger import Ledger
from ami_engine.portfolio.treasury import DayFigures, Treasury, TreasuryDay, TreasuryPolicy

D = Decimal
POLICY = TreasuryPolicy(
    principal=D(1_000), operating_cost_per_day=D(10), reserve_frac=D("0.25"), reserve_target=D(100),
    transfer_frac=D("0.5"), transfer_min=D(20), transfer_max=D(200), transfer_every_days=7,
)  # fmt: skip


def day(number: int) -> str:
    return (date(2024, 5, 1) + timedelta(days=number)).isoformat()


def run(
    results: list[Decimal], policy: TreasuryPolicy = POLICY, start: Decimal = POLICY.principal
) -> list[TreasuryDay]:
    treasury, cash, days = Treasury(policy), start, []
    for number, result in enumerate(results):
        days.append(treasury.close_day(DayFigures(day(number), result, cash + result)))
        cash = days[-1].cash
    return days


RESULTS = st.lists(st.decimals(min_value=-500, max_value=500, places=3), min_size=1, max_size=45)


@given(RESULTS, st.decimals(min_value=0, max_value=3_000, places=2))
def test_nothing_is_paid_out_of_the_principal_and_no_money_is_lost(results: list[Decimal], start: Decimal) -> None:
    days = run(results, start=start)
    cash = start
    for number, each in enumerate(days):
        before = days[number - 1].reserve if number else D(0)
        assert each.cash + each.reserve == cash + before + each.result - each.operating_cost - each.transfer
        if each.to_reserve or each.transfer:
            assert each.cash >= POLICY.principal
        assert 0 <= each.reserve <= max(before, POLICY.reserve_target)
        assert each.transfer == 0 or POLICY.transfer_min <= each.transfer <= POLICY.transfer_max
        assert each.is_principal_short is (each.cash < POLICY.principal)
        window = days[max(0, number - 29) : number + 1]
        assert each.rolling_surplus == sum(d.surplus for d in window)
        cash = each.cash
    transfers = [number for number, each in enumerate(days) if each.transfer]
    assert all(later - earlier >= 7 for earlier, later in pairwise(transfers))


@given(RESULTS)
def test_the_same_days_give_the_same_decisions_also_after_a_restart(results: list[Decimal]) -> None:
    days = run(results)
    assert days == run(results)
    half = len(days) // 2
    restarted = Treasury(POLICY, days[:half])
    cash = days[half - 1].cash if half else D(1_000)
    for number in range(half, len(days)):
        again = restarted.close_day(DayFigures(day(number), results[number], cash + results[number]))
        assert again == days[number]
        cash = again.cash


@given(RESULTS)
def test_the_transactions_carry_the_decisions_out_and_balance(results: list[Decimal]) -> None:
    treasury, ledger = Treasury(POLICY), Ledger()
    ledger.transfer("start", "outside:bank", "cash:USD", "USD", D(1_000))
    for number, result in enumerate(results):
        ledger.transfer(f"trade{number}", "pnl:X", "cash:USD", "USD", result)
        record = treasury.close_day(DayFigures(day(number), result, ledger.balance("cash:USD", "USD")))
        for _ in range(2):
            for transaction in treasury.transactions(record):
                ledger.post(transaction)
        assert ledger.balance("cash:USD", "USD") == record.cash
        assert ledger.balance("reserve:USD", "USD") == record.reserve
    assert ledger.trial_balance() == {"USD": D(0)}


def test_the_reserve_refills_the_principal() -> None:
    days = run([D(210), D(-300)])
    assert (days[0].to_reserve, days[0].transfer) == (D("50.00"), D("75.00"))
    assert days[1].from_reserve == D("50.00")
    assert days[1].is_principal_short
    assert days[1].reasons == ("principal_refilled", "transfer_not_due", "principal_short")


def test_a_surplus_is_transferred_once() -> None:
    policy = TreasuryPolicy(transfer_frac=D(1), transfer_every_days=1, transfer_min=D("0.01"))
    days = run([D(100), D(0), D(0)], policy)
    assert [str(each.transfer) for each in days] == ["100.00", "0", "0"]
    assert days[1].reasons == ("no_surplus",)


def test_a_gap_of_days_leaves_the_window() -> None:
    treasury = Treasury(TreasuryPolicy(transfer_frac=D(1), transfer_min=D(500)))
    treasury.close_day(DayFigures("2024-01-01", D(100), D(100)))
    assert treasury.close_day(DayFigures("2024-01-30", D(1), D(101))).rolling_surplus == 101
    assert treasury.close_day(DayFigures("2024-01-31", D(1), D(102))).rolling_surplus == 2


def test_a_day_is_closed_once() -> None:
    treasury = Treasury(POLICY)
    first = treasury.close_day(DayFigures(day(1), D(5), D(1_005)))
    assert treasury.close_day(DayFigures(day(1), D(5), first.cash)) is first
    with pytest.raises(ConfigError, match="is closed"):
        treasury.close_day(DayFigures(day(1), D(6), D(1_000)))
    with pytest.raises(ConfigError, match="before the last one"):
        treasury.close_day(DayFigures(day(0), D(5), D(1_000)))


@pytest.mark.parametrize("figures", [("2024-5-1", 1, 1), ("x", 1, 1), (day(1), "NaN", 1), (day(1), 1, "Infinity")])
def test_figures_that_are_none_are_refused(figures: tuple[str, object, object]) -> None:
    with pytest.raises(ConfigError):
        Treasury(POLICY).close_day(DayFigures(figures[0], D(figures[1]), D(figures[2])))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("principal", D(-1)),
        ("operating_cost_per_day", D("NaN")),
        ("reserve_frac", D("1.1")),
        ("transfer_frac", D(-1)),
        ("transfer_min", D(0)),
        ("transfer_max", D("0.5")),
        ("quantum", D(0)),
        ("surplus_days", 0),
        ("surplus_days", 30.0),
        ("transfer_every_days", 400),
        ("currency", ""),
        ("target", "my bank"),
        ("principal", 5.0),
    ],
)
def test_a_policy_names_what_is_wrong_with_it(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"`{name}` of a treasury policy"):
        TreasuryPolicy(**{name: value})  # type: ignore[arg-type]
