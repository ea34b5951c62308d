"""Client order ids that are a function of what the order is for, so that sending again cannot place it twice."""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import msgspec

from ami_engine.errors import ConfigError
from ami_engine.events import Side

__all__ = ["OrderIdFormat", "client_order_id"]

# Venues differ in what they take (Binance 36 of [.A-Z:/a-z0-9_-], OKX 32 letters and digits): 32 letters and digits
# pass at both. The 29 that are hashed carry 145 bits.
_PREFIX = "ami"
_LENGTH = 32
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
# Base 32 two digits at a time: 10 bits a pair, of the first bytes of a digest.
_PAIRS = tuple(first + second for first in _BASE32 for second in _BASE32)
_HASHED_BYTES = 20
_SHIFTS = tuple(range(8 * _HASHED_BYTES - 10, -1, -10))


def client_order_id(run_id: str, market_id: str, step: int, side: Side, attempt: int = 0) -> str:
    """Return the client order id of the `attempt`-th order of a side of a market in one step of a run.

    Parameters
    ----------
    run_id : str
        The run; two runs that may meet at one venue must differ in it.
    market_id : str
        The market.
    step : int
        The step that decided on the order.
    side : Side
        BUY or SELL.
    attempt : int
        0 for the first order of this step and side, then 1, 2, …

    Returns
    -------
    str
        32 lower-case letters and digits, the same whenever and wherever it is asked for.

    Examples
    --------
    >>> client_order_id("run-1", "BTCUSDT", 17, Side.BUY)
    'amicwgp75rsczkr3xtn6bpjcrw65tqnq'
    >>> client_order_id("run-1", "BTCUSDT", 17, Side.BUY, 1) == client_order_id("run-1", "BTCUSDT", 17, Side.BUY)
    False
    """
    return _client_order_id(run_id, market_id, step, side, attempt)


@lru_cache(maxsize=1024, typed=True)  # an order is named when it is sent, when it ends, and in every record of the two
def _client_order_id(run_id: str, market_id: str, step: int, side: Side, attempt: int) -> str:
    number = int.from_bytes(_digest(run_id, market_id, step, side, str(attempt))[:_HASHED_BYTES], "big")
    # The library's base32 takes three times as long.
    return (_PREFIX + "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS]))[:_LENGTH]


def _digest(run_id: str, market_id: str, step: int, side: Side, key: str) -> bytes:
    # Each part is preceded by its length: ("a", "b1") and ("ab", "1") must not collide.
    number, name = str(step), side._value_  # `value` is a property in Python, and slow
    text = f"{len(run_id)}:{run_id}{len(market_id)}:{market_id}{len(number)}:{number}{len(name)}:{name}{len(key)}:{key}"
    return hashlib.sha256(text.encode()).digest()


# Fewer bits than this, and two of a few million orders might share an id.
_LEAST_BITS = 64
_MOST_LENGTH = 64


class OrderIdFormat(msgspec.Struct, frozen=True):
    """What client order ids look like at a venue.

    Parameters
    ----------
    prefix : str
        How ids begin: tells our orders from others' on the same account.
    length : int
        Of the whole id, at most 64.
    alphabet : str
        The characters of what follows the prefix, each once.

    Raises
    ------
    ConfigError
        When the alphabet repeats a character or has one that is not printable ASCII, or when the hashed part would
        carry fewer than 64 bits.

    Examples
    --------
    >>> OrderIdFormat().id_of("run-1", "BTCUSDT", 17, Side.BUY, "0")
    'amicwgp75rsczkr3xtn6bpjcrw65tqnq'
    >>> OrderIdFormat(prefix="7", length=18, alphabet="0123456789").id_of("run-1", "BTCUSDT", 17, Side.BUY, "0")
    Traceback (most recent call last):
    ami_engine.errors.ConfigError: an order id must carry 64 bits at least, 17 characters of 10 carry 56
    """

    prefix: str = _PREFIX
    length: int = _LENGTH
    alphabet: str = _BASE32

    def __post_init__(self) -> None:
        characters = set(self.alphabet)
        if len(characters) != len(self.alphabet):
            raise ConfigError(f"`alphabet` of order ids must not repeat a character, was {self.alphabet!r}")
        for name, text in (("alphabet", self.alphabet), ("prefix", self.prefix)):
            if not (text.isascii() and text.isprintable()) or " " in text:
                raise ConfigError(f"`{name}` of order ids must be printable ASCII without spaces, was {text!r}")
        if not 0 < self.length <= _MOST_LENGTH:
            raise ConfigError(f"`length` of order ids must be 1 to {_MOST_LENGTH}, was {self.length}")
        hashed = max(0, self.length - len(self.prefix))
        bits = hashed * math.log2(len(characters)) if characters else 0.0
        if bits < _LEAST_BITS:
            raise ConfigError(
                f"an order id must carry {_LEAST_BITS} bits at least,"
                f" {hashed} characters of {len(characters)} carry {math.floor(bits)}"
            )

    def id_of(self, run_id: str, market_id: str, step: int, side: Side, key: str) -> str:
        """Return the id of the order that `key` names in a step and side of a market of a run."""
        # The digest is taken as a fraction, and its digits in base n are the id's: every character is as likely.
        left = int.from_bytes(_digest(run_id, market_id, step, side, key), "big")
        characters, base = [], len(self.alphabet)
        for _ in range(self.length - len(self.prefix)):
            digit, left = divmod(left * base, 1 << 256)
            characters.append(self.alphabet[digit])
        return self.prefix + "".join(characters)

    def is_ours(self, client_order_id: str) -> bool:
        """Return True when an id has this format."""
        begins = client_order_id.startswith(self.prefix) and len(client_order_id) == self.length
        return begins and set(client_order_id[len(self.prefix) :]) <= set(self.alphabet)
