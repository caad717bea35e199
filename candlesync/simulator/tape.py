"""The trades inside one candle: how it grew, from its first trade to its final values.

A tape is derived from the final candle alone, so whoever asks about an instant, early or late, is told the same. Each
entry is a group of trades at one price (as in Binance's aggregate trades). The first is at the candle's open price,
the last at its close, and its high and low are among them; trades and volumes only grow and add up to the candle's.
"""

from __future__ import annotations

from bisect import bisect_left
from math import gcd
from typing import NamedTuple

from candlesync.core.interval import SECOND
from candlesync.simulator.bars import Bar, flat
from candlesync.simulator.chance import below, chance, choose, cumulate, share, wander

MOST_ENTRIES = 120
"""Two a second for a minute: finer than any update of the stream shows."""


class Group(NamedTuple):
    """Trades at one price, at the same time."""

    time: int
    price: int
    trades: int
    volume: int
    first_trade: int


class Tape:
    """The trades of one final candle in the order of time.

    ``seed`` and the candle decide everything. ``opens_at_once`` puts the first trade at the candle's very open: it is
    so where the open price differs from the price before, which a candle that has no trade yet would have to show.
    """

    def __init__(self, bar: Bar, *, seed: object, opens_at_once: bool) -> None:
        self.bar = bar
        rng = chance(seed, "tape", bar.open_time)
        count = min(bar.trades, MOST_ENTRIES)
        times = [bar.open_time + offset for offset in choose(rng, count, bar.close_time + 1 - bar.open_time)]
        if times and opens_at_once:
            times[0] = bar.open_time
        self._times = _at_full_seconds(times, bar.open_time)
        self._prices = _prices(bar, len(times), seed)
        groups = [1 + more for more in share(bar.trades - count, [1 + below(rng, 64) for _ in times])] if times else []
        self._trades = _running(groups)
        if times:
            self._volumes = [0, *cumulate(bar.volume, [group * (1 + below(rng, 256)) for group in groups])]
            amounts = [
                (after - before) * price
                for before, after, price in zip(self._volumes, self._volumes[1:], self._prices, strict=False)
            ]
            self._quotes = [0, *cumulate(bar.quote_volume, amounts)]
        else:
            self._volumes = self._quotes = [0]

    def bar_between(self, start: int, end: int, open_time: int, close_time: int) -> Bar:
        """The trades from ``start`` to before ``end`` as a candle; without any, flat at the price before them."""
        bar = self.bar
        first, last = bisect_left(self._times, start), bisect_left(self._times, end)
        if first == last:
            return flat(open_time, close_time, self._prices[first - 1] if first else bar.open)
        prices = self._prices[first:last]
        volumes, quotes = self._volumes, self._quotes
        return Bar(
            open_time,
            close_time,
            prices[0],
            max(prices),
            min(prices),
            prices[-1],
            volumes[last] - volumes[first],
            quotes[last] - quotes[first],
            self._trades[last] - self._trades[first],
            _scaled(volumes[last], bar.taker_volume, bar.volume)
            - _scaled(volumes[first], bar.taker_volume, bar.volume),
            _scaled(quotes[last], bar.taker_quote_volume, bar.quote_volume)
            - _scaled(quotes[first], bar.taker_quote_volume, bar.quote_volume),
            bar.first_trade + self._trades[first],
        )

    def groups(self, end: int) -> list[Group]:
        """The groups of trades before ``end``, in the order of time."""
        return [
            Group(
                time,
                self._prices[place],
                self._trades[place + 1] - self._trades[place],
                self._volumes[place + 1] - self._volumes[place],
                self.bar.first_trade + self._trades[place],
            )
            for place, time in enumerate(self._times[: bisect_left(self._times, end)])
        ]


def _at_full_seconds(times: list[int], earliest: int) -> list[int]:
    """The first trade of each second at its beginning, so that no candle of a second is seen before its trades."""
    aligned, second = [], -1
    for time in times:
        aligned.append(time if time // SECOND == second else max(earliest, time - time % SECOND))
        second = time // SECOND
    return aligned


def _prices(bar: Bar, count: int, seed: object) -> list[int]:
    """``count`` prices from the bar's open to its close by way of its high and low, as far as there is room."""
    if count == 0:
        return []
    if count == 1:
        return [bar.close]
    rng = chance(seed, "prices", bar.open_time)
    tick = _tick(bar)
    low, high = bar.low // tick, bar.high // tick
    turns = [price for price in (bar.high, bar.low) if price not in (bar.open, bar.close)]
    if len(turns) == 2 and rng.getrandbits(1):
        turns.reverse()
    places = [place + 1 for place in choose(rng, len(turns), count - 2)] if count > 2 else []
    stops = [*zip(places, turns, strict=False), (count - 1, bar.close)]
    prices = [bar.open // tick]
    for place, price in stops:
        prices += wander(rng, prices[-1], price // tick, place + 1 - len(prices), low=low, high=high)
    return [price * tick for price in prices]


def _tick(bar: Bar) -> int:
    """The largest power of ten that divides all prices of the bar: the symbol's tick or a multiple of it."""
    common = gcd(bar.open, bar.high, bar.low, bar.close)
    tick = 1
    while common and common % (tick * 10) == 0:
        tick *= 10
    return tick


def _running(counts: list[int]) -> list[int]:
    sums = [0]
    for count in counts:
        sums.append(sums[-1] + count)
    return sums


def _scaled(part: int, of: int, whole: int) -> int:
    """The takers' share of a running sum: it never falls, and at the end it is all of ``of``."""
    return of * part // whole if whole else of
