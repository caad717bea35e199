"""What stands in Redis of a series: the names of the keys, the bytes of a candle, and what is announced of a commit.

What is read may have been written by anybody: it is checked, down to each decimal, before it counts as ours.

All is MessagePack, of which the scripts on the server read a part. Each thing begins with a tag that is its version:
a later form gets another tag, and is told from this one by it.

A number of Binance is kept as an integer of hundred-millionths when its text is exactly what that integer gives back
(all of Binance's spot prices and volumes have eight decimals), and as its text when not. Nothing is rounded, and a
candle takes 88 bytes instead of 145 (measured on BTCUSDT minutes).
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from candlesync.core.candle import DECIMAL, LAST_TIME, Candle, Series
from candlesync.core.interval import Interval
from candlesync.core.position import LAST_REVISION, LIFE, Position
from candlesync.core.replica import Commit, Snapshot

FORMAT = b"1"
"""The version of a series' meta, and of how its parts belong together; the scripts know it too."""

ANNOUNCED = 16
"""With at most so many candles a commit is announced whole; followers read a larger one. A server drops a listener
that is 8 MB behind for a minute, and 500 series that begin with 1000 candles are 44 MB."""

_DIGITS = 19
"""Decimal digits that always fit into 64 bits."""
_CLOSED = 1
_FILLED = 2
_NO_OPEN_TIME = -1

_Number = Annotated[int, msgspec.Meta(ge=0)] | Annotated[str, msgspec.Meta(pattern=rf"\A{DECIMAL}\Z", max_length=41)]
_Time = Annotated[int, msgspec.Meta(ge=0, lt=LAST_TIME)]
Revision = Annotated[int, msgspec.Meta(ge=0, le=LAST_REVISION)]
Life = Annotated[str, msgspec.Meta(pattern=rf"\A{LIFE}\Z")]
NoLife = Annotated[str, msgspec.Meta(pattern=rf"\A(?:{LIFE})?\Z")]
"""A life, or the empty text where there is none."""
Name = Annotated[str, msgspec.Meta(max_length=1000)]
"""Of a node, or of a call of one."""

_life = re.compile(LIFE, re.ASCII).fullmatch
_count = re.compile(rb"[0-9]{1,18}").fullmatch


class Keys:
    """The names of all keys of one deployment. A symbol's are in one slot of a cluster: it stands in braces.

    So do ``nodes`` and ``streams`` in the names of what is of no symbol: no symbol has small letters.

    Nothing outside of the prefix is ever touched.
    """

    def __init__(self, prefix: str, database: int) -> None:
        """``database`` is part of the channels' names only: unlike keys, these are common to all databases."""
        if not prefix or "{" in prefix or "}" in prefix:
            raise ValueError("the prefix of the keys must not be empty, nor contain braces")
        self._prefix = prefix
        self._channels = f"{prefix}@{database}:"
        self.members = tuple(f"{prefix}:{{nodes}}:{part}" for part in ("until", "versions", "members"))
        """Who is there: ``attend.lua`` writes them."""
        self.until = f"{prefix}:{{streams}}:until"
        """Until when each node's streams count as present (a sorted set)."""
        self.assembly = f"{self._channels}{{nodes}}"
        """The channel on which it is announced that a node has come, has left, or describes itself anew."""
        self.pattern = re.sub(r"([*?\[\]\\])", r"\\\1", self._channels) + "{*}"
        """What to PSUBSCRIBE to, to hear all that is announced."""

    def fence(self, symbol: str) -> str:
        """The hash with a symbol's current fencing ``token``, and how many were ever given out (``claims``)."""
        return f"{self._prefix}:{{{symbol}}}:fence"

    def lease(self, symbol: str) -> str:
        """The string with the node that holds a symbol's lease; it expires with the lease."""
        return f"{self._prefix}:{{{symbol}}}:lease"

    def meta(self, series: Series) -> str:
        """The hash of all that a series is but its candles; ``commit.lua`` writes its fields."""
        return f"{self._prefix}:{{{series.symbol}}}:{series.interval}:meta"

    def candles(self, series: Series) -> str:
        """The list of a series' candles, ascending by open time."""
        return f"{self._prefix}:{{{series.symbol}}}:{series.interval}:candles"

    def present(self, node: str) -> str:
        """The hash of where a node's present streams are; it expires some minutes after the node."""
        return f"{self._prefix}:{{streams}}:present:{node}"

    def departed(self, key: str) -> str:
        """The list of where streams stopped that are known by ``key``; it expires after some minutes."""
        return f"{self._prefix}:{{streams}}:departed:{key}"

    def channel(self, symbol: str) -> str:
        """The channel on which all that becomes of a symbol is announced."""
        return f"{self._channels}{{{symbol}}}"

    def symbol(self, channel: bytes) -> str:
        """The symbol of a channel that `pattern` matches."""
        return channel[len(self._channels.encode()) + 1 : -1].decode()


