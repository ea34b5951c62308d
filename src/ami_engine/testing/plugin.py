"""The kit's options for pytest, and its report. Loaded by every pytest run where the package is installed: it is light.

pytest finds it through the package's ``pytest11`` entry point, so that the options exist before the tests are found.
"""

from __future__ import annotations

from typing import Any

import pytest

__all__: list[str] = []

_PROPERTY = "ami_clause"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ami", "MDM Engine conformance kit (pytest --pyargs ami_engine.testing)")
    group.addoption(
        "--ami-broker",
        metavar="MODULE:FACTORY",
        help="broker to test: called as FACTORY(clock=…, instrument=…, seed=…), each with a default",
    )
    group.addoption("--ami-source", metavar="MODULE:FACTORY", help="source to test: a function that makes it")
    group.addoption("--ami-seed", type=int, default=0, metavar="N", help="seed handed to the factory (0)")


def pytest_configure(config: pytest.Config) -> None:
    for option in ("--ami-broker", "--ami-source"):
        if place := config.getoption(option):
            _load(place, option)


def _load(place: str, option: str) -> None:
    """Load what is to be tested before anything is tried: one line says what is wrong, not a traceback a clause."""
    from ami_engine.errors import ConfigError  # light as it is, nothing of it is needed where no option is given
    from ami_engine.private_hook import load_object

    try:
        load_object(place, option)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None


def report_outcome(node: pytest.Item, contract: str, outcome: Any) -> None:
    """Keep an outcome for the report at the end: with the test's own, which comes from another process under `-n`."""
    told = {name: getattr(outcome, name) for name in ("name", "text", "result", "why")}
    node.user_properties.append((_PROPERTY, {"contract": contract, **told}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print which clauses are kept, and what to do about the others."""
    reports = [report for each in terminalreporter.stats.values() for report in each]
    outcomes = [
        told
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, told in report.user_properties
        if name == _PROPERTY
    ]
    for contract in sorted({told["contract"] for told in outcomes}):
        mine = [told for told in outcomes if told["contract"] == contract]
        count = {result: sum(told["result"] == result for told in mine) for result in ("kept", "broken", "not tried")}
        terminalreporter.section(f"{contract} contract")
        terminalreporter.line(f"{count['kept']} kept, {count['broken']} broken, {count['not tried']} not tried")
        for result, colour in (("broken", {"red": True}), ("not tried", {"yellow": True})):
            for told in mine:
                if told["result"] == result:
                    terminalreporter.line(f"{result.upper()}  {told['name']}: {told['text']}", **colour)
                    terminalreporter.line(f"    {told['why']}")
