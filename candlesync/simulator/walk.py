"""A seeded random walk: the final candles of a symbol that nobody recorded.

Days follow each other as a random walk. A day is split into hours and an hour into minutes only when somebody asks,
and always in the same way, so that the candles of a minute ago and of a year ago cost the same, and every longer
candle is made of the shorter ones in every field. Each candle opens at the close of the one before it. A candle
has no trade or at least four, which is room for its open, high, low and close.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from random import Random

import msgspec

from candlesync.core.interval import DAY, HOUR, MINUTE, Interval
from candlesync.simulator.bars import ONE, Bar, Row, flat
from candlesync.simulator.chance import bell, below, chance, choose, share, wander
from candlesync.simulator.source import Shelf, Source

LEAST_TRADES = 4
FIRST_TRADE = 1_000_000
"""The id of a symbol's first trade; an arbitrary number."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of market a symbol is. Prices, ticks and lots are in units of 10⁻⁸."""

    price: int
    """Around which it moves; where it begins."""
    tick: int
    lot: int
    day_volume: int
    """Lots traded on a usual day."""
    day_trades: int
    daily_move: int = 25_000
    """Standard deviation of a day's change, in millionths."""


class Walk(Source):
    """The candles of a symbol from its listing time on, without end; held by the day, the hour and the minute."""

    levels = (Interval.D1, Interval.H1, Interval.M1)

    def __init__(self, seed: object, profile: Profile, listed: int) -> None:
        super().__init__(seed)
        self._profile = profile
        self._listed = Interval.M1.floor(listed)
        self.first = Interval.D1.floor(listed)
        self.last = None
        self._days: list[Bar] = []
        self._hours: Shelf[int, list[Bar]] = Shelf(512)  # a thousand candles of 12h: 500 days
        self._minutes: Shelf[int, list[Bar]] = Shelf(512)  # a thousand candles of 30m: 500 hours

    def row(self, interval: Interval, open_time: int) -> Row | None:  # noqa: ARG002 - nothing comes from a file
        return None

    def bars(self, level: Interval, start: int, end: int) -> Sequence[Bar]:
        start = max(start, self.first)
        if level is Interval.D1:
            while self.first + len(self._days) * DAY < end:
                self._days.append(self._next_day())
            return self._days[-((self.first - start) // DAY) : max(0, -((self.first - end) // DAY))]
        parents, length = (Interval.D1, DAY) if level is Interval.H1 else (Interval.H1, HOUR)
        found: list[Bar] = []
        for parent in self.bars(parents, start - start % length, end):
            children = self._children(level, parent)
            if parent.open_time < start or parent.open_time + length > end:
                children = [child for child in children if start <= child.open_time < end]
            found += children
        return found

    def _children(self, level: Interval, parent: Bar) -> list[Bar]:
        shelf, span, length = (self._hours, DAY, HOUR) if level is Interval.H1 else (self._minutes, HOUR, MINUTE)
        children = shelf.get(parent.open_time)
        if children is None:
            begin = max(parent.open_time, level.floor(self._listed))
            opens = range(begin, parent.open_time + span, length)
            rng = chance(self._seed, level, parent.open_time)
            children = shelf.put(parent.open_time, split(parent, opens, self._profile, rng))
        return children

    def _next_day(self) -> Bar:
        profile, before = self._profile, self._days[-1] if self._days else None
        open_time = self.first + len(self._days) * DAY
        rng = chance(self._seed, Interval.D1, open_time)
        open_ = before.close if before else profile.price
        # Drawn back to where it began, a little each day: a free walk would end at nothing or at the moon.
        change = bell(rng, profile.daily_move) + (profile.price - open_) * 20_000 // max(open_, profile.price)
        reach = [abs(bell(rng, profile.daily_move // 2)) for _ in range(2)]
        close = open_ + open_ * change // 1_000_000
        high = max(open_, close) + open_ * reach[0] // 1_000_000
        low = min(open_, close) - open_ * reach[1] // 1_000_000
        low, close, high = (max(1, price // profile.tick) * profile.tick for price in (low, close, high))
        low, high = min(low, open_, close), max(high, open_, close)
        activity = 500 + below(rng, 1000)  # thousandths of a usual day
        listed_part = (open_time + DAY - max(open_time, self._listed)) * activity // DAY
        trades = max(LEAST_TRADES, profile.day_trades * listed_part // 1000)
        volume = max(trades, profile.day_volume * listed_part // 1000) * profile.lot
        quote = volume * (open_ + high + low + close) // (4 * ONE)
        taken = 400 + below(rng, 200)
        taker = volume // profile.lot * taken // 1000 * profile.lot
        return Bar(
            open_time,
            open_time + DAY - 1,
            open_,
            high,
            low,
            close,
            volume,
            quote,
            trades,
            taker,
            quote * taker // volume,
            before.first_trade + before.trades if before else FIRST_TRADE,
        )


def split(parent: Bar, opens: Sequence[int], profile: Profile, rng: Random) -> list[Bar]:
    """The candles of equal length at ``opens`` that ``parent`` is made of: aggregated again, they are the parent."""
    closes = [*(time - 1 for time in opens[1:]), parent.close_time]
    if not parent.trades:
        return [flat(*times, parent.close) for times in zip(opens, closes, strict=True)]
    # Some six trades come together: a thin market has long silences between busy moments.
    places = choose(rng, min(parent.trades // LEAST_TRADES, 1 + parent.trades // 6), len(opens))
    trades = [
        LEAST_TRADES + more
        for more in share(parent.trades - LEAST_TRADES * len(places), [16 + below(rng, 48) for _ in places])
    ]
    prices = _price_bars(parent, len(places), profile.tick, rng)
    middles = [sum(four) for four in prices]
    weights = _balanced([count * (32 + below(rng, 64)) for count in trades], middles, parent)
    lots = parent.volume // profile.lot
    volumes = [(1 + more) * profile.lot for more in share(lots - len(places), weights)]
    quotes = share(parent.quote_volume, [volume * middle for volume, middle in zip(volumes, middles, strict=True)])
    takers = [part * profile.lot for part in share(parent.taker_volume // profile.lot, volumes)]
    taker_quotes = share(parent.taker_quote_volume, quotes)
    firsts = accumulate(trades, initial=parent.first_trade)
    columns = zip(prices, volumes, quotes, trades, takers, taker_quotes, firsts, strict=False)
    children, price, traded = [], parent.open, set(places)
    for place, (open_time, close_time) in enumerate(zip(opens, closes, strict=True)):
        if place not in traded:
            children.append(flat(open_time, close_time, price))
            continue
        four, *amounts = next(columns)
        children.append(Bar(open_time, close_time, *four, *amounts))
        price = four[3]
    return children


def _price_bars(parent: Bar, count: int, tick: int, rng: Random) -> list[tuple[int, int, int, int]]:
    """Open, high, low and close of ``count`` candles that follow each other; together they are the parent's."""
    low, high = parent.low // tick, parent.high // tick
    ends = [parent.open // tick]
    ends += wander(rng, ends[0], parent.close // tick, count, low=low, high=high)
    reach = 1 + (high - low) // (count + 1)
    highs, lows = [], []
    for open_, close in pairwise(ends):
        highs.append(min(high, max(open_, close) + below(rng, reach)))
        lows.append(max(low, min(open_, close) - below(rng, reach)))
    highs[highs.index(max(highs))] = high
    lows[lows.index(min(lows))] = low
    columns = zip(ends, highs, lows, ends[1:], strict=False)
    return [(open_ * tick, top * tick, bottom * tick, close * tick) for open_, top, bottom, close in columns]


def _balanced(weights: list[int], middles: list[int], parent: Bar) -> list[int]:
    """``weights`` tilted so that the mean of ``middles`` (four times a price) is the parent's average price.

    Otherwise a child's quote volume, a share of the parent's, would be worth more or less than its prices allow.
    """
    aim = parent.quote_volume * 4 * ONE
    errors = [middle * parent.volume - aim for middle in middles]
    above = sum(weight * error for weight, error in zip(weights, errors, strict=True) if error > 0)
    below_ = -sum(weight * error for weight, error in zip(weights, errors, strict=True) if error < 0)
    if not above or not below_:
        return weights
    scale = max(0, max(above, below_).bit_length() - 32)
    above, below_ = 1 + (above >> scale), 1 + (below_ >> scale)
    return [weight * (below_ if error > 0 else above) for weight, error in zip(weights, errors, strict=True)]
