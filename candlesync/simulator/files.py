"""Kline files: the JSON rows of the REST API, or the CSV of Binance's public archive (data.binance.vision).

Either may be gzipped or zipped. The archive's CSV has twelve fields in the order of the REST row, with or without a
header, in milliseconds (in microseconds since 2025). Dates in place of the open time are taken as UTC.
"""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from candlesync.simulator.bars import Row, bar_of

_MICROSECONDS_FROM = 10**14
"""A time as large as this is in microseconds: in milliseconds it would be the year 5138."""


class UnreadableFile(ValueError):
    """A kline file is not what its module describes; the message says which and where."""


def read_rows(path: Path) -> list[Row]:
    """The rows of a kline file in the order of time. Raises `UnreadableFile`, and `OSError` as reading does."""
    rows: list[Row] = []
    for content in _contents(path):
        try:
            rows += _json_rows(content) if content.lstrip()[:1] == b"[" else _csv_rows(content)
        except (ValueError, msgspec.DecodeError) as error:
            raise UnreadableFile(f"{path}: {error}") from error
    if not rows:
        raise UnreadableFile(f"{path}: no klines")
    return joined(rows)


def joined(rows: Iterable[Row]) -> list[Row]:
    """Rows of several files in the order of time; of two with the same open time the later one counts."""
    return [row for _, row in sorted({row.open_time: row for row in rows}.items())]


def _contents(path: Path) -> Iterator[bytes]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield archive.read(name)
    elif path.suffix == ".gz":
        yield gzip.decompress(path.read_bytes())
    else:
        yield path.read_bytes()


def _json_rows(content: bytes) -> Iterator[Row]:
    for number, row in enumerate(msgspec.json.decode(content, type=list[Row])):
        yield _checked(row, f"row {number}")


def _csv_rows(content: bytes) -> Iterator[Row]:
    for number, fields in enumerate(csv.reader(io.StringIO(content.decode("ascii"))), 1):
        if not fields or (number == 1 and not fields[0][:1].isdigit()):
            continue  # an empty line, or the header
        if len(fields) != 12:
            raise ValueError(f"line {number}: {len(fields)} fields instead of 12")
        open_time, open_, high, low, close, volume, close_time, quote, trades, taker, taker_quote, unused = fields
        times = _time(open_time), _time(close_time)
        row = Row(times[0], open_, high, low, close, volume, times[1], quote, int(trades), taker, taker_quote, unused)
        yield _checked(row, f"line {number}")


def _checked(row: Row, where: str) -> Row:
    try:
        bar_of(row, first_trade=0)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if row.close_time < row.open_time or row.trades < 0:
        raise ValueError(f"{where}: closes before it opens, or has less than no trades")
    return row


def _time(text: str) -> int:
    if not text.isdecimal():
        return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
    time = int(text)
    return time // 1000 if time >= _MICROSECONDS_FROM else time
