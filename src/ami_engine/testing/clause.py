"""A clause of a contract: one sentence that an adapter must keep, and the code that tries it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, NoReturn, TypeVar

import msgspec

__all__ = ["Clause", "ContractBroken", "NotTried", "Outcome", "require", "try_clauses"]

Subject = TypeVar("Subject")


class ContractBroken(AssertionError):
    """The adapter does not keep the clause; the message says what it did and what it should have done."""


class NotTried(Exception):
    """The clause cannot be tried on this adapter; the message says what is missing."""


def require(holds: object, message: str) -> None:
    """Raise `ContractBroken` unless `holds`. (Not an `assert`: those vanish under ``python -O``.)"""
    if not holds:
        _break(message)


def _break(message: str) -> NoReturn:
    raise ContractBroken(message)


class Clause(msgspec.Struct, Generic[Subject], frozen=True):
    """One clause.

    Parameters
    ----------
    name : str
        Short and stable, with hyphens.
    text : str
        The sentence that the adapter must keep, and why where it is not plain.
    check : callable
        Tries it on a fresh subject. Raises `ContractBroken` when it is not kept, `NotTried` when it cannot be tried.
    """

    name: str
    text: str
    check: Callable[[Subject], None]


class Outcome(msgspec.Struct, frozen=True):
    """What came of one clause: `result` is "kept", "broken" or "not tried"; `why` is empty for a clause kept."""

    name: str
    text: str
    result: str
    why: str = ""


def try_clauses(clauses: Iterable[Clause[Any]], make_subject: Callable[[], Any]) -> list[Outcome]:
    """Try every clause, each on a fresh subject, and return what came of them, in order."""
    return [_try(clause, make_subject) for clause in clauses]


def _try(clause: Clause[Any], make_subject: Callable[[], Any]) -> Outcome:
    subject = make_subject()
    try:
        try:
            clause.check(subject)
        finally:
            subject.close()
    except NotTried as missing:
        return Outcome(clause.name, clause.text, "not tried", str(missing))
    except ContractBroken as broken:
        return Outcome(clause.name, clause.text, "broken", str(broken))
    except Exception as error:  # the adapter is foreign code
        return Outcome(clause.name, clause.text, "broken", f"raised {type(error).__name__}: {error}")
    return Outcome(clause.name, clause.text, "kept")
