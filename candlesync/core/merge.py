"""Which of two states of one candle stands.

Stream frames and REST rows tell of the same candle at different moments and in any order. Invariant 3 decides: a
closed candle never becomes forming again and changes only by a final REST row; a forming candle never loses trades.
"""

from __future__ import annotations

from decimal import Decimal
from enum import Enum

from candlesync.core.candle import Candle, same_values


class Source(Enum):
    """Where a state of a candle was learnt."""

    STREAM = "stream"
    REST = "rest"


def merge(known: Candle, seen: Candle, source: Source) -> Candle | None:
    """The state that replaces ``known`` now that ``seen`` was seen, or `None` when ``known`` stands.

    Both are of one open time. ``seen`` is closed when it is a final REST row or a stream's close frame.
    """
    if known.closed:
        # Invariant 3: only a final REST row changes a closed candle. A fill is not Binance's word at all, so Binance's
        # own close replaces it from either source (invariant 6).
        replaced = seen.closed and (source is Source.REST or known.filled)
        return seen if replaced and not same_values(known, seen) else None
    if seen.closed:
        return seen
    return seen if _is_later(seen, known) else None


def _is_later(seen: Candle, known: Candle) -> bool:
    """Whether a forming state is later than another: trades and volume only ever grow."""
    if seen.trades != known.trades:
        return seen.trades > known.trades
    return not same_values(known, seen) and Decimal(seen.volume) >= Decimal(known.volume)