class _Value(msgspec.Struct, array_like=True, tag=1):
    revision: Revision
    open_time: _Time
    flags: Annotated[int, msgspec.Meta(ge=0, le=_CLOSED + _FILLED)]
    # The scripts read up to here.
    open: _Number
    high: _Number
    low: _Number
    close: _Number
    volume: _Number
    length: _Time
    """Milliseconds from the open to the close time."""
    quote_volume: _Number
    trades: Annotated[int, msgspec.Meta(ge=0)]
    taker_base_volume: _Number
    taker_quote_volume: _Number
    unused: _Number


class Announcement(msgspec.Struct, array_like=True, tag=1):
    """What followers are told of a commit. One without ``values`` says only that there was one: it is to be read."""

    interval: str
    life: Life
    revision: Revision
    begins: bool
    replaces: NoLife
    id: Name
    """Of the one call that made the commit."""
    values: list[bytes]

    def commit(self) -> Commit | None:
        """The commit, or `None` when it was announced without its candles. Raises `ValueError`."""
        if not self.values:
            return None
        candles = tuple(decode_candle(value)[0] for value in self.values)
        return Commit(self.life, self.revision, candles, self.begins, self.replaces)


class _Terms(msgspec.Struct, array_like=True):
    """What ``commit.lua`` is told of a commit beside its candles."""

    life: str
    revision: int
    begins: bool
    replaces: str
    id: str
    may_begin: bool
    """Whether a series may begin with the first open time."""
    predecessors: list[int]
    """The open time just before each."""
    ordinals: list[int]
    """Of each open time."""


_encoder = msgspec.msgpack.Encoder()
_value_decoder = msgspec.msgpack.Decoder(_Value)
_ORIGINS = {interval: interval.floor(0) for interval in Interval}


def encode_candle(candle: Candle, revision: int) -> bytes:
    """The bytes of a candle that ``revision`` changed last."""
    return _encoder.encode(
        _Value(
            revision=revision,
            open_time=candle.open_time,
            flags=candle.closed * _CLOSED + candle.filled * _FILLED,
            open=_number(candle.open),
            high=_number(candle.high),
            low=_number(candle.low),
            close=_number(candle.close),
            volume=_number(candle.volume),
            length=candle.close_time - candle.open_time,
            quote_volume=_number(candle.quote_volume),
            trades=candle.trades,
            taker_base_volume=_number(candle.taker_base_volume),
            taker_quote_volume=_number(candle.taker_quote_volume),
            unused=_number(candle.unused),
        )
    )


def decode_candle(value: bytes) -> tuple[Candle, int]:
    """What `encode_candle` was given; raises `ValueError` for any other bytes."""
    made = _value_decoder.decode(value)
    candle = Candle(
        open_time=made.open_time,
        open=_text(made.open),
        high=_text(made.high),
        low=_text(made.low),
        close=_text(made.close),
        volume=_text(made.volume),
        close_time=made.open_time + made.length,
        quote_volume=_text(made.quote_volume),
        trades=made.trades,
        taker_base_volume=_text(made.taker_base_volume),
        taker_quote_volume=_text(made.taker_quote_volume),
        unused=_text(made.unused),
        closed=bool(made.flags & _CLOSED),
        filled=bool(made.flags & _FILLED),
    )
    return candle, made.revision


