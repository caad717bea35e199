"""What nodes tell each other, as bytes: all that is announced, and what each says of itself.

MessagePack with tags that are versions, as all that stands in Redis (``store.codec``). Nodes of another version may be
there at the same time, and other people's programs may know our channels: what cannot be read is a `ValueError`.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha1

import msgspec

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.placement import Member
from candlesync.core.position import Position
from candlesync.core.report import Release, Report, SeriesReport
from candlesync.core.sync import State
from candlesync.store.base import Audience
from candlesync.store.codec import Announcement, Keys, Name, NoLife, Revision


class _Report(msgspec.Struct, array_like=True, tag=2):
    owner: Name
    series: list[tuple[str, str, NoLife, Revision]]
    """Interval, state, life, revision."""


class _Release(msgspec.Struct, array_like=True, tag=3):
    owner: Name
    successor: Name


class _Assembled(msgspec.Struct, array_like=True, tag=4):
    pass


class _Member(msgspec.Struct, array_like=True, tag=1):
    name: Name
    wants: dict[Name, list[str]]
    owns: tuple[Name, ...]


_encoder = msgspec.msgpack.Encoder()
_member_encoder = msgspec.msgpack.Encoder(order="deterministic")  # the same description has the same version
_decoder = msgspec.msgpack.Decoder(Announcement | _Report | _Release | _Assembled)
_member_decoder = msgspec.msgpack.Decoder(_Member)

ASSEMBLED = _encoder.encode(_Assembled())
"""A node has come, has left, or describes itself anew."""


def encode_report(report: Report) -> bytes:
    """The bytes by which an owner's report is announced."""
    series = [
        (str(interval), one.state.value, one.position.life, one.position.revision)
        for interval, one in report.series.items()
    ]
    return _encoder.encode(_Report(report.owner, series))


def encode_release(release: Release) -> bytes:
    """The bytes by which it is announced that a symbol was given up."""
    return _encoder.encode(_Release(release.owner, release.successor))


def decode_announced(keys: Keys, channel: bytes, announced: bytes) -> Callable[[Audience], None]:
    """What to tell an audience, once it is in Trio's thread; raises `ValueError` for what is not ours to read."""
    try:
        message = _decoder.decode(announced)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    is_of_symbol = channel != keys.assembly.encode()
    match message:
        case Announcement() if is_of_symbol:
            return _committed(Series(keys.symbol(channel), Interval(message.interval)), message)
        case _Report() if is_of_symbol:
            symbol, report = keys.symbol(channel), _report(message)
            return lambda audience: audience.reported(symbol, report)
        case _Release() if is_of_symbol:
            symbol, release = keys.symbol(channel), Release(message.owner, message.successor)
            return lambda audience: audience.released(symbol, release)
        case _Assembled() if not is_of_symbol:
            return lambda audience: audience.assembled()
        case _:
            raise ValueError("it belongs on another channel")


def encode_member(member: Member) -> tuple[str, bytes]:
    """What a node says of itself, and the version of that: another one for other bytes."""
    wants = {symbol: list(map(str, intervals)) for symbol, intervals in member.wants.items()}
    said = _member_encoder.encode(_Member(member.name, wants, member.owns))
    return sha1(said, usedforsecurity=False).hexdigest(), said


def decode_member(said: bytes) -> Member:
    """What a node says of itself; raises `ValueError` for what is not ours to read."""
    try:
        made = _member_decoder.decode(said)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    wants = {symbol: tuple(map(Interval, intervals)) for symbol, intervals in made.wants.items()}
    return Member(made.name, wants, made.owns)


def _committed(series: Series, message: Announcement) -> Callable[[Audience], None]:
    commit = message.commit()
    if commit is not None:
        return lambda audience: audience.committed(series, commit)
    position = Position(message.life, message.revision)
    return lambda audience: audience.moved(series, position)


def _report(message: _Report) -> Report:
    return Report(
        message.owner,
        {
            Interval(interval): SeriesReport(State(state), Position(life, revision))
            for interval, state, life, revision in message.series
        },
    )
