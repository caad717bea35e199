"""The bytes of the client contract: a candle as JSON, with or without its position, and as a WebSocket frame. Pure.

A candle is encoded once for each time that it changes, whoever reads it: the bytes stay with its `Entry`, but for how
each candle of its series begins, which is put between them. Its numbers are Binance's own decimals, digit for digit:
the texts go into the JSON as they are, never through a float.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from candlesync.core.candle import Series
from candlesync.core.entry import Entry
from candlesync.core.position import Position


def encode(series: Series, entry: Entry) -> bytes:
    """The candle object of the contract (design, section 3), field order fixed, as JSON."""
    return _opening(series) + (entry.text or entry.write())


@lru_cache(4096)  # as many series as a server follows, and more
def _opening(series: Series) -> bytes:
    """How each candle of a series begins."""
    return f'{{"symbol":"{series.symbol}","interval":"{series.interval}","time":'.encode("ascii")


def with_position(candle: bytes, position: Position) -> bytes:
    """A candle's bytes as the message that leaves its client with everything up to ``position``."""
    return candle[:-1] + b',"position":"%b"}' % str(position).encode("ascii")


def history(series: Series, entries: Sequence[Entry]) -> bytes:
    """The REST answer: an ascending JSON array."""
    if not entries:
        return b"[]"
    # Their texts are ready but for the first time, and one copy is made: this is the longest answer there is.
    opening = _opening(series)
    texts = [entry.text or entry.write() for entry in entries]
    texts[0] = b"[" + opening + texts[0]
    texts[-1] += b"]"
    return (b"," + opening).join(texts)


_COLUMNS = tuple(f'"{name}":'.encode("ascii") for name in ("open", "high", "low", "close", "volume"))
"""How the values after the time begin in an entry's text, in their order there."""


def columns(entries: Iterable[Entry]) -> list[list[bytes]]:
    """The same decimals by kind, as JSON numbers: open times (UNIX seconds), opens, highs, lows, closes, volumes."""
    made: list[list[bytes]] = [[] for _ in range(1 + len(_COLUMNS))]
    times, *others = made
    for entry in entries:
        time, *values, _ = (entry.text or entry.write()).split(b",", len(made))
        times.append(time)
        for column, opening, value in zip(others, _COLUMNS, values, strict=True):
            column.append(value.removeprefix(opening))
    return made


def catch_up(series: Series, entries: Sequence[Entry], position: Position) -> list[bytes]:
    """One catch-up, in time order; only its last message carries the position.

    A break in the middle thus loses nothing: the client resumes from the last position that it saw.
    """
    opening = _opening(series)
    messages = [opening + (entry.text or entry.write()) for entry in entries]
    if messages:
        messages[-1] = with_position(messages[-1], position)
    return messages


BATCH = 16 * 1024
"""Bytes of frames that go out in one write, at most, if one frame alone is not longer: what is ready for a client that
does not read takes so much memory, however much it has asked for."""


def frame(message: bytes) -> bytes:
    """A text message as a server's whole WebSocket frame (RFC 6455, section 5.2): unmasked and uncompressed."""
    size = len(message)
    if size < 126:
        return b"\x81%c%b" % (size, message)
    if size < 65536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), message)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), message)


def batches(messages: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The messages as frames, joined as far as they fit into a `BATCH`; with each how many messages it holds."""
    frames: list[bytes] = []
    size = 0
    for message in messages:
        one = frame(message)
        if frames and size + len(one) > BATCH:
            yield len(frames), b"".join(frames)
            frames, size = [], 0
        frames.append(one)
        size += len(one)
    if frames:
        yield len(frames), b"".join(frames)