def encode_commit(series: Series, commit: Commit, identity: str) -> tuple[bytes, bytes, list[bytes]]:
    """The script's terms, the announcement, and the values of a commit; ``identity`` is that of one call."""
    interval = series.interval
    times = [candle.open_time for candle in commit.candles]
    terms = _Terms(
        life=commit.life,
        revision=commit.revision,
        begins=commit.begins,
        replaces=commit.replaces,
        id=identity,
        may_begin=bool(times) and interval.is_open_time(times[0]),
        predecessors=[_predecessor(interval, time) for time in times],
        ordinals=[_ordinal(interval, time) for time in times],
    )
    values = [encode_candle(candle, commit.revision) for candle in commit.candles]
    announcement = Announcement(
        interval=str(interval),
        life=commit.life,
        revision=commit.revision,
        begins=commit.begins,
        replaces=commit.replaces,
        id=identity,
        values=values if len(values) <= ANNOUNCED else [],
    )
    return _encoder.encode(terms), _encoder.encode(announcement), values


def decode_snapshot(series: Series, reply: object) -> Snapshot | None:
    """What ``read.lua`` gave of a series; raises `ValueError` when it is not what we write."""
    match reply:
        case None:
            return None
        case [bytes(form), bytes(life), bytes(revision), bytes(trimmed), list(values)] if form == FORMAT:
            candles = tuple(decode_candle(value) for value in values)
            position = _position(life, revision)
            snapshot = Snapshot(position.life, position.revision, _revision(trimmed), candles)
            snapshot.check(series)
            return snapshot
        case _:
            raise _unreadable(reply)


def decode_position(reply: object) -> Position | None:
    """What ``read.lua`` gave of where a series is; raises `ValueError` when it is not what we write."""
    match reply:
        case None:
            return None
        case [bytes(form), bytes(life), bytes(revision)] if form == FORMAT:
            return _position(life, revision)
        case _:
            raise _unreadable(reply)


def _position(life: bytes, revision: bytes) -> Position:
    name = life.decode(errors="replace")
    if not _life(name):
        raise ValueError(f"a life called {name!r:.50}")
    return Position(name, _revision(revision))


def _revision(text: bytes) -> int:
    # `int` takes more than we write, and what is longer than a position can be.
    if not _count(text):
        raise ValueError(f"a revision of {text!r:.50}")
    return int(text)


def _unreadable(reply: object) -> ValueError:
    match reply:
        case [bytes(form), *_] if form != FORMAT:
            kept = form[:20].decode(errors="replace")
            return ValueError(f"it is kept in format {kept}, of another version of candlesync")
        case _:
            return ValueError("an answer that no script of ours gives")


def _predecessor(interval: Interval, open_time: int) -> int:
    """The open time that ``open_time`` is the successor of; one that there is not, when it lies off the grid."""
    before = interval.previous(open_time)
    return before if interval.next(before) == open_time else _NO_OPEN_TIME


def _ordinal(interval: Interval, open_time: int) -> int:
    """How many open times after a fixed one: of one grid, neighbours differ by one."""
    count = interval.steps(_ORIGINS[interval], interval.floor(open_time))
    assert count is not None, "both are on the grid that `floor` knows"  # noqa: S101 - for mypy; it cannot happen
    return count


def _number(text: str) -> int | str:
    point = len(text) - 9
    if point < 1 or text[point] != "." or len(text) > _DIGITS + 1 or not text.isascii():
        return text
    whole, fraction = text[:point], text[point + 1 :]
    if not (whole.isdigit() and fraction.isdigit()) or (whole[0] == "0" and point > 1):
        return text
    return int(whole + fraction)


def _text(number: int | str) -> str:
    if isinstance(number, str):
        return number
    # Eight thousand of these are in a series: by slices it takes half the time that `divmod` and a format take.
    digits = str(number)
    return f"{digits[:-8]}.{digits[-8:]}" if len(digits) > 8 else f"0.{digits:0>8}"
