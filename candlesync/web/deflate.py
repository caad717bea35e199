"""A REST answer in gzip, put together from pieces that stay compressed. Pure.

To compress an answer of 1000 candles takes more than a millisecond, and a revision changes one of them. But the parts
of a DEFLATE stream that end on a byte (zlib's sync flush) and do not refer to what stands before them can follow each
other in any company (RFC 1951, RFC 1952). So candles are compressed in blocks, which are cut by their place in the
series and not by the question: whatever range is asked for, only the ends of it are compressed anew.

Measured with 1000 minutes of BTCUSDT of June 2024, 188 kB: 23.9 kB in 1.4 ms the first time, no more than it takes to
encode them, and in 0.06 ms for the next revision. So nothing here waits for a thread, and two askers never do the same
twice. As one stream it is 22.5 kB, in 1.4 ms; zlib's usual level 6 makes 22.4 kB of it, in 2.9 ms.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import msgspec

from candlesync.core import wire
from candlesync.core.candle import Series
from candlesync.core.entry import Entry

_BLOCK = 128
"""Candles. Smaller blocks compress worse (50: 8 % more bytes), and of greater ones more is done again at the ends."""
_KEPT = 12
"""Blocks; an answer of 1000 candles touches at most nine."""
_LEVEL = 4
_HEAD = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
"""Of a gzip file without a name, of no time and of no system (RFC 1952, 2.3)."""


class _Block(msgspec.Struct, frozen=True):
    entries: Sequence[Entry]
    """What it was made of. An entry never changes, it is replaced: the same entries are the same bytes."""
    deflated: bytes


class Deflater:
    """Compresses the answers of one series."""

    def __init__(self, series: Series) -> None:
        self._series = series
        self._origin = 0
        """The open time from which candles are counted; any on the grid of the series."""
        self._blocks: dict[int, _Block] = {}
        """By number; each starts with the first candle of its number, and the newest of them grows."""
        self._first: _Block | None = None
        """The part of a block that the last answer began with."""

    def gzip(self, entries: Sequence[Entry], plain: bytes) -> bytes:
        """The gzip form of ``plain``, which is `wire.history` of ``entries``: at least one, without gaps."""
        # The last candle is most often forming, and different each time.
        last = wire.history(self._series, entries[-1:])[1:]
        trailer = zlib.crc32(plain).to_bytes(4, "little") + len(plain).to_bytes(4, "little")
        return b"".join([_HEAD, _OPENING, *self._pieces(entries[:-1]), _deflate(last, zlib.Z_FINISH), trailer])

    def _pieces(self, entries: Sequence[Entry]) -> Iterator[bytes]:
        done, number = 0, self._number(entries[0]) if entries else 0
        while done < len(entries):
            index, offset = divmod(number + done, _BLOCK)
            piece = entries[done : done + _BLOCK - offset]
            done += len(piece)
            yield self._begun_within(piece) if offset else self._block(index, piece)

    def _block(self, index: int, entries: Sequence[Entry]) -> bytes:
        kept = self._blocks.get(index)
        if kept is not None and kept.entries == entries:
            return kept.deflated
        deflated = self._piece(entries)
        # A question may end within a block: the whole one is still of use to the others.
        if kept is None or len(entries) >= len(kept.entries):
            self._blocks[index] = _Block(entries, deflated)
            if len(self._blocks) > _KEPT:
                del self._blocks[min(self._blocks)]
        return deflated

    def _begun_within(self, entries: Sequence[Entry]) -> bytes:
        # Of one question only: most ask the same.
        if self._first is None or self._first.entries != entries:
            self._first = _Block(entries, self._piece(entries))
        return self._first.deflated

    def _piece(self, entries: Sequence[Entry]) -> bytes:
        return _deflate(wire.history(self._series, entries)[1:-1] + b",", zlib.Z_SYNC_FLUSH)

    def _number(self, entry: Entry) -> int:
        number = self._series.interval.steps(self._origin, entry.open_time)
        if number is None:
            self._blocks.clear()
            self._origin, number = entry.open_time, 0
        return number


def _deflate(data: bytes, end: int) -> bytes:
    # The strategy is measured, too: 4 % fewer bytes than the default one, in the same time.
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, strategy=zlib.Z_FILTERED)
    return compressor.compress(data) + compressor.flush(end)


_OPENING = _deflate(b"[", zlib.Z_SYNC_FLUSH)
