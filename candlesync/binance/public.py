"""What Binance answers to everybody: the paths that may be passed on for a client, and what each of them costs.

Nothing that is not in this table is ever asked: a path that a client sends only finds its place here, and what goes
upstream is the table's own text. Of the parameters, the names are the table's and the values have been looked at: odd
ones (SQL, say) are what Binance's firewall answers, and it would then refuse this whole IP.

Source: rest-api.md of github.com/binance/binance-spot-api-docs, "General endpoints" and "Market Data endpoints", as of
2026-07. None of these needs a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TypeAlias

import msgspec

from candlesync.binance.venue import SPOT

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


class PublicPath(msgspec.Struct, frozen=True, kw_only=True):
    """A path that everybody may ask, with `GET`."""

    path: str
    parameters: Mapping[str, Kind]
    mandatory: tuple[str, ...] = ()
    weigh: Callable[[Values], int]
    """The weight that Binance counts for a question."""
    fresh: float | None = 0.0
    """For how many seconds an answer is given again. 0: only to those who ask while it is on its way. `None`: not even
    to them."""
    longest: int = 8 * 1024 * 1024
    """Bytes of an answer at most: all tickers of 24 hours have some 2 MB."""


def _always(weight: int) -> Callable[[Values], int]:
    return lambda _: weight


def _by_limit(values: Values) -> int:
    limit = int(values.get("limit", "100"))
    return next((weight for most, weight in ((100, 5), (500, 25), (1000, 50)) if limit <= most), 250)


def _count(values: Values) -> int:
    """How many symbols are named; 0: none, so all are meant."""
    return values["symbols"].count(",") + 1 if "symbols" in values else int("symbol" in values)


def _one_or_all(values: Values) -> int:
    return 2 if "symbol" in values else 4


def _each(weight: int, most: int) -> Callable[[Values], int]:
    return lambda values: min(most, weight * _count(values)) or most


def _of_24_hours(values: Values) -> int:
    count = _count(values)
    return 80 if not count or count > 100 else 40 if count > 20 else 2


_SYMBOL_ONLY = {"symbol": Kind.SYMBOL}
_TRADES = {"symbol": Kind.SYMBOL, "limit": Kind.NUMBER}
_SOME = {"symbol": Kind.SYMBOL, "symbols": Kind.SYMBOLS, "symbolStatus": Kind.WORD}
_KLINES = {
    "symbol": Kind.SYMBOL,
    "interval": Kind.WORD,
    "startTime": Kind.NUMBER,
    "endTime": Kind.NUMBER,
    "timeZone": Kind.TIME_ZONE,
    "limit": Kind.NUMBER,
}

KLINES = PublicPath(
    path="/api/v3/klines", parameters=_KLINES, mandatory=("symbol", "interval"), weigh=_always(SPOT.klines_weight(1000))
)
UI_KLINES = PublicPath(
    path="/api/v3/uiKlines",
    parameters=_KLINES,
    mandatory=("symbol", "interval"),
    weigh=_always(SPOT.klines_weight(1000)),
)
EXCHANGE_INFO = PublicPath(
    path="/api/v3/exchangeInfo",
    parameters={
        "symbol": Kind.SYMBOL,
        "symbols": Kind.SYMBOLS,
        "permissions": Kind.WORDS,
        "showPermissionSets": Kind.WORD,
        "symbolStatus": Kind.WORD,
    },
    weigh=_always(SPOT.exchange_info_weight),
    fresh=60.0,
    longest=64 * 1024 * 1024,
)
PING = PublicPath(path="/api/v3/ping", parameters={}, weigh=_always(1))
TIME = PublicPath(path="/api/v3/time", parameters={}, weigh=_always(1), fresh=None)

PUBLIC_PATHS = (
    KLINES,
    UI_KLINES,
    EXCHANGE_INFO,
    PING,
    TIME,
    PublicPath(
        path="/api/v3/depth",
        parameters={**_TRADES, "symbolStatus": Kind.WORD},
        mandatory=("symbol",),
        weigh=_by_limit,
    ),
    PublicPath(path="/api/v3/trades", parameters=_TRADES, mandatory=("symbol",), weigh=_always(25)),
    PublicPath(
        path="/api/v3/historicalTrades",
        parameters={**_TRADES, "fromId": Kind.NUMBER},
        mandatory=("symbol",),
        weigh=_always(25),
    ),
    PublicPath(
        path="/api/v3/historicalBlockTrades",
        parameters={"symbol": Kind.SYMBOL, "fromId": Kind.NUMBER, "limit": Kind.NUMBER},
        mandatory=("symbol", "fromId"),
        weigh=_always(25),
    ),
    PublicPath(
        path="/api/v3/aggTrades",
        parameters={
            "symbol": Kind.SYMBOL,
            "fromId": Kind.NUMBER,
            "startTime": Kind.NUMBER,
            "endTime": Kind.NUMBER,
            "limit": Kind.NUMBER,
        },
        mandatory=("symbol",),
        weigh=_always(4),
    ),
    PublicPath(path="/api/v3/avgPrice", parameters=_SYMBOL_ONLY, mandatory=("symbol",), weigh=_always(2)),
    PublicPath(path="/api/v3/ticker/24hr", parameters={**_SOME, "type": Kind.WORD}, weigh=_of_24_hours, fresh=1.0),
    PublicPath(
        path="/api/v3/ticker/tradingDay",
        parameters={**_SOME, "timeZone": Kind.TIME_ZONE, "type": Kind.WORD},
        weigh=_each(4, 200),
        fresh=1.0,
    ),
    PublicPath(path="/api/v3/ticker/price", parameters=_SOME, weigh=_one_or_all),
    PublicPath(path="/api/v3/ticker/bookTicker", parameters=_SOME, weigh=_one_or_all),
    PublicPath(
        path="/api/v3/ticker",
        parameters={**_SOME, "windowSize": Kind.WORD, "type": Kind.WORD},
        weigh=_each(4, 200),
        fresh=1.0,
    ),
    PublicPath(path="/api/v3/executionRules", parameters=_SOME, weigh=_each(2, 40), fresh=60.0),
    PublicPath(path="/api/v3/referencePrice", parameters=_SYMBOL_ONLY, mandatory=("symbol",), weigh=_always(2)),
    PublicPath(
        path="/api/v3/referencePrice/calculation",
        parameters={"symbol": Kind.SYMBOL, "symbolStatus": Kind.WORD},
        mandatory=("symbol",),
        weigh=_always(2),
    ),
)
"""All of them. The ticker's window is of the last minutes or days, and its figures are as good a second later."""
