"""What Binance answers to everybody: how a path that may be passed on for a client is told of.

Nothing that is not in a table (`candlesync.binance.public_paths`) is ever asked: a path that a client sends only finds
its place there, and what goes upstream is the table's own text. Of the parameters, the names are the table's and the
values have been looked at: odd ones (SQL, say) are what Binance's firewall answers, and it would then refuse this whole
IP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TypeAlias

import msgspec

from candlesync.binance.venue import Venue

_SYMBOL = r"[\w\-._&&[^a-z]]{1,50}"
"""Java's syntax, as Binance's error bodies have it; since 2025-12 there are symbols that are not ASCII."""
_ONE = r"(?:(?![a-z])[\w.\-]){1,50}"
"""The same in Python's."""


class Kind(Enum):
    """What the value of a parameter may be: Binance's own words for it, and the pattern."""

    SYMBOL = (f"^{_SYMBOL}$", _ONE)
    SYMBOLS = (rf'^\[("{_SYMBOL}"(,"{_SYMBOL}"){{0,}}){{0,1}}\]$', rf'\[("{_ONE}"(,"{_ONE}")*)?\]')
    NUMBER = ("^[0-9]{1,20}$", "[0-9]{1,20}")
    WORD = ("^[a-zA-Z_0-9]{1,36}$", "[a-zA-Z_0-9]{1,36}")
    """Intervals, windows, and what is one of a few words."""
    WORDS = (
        '^[a-zA-Z_0-9]{1,36}$|^\\["[a-zA-Z_0-9]{1,36}"(,"[a-zA-Z_0-9]{1,36}"){0,}\\]$',
        r'[a-zA-Z_0-9]{1,36}|\["[a-zA-Z_0-9]{1,36}"(,"[a-zA-Z_0-9]{1,36}")*\]',
    )
    TIME_ZONE = ("^[+-]?[0-9]{1,2}(:[0-9]{2})?$", "[+-]?[0-9]{1,2}(:[0-9]{2})?")

    def __init__(self, legal: str, pattern: str) -> None:
        self.legal = legal
        self._pattern = re.compile(pattern)

    def allows(self, text: str) -> bool:
        """Whether the value has only legal characters."""
        is_ascii = text.isascii() or self in {Kind.SYMBOL, Kind.SYMBOLS}
        return is_ascii and self._pattern.fullmatch(text) is not None


Values: TypeAlias = Mapping[str, str]
"""The parameters of a question."""


class Answered(Enum):
    """From where a question is answered."""

    HERE = "here"
    CANDLES = "candles"
    """From the verified store, and what is older from Binance's history."""
    LISTING = "listing"
    """From Binance's last list of symbols."""
    PASSED_ON = "passed on"


class Weight(msgspec.Struct, frozen=True):
    """What Binance counts for a question."""

    words: str
    of: Callable[[Values], int]


class PublicPath(msgspec.Struct, frozen=True, kw_only=True):
    """A path that everybody may ask, with `GET`."""

    path: str
    summary: str
    parameters: Mapping[str, Kind]
    mandatory: tuple[str, ...] = ()
    weight: Weight
    answered: Answered = Answered.PASSED_ON
    fresh: float | None = 0.0
    """For how many seconds an answer is given again. 0: only to those who ask while it is on its way. `None`: not even
    to them."""
    longest: int = 8 * 1024 * 1024
    """Bytes of an answer at most: all tickers of 24 hours have some 2 MB."""

    def weigh(self, values: Values) -> int:
        """What Binance counts for a question with these values, which have been checked."""
        return self.weight.of(values)


class PublicApi(msgspec.Struct, frozen=True, kw_only=True):
    """What one venue answers to everybody."""

    venue: Venue
    paths: tuple[PublicPath, ...]
    private: frozenset[str]
    """Words after the version, as in ``/api/v3/order``, of the paths that need a key."""
    has_microseconds: bool = False
    """Whether times are given, and taken, in microseconds too (spot, since 2025-01)."""
    is_limit_capped: bool = True
    """Whether a limit above the venue's page means a page; otherwise it is refused (-1130)."""

    def at(self, endpoint: str) -> PublicPath:
        """The path of an endpoint such as ``klines``; raises `KeyError` where the venue has none."""
        wanted = self.venue.path(endpoint)
        for path in self.paths:
            if path.path == wanted:
                return path
        raise KeyError(endpoint)

    def is_private(self, path: str) -> bool:
        """Whether a path that is not in the table, without its first slash, is one that needs a key."""
        words = path.split("/")
        root = self.venue.prefix.split("/")[1]
        return words[0] in {"sapi", "wapi"} or (words[0] == root and not self.private.isdisjoint(words[2:3]))
