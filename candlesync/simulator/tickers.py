"""What else the REST API says of the market (rest-api.md, "Market Data endpoints"): prices, tickers, book and trades.

All of it is derived from the candles and the trades inside them, so that it agrees with klines and streams. Not
simulated: ``symbolStatus``, and trades older than the newest thousand candles of a symbol's finest interval.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from candlesync.core.interval import DAY, MINUTE, Interval
from candlesync.simulator.bars import ONE, Bar, Kline, aggregate, bar_of, decimal_text
from candlesync.simulator.chance import below, chance, share
from candlesync.simulator.market import Market
from candlesync.simulator.parameters import BadRequest, Parameters, malformed
from candlesync.simulator.tape import Group
from candlesync.simulator.zones import offset_of

Values = Mapping[str, str]

_DEEPEST = 5_000
_MOST_TRADES = 1_000
_AVERAGE_MINUTES = 5
_WINDOW = re.compile(r"([1-9][0-9]?)([mhd])", re.ASCII)
_MOST = {"m": 59, "h": 23, "d": 7}
_LENGTHS = {"m": MINUTE, "h": 60 * MINUTE, "d": DAY}
"""rest-api.md, "Rolling window price change statistics"."""


def weight_of_depth(values: Values) -> int:
    """By the number of levels."""
    limit = values.get("limit", "100")
    levels = int(limit) if limit.isdecimal() else 0
    return 5 if levels <= 100 else 25 if levels <= 500 else 50 if levels <= 1000 else 250


def weight_of_day(values: Values) -> int:
    """By the number of symbols."""
    count = values["symbols"].count(",") + 1 if "symbols" in values else int("symbol" in values)
    return 80 if count == 0 or count > 100 else 40 if count > 20 else 2


def weight_of_each(weight: int, most: int) -> Callable[[Values], int]:
    """By each symbol, up to a maximum."""
    return lambda values: min(most, weight * (values.get("symbols", "").count(",") + 1))


def weight_of_price(values: Values) -> int:
    """One symbol, or more."""
    return 2 if "symbol" in values else 4


class Tickers:
    """Answers about the market as it is at ``now``, which each call is given (UNIX ms)."""

    def __init__(self, market: Market) -> None:
        self._market = market

    def price(self, parameters: Parameters, now: int) -> bytes:
        """``ticker/price``."""
        return self._each(parameters, lambda symbol: {"symbol": symbol, "price": self._newest(symbol, now).row.close})

    def book(self, parameters: Parameters, now: int) -> bytes:
        """``ticker/bookTicker``."""
        return self._each(parameters, lambda symbol: {"symbol": symbol, **self._best(symbol, now)})

    def day(self, parameters: Parameters, now: int) -> bytes:
        """``ticker/24hr``."""
        is_mini = (parameters.text("type") or "FULL") == "MINI"
        return self._each(parameters, lambda symbol: self._day(symbol, now, is_mini=is_mini))

    def trading_day(self, parameters: Parameters, now: int) -> bytes:
        """``ticker/tradingDay``: since midnight, in UTC or another zone."""
        offset = offset_of(parameters.text("timeZone"))
        start = Interval.D1.floor(now + offset) - offset
        return self._since(parameters, now, start)

    def rolling(self, parameters: Parameters, now: int) -> bytes:
        """``ticker``: a window of minutes, hours or days before now, from a whole minute on."""
        window = _WINDOW.fullmatch(parameters.text("windowSize") or "1d")
        if window is None or int(window[1]) > _MOST[window[2]]:
            raise BadRequest(-1130, "Data sent for parameter 'windowSize' is not valid.")
        return self._since(parameters, now, Interval.M1.floor(now - int(window[1]) * _LENGTHS[window[2]]))

    def _since(self, parameters: Parameters, now: int, start: int) -> bytes:
        if parameters.text("symbol") is None and parameters.text("symbols") is None:
            raise malformed("symbol")
        is_mini = (parameters.text("type") or "FULL") == "MINI"
        return self._each(parameters, lambda symbol: self._change(symbol, now, start, is_mini=is_mini))

    def average(self, parameters: Parameters, now: int) -> bytes:
        """``avgPrice``."""
        symbol = self._symbol(parameters)
        bar = self._window(symbol, now, now - _AVERAGE_MINUTES * MINUTE)
        price = bar.quote_volume * ONE // bar.volume if bar.volume else bar.close
        return msgspec.json.encode({"mins": _AVERAGE_MINUTES, "price": decimal_text(price), "closeTime": now})

    def depth(self, parameters: Parameters, now: int) -> bytes:
        """``depth``."""
        symbol, limit = self._symbol(parameters), parameters.number("limit")
        bids, asks = self._levels(symbol, now, min(100 if limit is None else limit, _DEEPEST))
        return msgspec.json.encode({"lastUpdateId": self._last_trade(symbol, now), "bids": bids, "asks": asks})

    def trades(self, parameters: Parameters, now: int) -> bytes:
        """``trades``, and ``historicalTrades``: the newest, or those from ``fromId`` on."""
        symbol, limit, first = self._symbol(parameters), self._limit(parameters), parameters.number("fromId")
        found: list[dict[str, Any]] = []
        groups = self._groups(symbol, now, limit) if first is None else self._groups_from(symbol, now, limit, first)
        for group in groups:
            quantities = share(group.volume, [1] * group.trades)
            found += [
                {
                    "id": group.first_trade + number,
                    "price": decimal_text(group.price),
                    "qty": decimal_text(quantity),
                    "quoteQty": decimal_text(quantity * group.price // ONE),
                    "time": group.time,
                    "isBuyerMaker": group.first_trade % 2 == 0,
                    "isBestMatch": True,
                }
                for number, quantity in enumerate(quantities)
            ]
        if first is not None:
            return msgspec.json.encode([trade for trade in found if trade["id"] >= first][:limit])
        return msgspec.json.encode(found[-limit:] if limit else [])

    def aggregate_trades(self, parameters: Parameters, now: int) -> bytes:
        """``aggTrades``: the newest. Their ids are those of their first trades."""
        symbol, limit = self._symbol(parameters), self._limit(parameters)
        return msgspec.json.encode(
            [
                {
                    "a": group.first_trade,
                    "p": decimal_text(group.price),
                    "q": decimal_text(group.volume),
                    "f": group.first_trade,
                    "l": group.first_trade + group.trades - 1,
                    "T": group.time,
                    "m": group.first_trade % 2 == 0,
                    "M": True,
                }
                for group in self._groups(symbol, now, limit)[-limit:]
            ]
        )

    # --- one symbol

    def _newest(self, symbol: str, now: int) -> Kline:
        return self._market.series(symbol, Interval.M1).page(None, None, 1, now=now)[0]

    def _last_trade(self, symbol: str, now: int) -> int:
        klines = self._market.series(symbol, Interval.M1).page(None, None, 1000, now=now)
        return next((kline.last_trade for kline in reversed(klines) if kline.row.trades), 0)

    def _window(self, symbol: str, now: int, start: int) -> Bar:
        """The trades of the whole minutes from that of ``start`` until ``now``, as a candle."""
        series = self._market.series(symbol, Interval.M1)
        start = max(Interval.M1.floor(start), series.first)
        klines = series.page(start, now, (now - start) // MINUTE + 1, now=now) or [self._newest(symbol, now)]
        bars = [bar_of(kline.row, kline.first_trade) for kline in klines]
        return aggregate(bars, bars[0].open_time, now)

    def _best(self, symbol: str, now: int) -> dict[str, str]:
        (bid,), (ask,) = self._levels(symbol, now, 1)
        return {"bidPrice": bid[0], "bidQty": bid[1], "askPrice": ask[0], "askQty": ask[1]}

    def _day(self, symbol: str, now: int, *, is_mini: bool) -> dict[str, Any]:
        groups = self._groups(symbol, now, 1)
        change = self._change(symbol, now, now - DAY, is_mini=is_mini)
        if is_mini:
            return change
        return {
            **change,
            "prevClosePrice": change["openPrice"],
            "lastQty": decimal_text(groups[-1].volume // groups[-1].trades if groups else 0),
            **self._best(symbol, now),
        }

    def _change(self, symbol: str, now: int, start: int, *, is_mini: bool) -> dict[str, Any]:
        """How the price changed from the minute of ``start`` until ``now``."""
        bar = self._window(symbol, now, start)
        common = {
            "openPrice": decimal_text(bar.open),
            "highPrice": decimal_text(bar.high),
            "lowPrice": decimal_text(bar.low),
            "lastPrice": decimal_text(bar.close),
            "volume": decimal_text(bar.volume),
            "quoteVolume": decimal_text(bar.quote_volume),
            "openTime": bar.open_time,
            "closeTime": now,
            "firstId": bar.first_trade,
            "lastId": bar.first_trade + bar.trades - 1 if bar.trades else -1,
            "count": bar.trades,
        }
        if is_mini:
            return {"symbol": symbol, **common}
        change = bar.close - bar.open
        sign = "-" if change < 0 else ""
        hundredths = abs(change) * 100_000 // bar.open
        average = bar.quote_volume * ONE // bar.volume if bar.volume else bar.close
        return {
            "symbol": symbol,
            "priceChange": sign + decimal_text(abs(change)),
            "priceChangePercent": f"{sign}{hundredths // 1000}.{hundredths % 1000:03d}",
            "weightedAvgPrice": decimal_text(average),
            **common,
        }

    def _levels(self, symbol: str, now: int, count: int) -> tuple[list[list[str]], list[list[str]]]:
        """Bids and asks around the last price, each at its own tick; another book each second."""
        profile = self._market.symbols[symbol].profile
        last = bar_of(self._newest(symbol, now).row, 0).close
        rngs = [chance(symbol, "book", side, now // 1000) for side in ("bids", "asks")]
        bids, asks = (
            [
                [decimal_text(price), decimal_text((1 + below(rng, 10_000)) * profile.lot)]
                for price in range(first, first + count * step, step)
                if price > 0
            ]
            for rng, first, step in zip(rngs, (last, last + profile.tick), (-profile.tick, profile.tick), strict=True)
        )
        return bids, asks

    def _groups(self, symbol: str, now: int, trades: int) -> list[Group]:
        """The newest groups of trades, ascending: as many as have ``trades`` trades, within the last thousand bars."""
        source = self._market.source(symbol)
        length = source.finest.next(0)
        found: list[Group] = []
        for bar in reversed(source.bars(source.finest, now - 1000 * length, now + 1)):
            found = source.tape(bar).groups(now + 1) + found
            if sum(group.trades for group in found) >= trades:
                break
        return found

    def _groups_from(self, symbol: str, now: int, trades: int, first: int) -> list[Group]:
        """The oldest groups of the last thousand bars that hold trades from an id on: as many as have ``trades``."""
        source = self._market.source(symbol)
        length = source.finest.next(0)
        found: list[Group] = []
        count = 0
        for bar in source.bars(source.finest, now - 1000 * length, now + 1):
            if count >= trades:
                break
            if bar.first_trade + bar.trades > first:
                found += [
                    group for group in source.tape(bar).groups(now + 1) if group.first_trade + group.trades > first
                ]
                count = found[-1].first_trade + found[-1].trades - max(first, found[0].first_trade) if found else 0
        return found

    # --- parameters

    def _symbol(self, parameters: Parameters) -> str:
        symbol = parameters.symbol("symbol")
        if symbol is None or symbol not in self._market.symbols:
            raise BadRequest(-1121, "Invalid symbol.")
        return symbol

    def _limit(self, parameters: Parameters) -> int:
        limit = parameters.number("limit")
        return min(500 if limit is None else limit, _MOST_TRADES)

    def _each(self, parameters: Parameters, tell: Callable[[str], dict[str, Any]]) -> bytes:
        """An object for the one symbol that is named, or an array for some or all."""
        many = parameters.text("symbols")
        if parameters.text("symbol") is not None:
            if many is not None:
                raise BadRequest(-1128, "Combination of optional parameters invalid.")
            return msgspec.json.encode(tell(self._symbol(parameters)))
        names: Sequence[str] = list(self._market.symbols)
        if many is not None:
            names = parameters.names("symbols")
            if any(name not in self._market.symbols for name in names):
                raise BadRequest(-1121, "Invalid symbol.")
        return msgspec.json.encode([tell(name) for name in names])
