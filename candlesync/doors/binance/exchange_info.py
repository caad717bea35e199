"""``exchangeInfo``: Binance's whole answer, kept for a minute, and what it says of single symbols.

Bots ask for it at each start, and many for one symbol after the other: here that costs the weight of one question a
minute. All fields are Binance's own bytes.
"""

from __future__ import annotations

import gzip
from functools import partial
from math import inf

import msgspec
import trio

from candlesync.binance.public import PublicPath, Values
from candlesync.binance.rest import PassedOn
from candlesync.doors.binance.passing import Passing
from candlesync.errors import UpstreamUnavailable

BUSY = 256 * 1024
"""Bytes that are read or compressed in a worker thread: more would hold up the candles of others for milliseconds."""
_OLDEST = 3_600.0
"""Seconds for which the last answer is given when there is no newer one: after as many the list of symbols is old."""
_LEVEL = 4
"""Of gzip; zlib's usual 6 takes twice as long for a few parts in a hundred."""


class _Named(msgspec.Struct):
    symbol: str


class _Whole:
    """One whole answer, read: it has some 15 MB."""

    def __init__(self, answer: PassedOn) -> None:
        self.answer = answer
        self.compressed = gzip.compress(answer.body, _LEVEL, mtime=0)
        self._fields = msgspec.json.decode(answer.body, type=dict[str, msgspec.Raw])
        symbols = msgspec.json.decode(self._fields.get("symbols", b"[]"), type=list[msgspec.Raw])
        self._symbols = {msgspec.json.decode(raw, type=_Named).symbol: raw for raw in symbols}

    def of(self, names: list[str]) -> bytes | None:
        """The same answer with only these symbols, in its order; `None` if one of them is not in it."""
        wanted = set(names)
        found = [raw for name, raw in self._symbols.items() if name in wanted]
        if len(found) < len(names):
            return None
        return msgspec.json.encode({**self._fields, "symbols": found})


class ExchangeInfo:
    """Answers from the whole answer that is kept, or passes on what it cannot say."""

    def __init__(self, path: PublicPath, passing: Passing) -> None:
        self._path = path
        self._passing = passing
        self._lock = trio.Lock()
        """Held by whoever reads a new answer."""
        self._whole: _Whole | None = None
        self._asked_at = -inf
        """When the newest whole answer came (trio time)."""

    async def answer(self, values: Values, *, in_microseconds: bool) -> tuple[PassedOn, bytes | None]:
        """Binance's answer, and the same in gzip where that is at hand. Raises as `Passing.ask`."""
        names = _names(values)
        if names is None or in_microseconds:
            return await self._passing.ask(self._path, values, in_microseconds=in_microseconds), None
        answer = await self._ask()
        whole = await self._read(answer) if answer.status == 200 else None
        if whole is None:
            return answer, None
        if not names:
            return answer, whole.compressed
        body = whole.of(names)
        if body is not None:
            return PassedOn(200, body), None
        # Not every symbol is in the whole answer: Binance says it best.
        return await self._passing.ask(self._path, values), None

    async def _ask(self) -> PassedOn:
        try:
            answer = await self._passing.ask(self._path, {})
        except UpstreamUnavailable:
            # Bots start while Binance cannot be asked, too; its ``serverTime`` says how old this is.
            if self._whole is None or trio.current_time() >= self._asked_at + _OLDEST:
                raise
            return self._whole.answer
        self._asked_at = trio.current_time()
        return answer

    async def _read(self, answer: PassedOn) -> _Whole | None:
        """The answer, read; `None` when it is not as documented, and then it is only passed on."""
        async with self._lock:
            if self._whole is None or self._whole.answer is not answer:
                read = partial(_Whole, answer)
                try:
                    self._whole = await trio.to_thread.run_sync(read) if len(answer.body) > BUSY else read()
                except msgspec.MsgspecError:
                    return None
            return self._whole


def _names(values: Values) -> list[str] | None:
    """The symbols that are asked for, none for all; `None` for a question that the whole answer does not settle."""
    if not values:
        return []
    if set(values) == {"symbol"}:
        return [values["symbol"]]
    if set(values) == {"symbols"}:
        return msgspec.json.decode(values["symbols"], type=list[str]) or None
    return None
