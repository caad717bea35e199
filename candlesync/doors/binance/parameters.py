"""The parameters of a question, checked as Binance checks them, and in its order.

    a repeated one (-1101), a mandatory one that is not there (-1102), one that the path does not know (-1104), an
    empty one (-1105), then each value in the order of the documentation: its characters (-1100), its size (-1108), a
    symbol that is named twice (-1151)

The order is that of recorded answers (``../shared/data/rest/binance_error_bodies.json``): who leaves ``symbol`` out and
sends an unknown name is told of the symbol, and who sends an empty ``interval`` that it is empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl

import msgspec

from candlesync.binance.public import Kind, PublicApi, PublicPath
from candlesync.core.interval import MINUTE, Interval
from candlesync.doors.binance.errors import bad_request, illegal, invalid, malformed

USUAL = 500
"""Rows of an answer when no ``limit`` is sent."""

_LARGEST = 2**63 - 1
_MICROSECONDS_FROM = 10**14
"""Times are taken in milliseconds and microseconds alike (spot, since 2025-01), and told apart by their size: 10¹⁴ ms
is the year 5138, 10¹⁴ µs is 1973."""
_ZONE = re.compile(r"([+-]?)([0-9]{1,2})(?::([0-9]{2}))?")


class KlineQuestion(msgspec.Struct, frozen=True):
    """Which rows of a series are asked for. Times are UNIX milliseconds, both inclusive."""

    symbol: str
    interval: Interval | None
    """`None`: there is no such interval."""
    start: int | None
    end: int | None
    limit: int
    is_utc: bool
    """Whether the bars are those of UTC. In a zone that is whole hours off, those of an hour and less are, too."""


def read_parameters(query: bytes, path: PublicPath) -> dict[str, str]:
    """The parameters of ``path`` that a query string has, by name; raises `BinanceRefusal`."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="utf-8", errors="replace")
    values = dict(pairs)
    if len(values) < len(pairs):
        raise bad_request(-1101, "Duplicate values for a parameter detected.")
    for name in path.mandatory:
        if name not in values:
            raise malformed(name)
    known = [name for name in path.parameters if name in values]
    if len(known) < len(values):
        raise bad_request(
            -1104,
            f"Not all sent parameters were read; read '{len(known)}' parameter(s) but was sent '{len(values)}'.",
        )
    _check_values({name: values[name] for name in known}, path)
    return values


def _check_values(values: dict[str, str], path: PublicPath) -> None:
    for name, value in values.items():
        if not value:
            raise bad_request(-1105, f"Parameter '{name}' was empty.")
    for name, value in values.items():
        kind = path.parameters[name]
        if kind is Kind.TIME_ZONE:
            if _offset(value) is None:
                raise invalid(name)
        elif not kind.allows(value):
            raise illegal(name, kind.legal)
        if kind is Kind.NUMBER and int(value) > _LARGEST:
            raise bad_request(-1108, f"Parameter '{name}' overflowed.")
        if kind is Kind.SYMBOLS and value.count(",") + 1 > len(set(value[1:-1].split(","))):
            raise bad_request(-1151, "Symbol is present multiple times in the list.")


def read_kline_question(values: dict[str, str], api: PublicApi) -> KlineQuestion:
    """What the checked parameters of klines ask for; raises `BinanceRefusal`."""
    limit, most = int(values.get("limit", USUAL)), api.venue.page_limit
    if not api.is_limit_capped and not 1 <= limit <= most:
        raise invalid("limit")  # recorded of futures
    if limit == 0:
        raise malformed("limit")  # recorded of spot, as is that who asks for more gets as many as there may be
    try:
        interval = Interval(values["interval"])
    except ValueError:
        interval = None
    start, end = values.get("startTime"), values.get("endTime")
    return KlineQuestion(
        values["symbol"],
        interval,
        # A candle opens at a whole millisecond: the first one after the start, the last one before the end.
        None if start is None else -_milliseconds(-int(start), api),
        None if end is None else _milliseconds(int(end), api),
        min(limit, most),
        # A grid that is moved by whole steps of its own is the same one.
        interval is None or interval.steps(0, (_offset(values.get("timeZone", "0")) or 0) * MINUTE) is not None,
    )


def wants_microseconds(units: Iterable[str]) -> bool:
    """What ``X-MBX-TIME-UNIT``, or ``timeUnit`` of a stream's URL, says each time that it is sent; raises
    `BinanceRefusal` for anything else."""
    sent = {unit.lower() if unit in {unit.lower(), unit.upper()} else "" for unit in units}
    if not sent <= {"microsecond", "millisecond"} or len(sent) > 1:
        raise bad_request(-1194, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND.")
    return sent == {"microsecond"}


def _milliseconds(time: int, api: PublicApi) -> int:
    return time // 1000 if api.has_microseconds and abs(time) >= _MICROSECONDS_FROM else time


def _offset(zone: str) -> int | None:
    """Minutes east of UTC, from -12:00 to +14:00; `None` for what is no time zone."""
    # A plus sign that is not escaped is a space in a query string.
    parts = _ZONE.fullmatch(zone.replace(" ", "+", 1) if zone.startswith(" ") else zone)
    if parts is None or not zone.isascii():
        return None
    sign, hours, minutes = parts.groups()
    offset = (int(hours) * 60 + int(minutes or 0)) * (-1 if sign == "-" else 1)
    return offset if int(minutes or 0) < 60 and -12 * 60 <= offset <= 14 * 60 else None
