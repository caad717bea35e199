"""What Binance lists: its ``exchangeInfo`` read into our own words. Pure, as `candlesync.binance.parse` is.

Source: developers.binance.com, Spot, "General endpoints"; and the recordings that the tests read.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from candlesync.binance.text import UNREADABLE, excerpt, is_decimal, is_symbol
from candlesync.errors import UnreadableAnswer


class SymbolInfo(msgspec.Struct, frozen=True, rename="camel"):
    """One symbol that Binance lists. Only its name is sure to be there."""

    symbol: str
    status: str = ""
    """``TRADING``, ``BREAK``, …; empty when Binance does not say."""
    base_asset: str = ""
    quote_asset: str = ""
    tick_size: str = ""
    """By which its prices move, a decimal; empty when Binance does not say, or says that any price will do (0)."""
    step_size: str = ""
    """The same of its volumes."""


class ExchangeInfo(msgspec.Struct, frozen=True):
    """What Binance lists, and how much it may be asked."""

    symbols: dict[str, SymbolInfo]
    weight_limit: int | None
    """Request weight a minute and IP; `None` when the answer does not say."""
    unreadable: int
    """Symbols that were left out because they are not what Binance documents."""


class _RateLimit(msgspec.Struct, rename="camel"):
    rate_limit_type: str
    interval: str
    interval_num: int
    limit: int


class _Listed(SymbolInfo, frozen=True, rename="camel"):
    filters: msgspec.Raw = msgspec.Raw(b"[]")


class _Filter(msgspec.Struct, rename="camel"):
    filter_type: str = ""
    tick_size: str = ""
    step_size: str = ""


class _ExchangeInfo(msgspec.Struct, rename="camel"):
    symbols: list[msgspec.Raw]
    rate_limits: list[msgspec.Raw] = []


_exchange_info = msgspec.json.Decoder(_ExchangeInfo)
_listed = msgspec.json.Decoder(_Listed)
_filters = msgspec.json.Decoder(list[_Filter])
_rate_limit = msgspec.json.Decoder(_RateLimit)


def parse_exchange_info(body: bytes) -> ExchangeInfo:
    """Read an exchangeInfo answer. A symbol that cannot be read is left out and counted.

    Raises `UnreadableAnswer` when it is no such answer or lists no symbol that can be read: an exchange without
    symbols would make each of them unknown.
    """
    try:
        answer = _exchange_info.decode(body)
    except UNREADABLE as error:
        raise UnreadableAnswer(f"exchangeInfo answer: {excerpt(error)}; documented: symbols and rateLimits") from error
    symbols: dict[str, SymbolInfo] = {}
    unreadable = 0
    for raw in answer.symbols:
        try:
            info = _with_steps(_listed.decode(raw))
        except UNREADABLE:
            unreadable += 1
            continue
        if is_symbol(info.symbol):
            symbols[info.symbol] = info
        else:
            unreadable += 1
    if not symbols:
        raise UnreadableAnswer(f"exchangeInfo answer: none of its {len(answer.symbols)} symbols can be read")
    return ExchangeInfo(symbols, _weight_limit(answer.rate_limits), unreadable)


def _with_steps(listed: _Listed) -> SymbolInfo:
    """A symbol with what its filters say of its steps. A symbol whose filters cannot be read is still listed."""
    info = {name: getattr(listed, name) for name in SymbolInfo.__struct_fields__}
    try:
        filters = _filters.decode(listed.filters)
    except UNREADABLE:
        filters = []
    for one in filters:
        if one.filter_type == "PRICE_FILTER":
            info["tick_size"] = _step(one.tick_size)
        elif one.filter_type == "LOT_SIZE":
            info["step_size"] = _step(one.step_size)
    return SymbolInfo(**info)


def _step(text: str) -> str:
    return text if is_decimal(text) and Decimal(text) else ""


def _weight_limit(rate_limits: list[msgspec.Raw]) -> int | None:
    for raw in rate_limits:
        try:
            rate = _rate_limit.decode(raw)
        except UNREADABLE:
            continue
        # The header that we count by, X-MBX-USED-WEIGHT-1M, is of one minute: no other span will do.
        one_minute = (rate.interval, rate.interval_num) == ("MINUTE", 1)
        if rate.rate_limit_type == "REQUEST_WEIGHT" and one_minute and rate.limit > 0:
            return rate.limit
    return None
