"""Binance's REST API: klines and exchangeInfo, which candles need, and what is passed on for clients (`Rest.pass_on`).

How each question gets its answer, and what is done about a refusal, is in ``binance.asking``.

Sources: developers.binance.com, Spot REST API, "Market data endpoints"; and `candlesync.binance.venue` for what differs
between the venues.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import httpx
import msgspec
import structlog
import trio

from candlesync.binance.asking import REFUSAL_BYTES, Asking, Question, RestStatistics
from candlesync.binance.listing import ExchangeInfo, parse_exchange_info
from candlesync.binance.parse import parse_rows, parse_server_time
from candlesync.binance.rest_client import RestSettings
from candlesync.binance.weight import WeightBudget, WeightSettings
from candlesync.core.candle import Candle, Series
from candlesync.errors import UnreadableAnswer

TIME_WEIGHT = 1
"""Weight of a time request, on every venue (Binance)."""

_log = structlog.get_logger(__name__)


class PassedOn(msgspec.Struct, frozen=True):
    """What Binance answered to a question that was passed on."""

    status: int
    body: bytes


class Rest:
    """Asks Binance over a client that the caller owns, within a budget that others may share.

    Each method takes its caller's ``patience``, the seconds in which it answers or raises, and beside what its
    docstring says raises `UpstreamUnavailable` or one of its subclasses (see ``binance.asking``).
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        budget: WeightBudget | None = None,
        settings: RestSettings | None = None,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``jitter`` gives numbers from 0 up to 1, for the pauses between attempts."""
        self._settings = settings or RestSettings()
        self.venue = self._settings.venue
        self.budget = budget or WeightBudget(WeightSettings(limit=self.venue.weight_limit))
        self._asking = Asking(client, self.budget, self._settings, jitter)

    def statistics(self) -> RestStatistics:
        """What has been asked until now."""
        return self._asking.statistics()

    async def klines(
        self,
        series: Series,
        *,
        start_time: int | None = None,
        end_time: int | None = None,
        limit: int = 1_000,
        patience: float = 30.0,
    ) -> tuple[Candle, ...]:
        """One page: the candles that open from ``start_time`` to ``end_time`` (UNIX ms, both inclusive), ascending.

        With ``start_time`` the oldest ``limit`` of them, without it the newest. All are closed but the last one of the
        page (invariant 5). Raises `UnknownSymbol`; `ValueError` for a limit that Binance does not know.
        """
        if not 1 <= limit <= self._settings.page_limit:
            raise ValueError(f"limit {limit}: 1 to {self._settings.page_limit}")
        params: dict[str, str | int] = {"symbol": series.symbol, "interval": str(series.interval), "limit": limit}
        if start_time is not None:
            params["startTime"] = start_time
        if end_time is not None:
            params["endTime"] = end_time

        def read(body: bytes) -> tuple[Candle, ...]:
            rows = parse_rows(body)
            if len(rows) > limit:
                raise UnreadableAnswer(f"klines answer: {len(rows)} rows where {limit} were asked for")
            # They ascend, so the first and the last speak for all.
            if rows and start_time is not None and rows[0].open_time < start_time:
                raise UnreadableAnswer(f"klines answer: open time {rows[0].open_time} before startTime {start_time}")
            if rows and end_time is not None and rows[-1].open_time > end_time:
                raise UnreadableAnswer(f"klines answer: open time {rows[-1].open_time} after endTime {end_time}")
            return rows

        weight = self.venue.klines_weight(limit)
        question = Question(self.venue.path("klines"), params, weight, self._settings.klines_bytes, read)
        return await self._asking.ask(question, patience)

    async def newest(self, series: Series, count: int, *, patience: float = 30.0) -> tuple[Candle, ...]:
        """The newest ``count`` candles (from 1), ascending, the last one forming; fewer when there are no more.

        Pages overlap by one row: a page's newest row is never final in it (invariant 5), and is in the page after it.
        Raises `UnknownSymbol`; `UnreadableAnswer` when two pages do not join. Holes of the exchange are left as
        they are.
        """
        deadline = trio.current_time() + patience
        limit = min(count, self._settings.page_limit)
        candles = await self.klines(series, limit=limit, patience=patience)
        short = len(candles) < limit
        while len(candles) < count and not short:
            joint = candles[0].open_time
            limit = min(count - len(candles) + 1, self._settings.page_limit)
            left = max(0.0, deadline - trio.current_time())
            page = await self.klines(series, end_time=joint, limit=limit, patience=left)
            if not page or page[-1].open_time != joint:
                last = page[-1].open_time if page else "nothing"
                raise UnreadableAnswer(f"klines of {series}: asked for the page up to {joint}, and it ends with {last}")
            candles = page[:-1] + candles
            short = len(page) < limit
        return candles

    async def server_time(self, *, patience: float = 30.0) -> int:
        """What time Binance has, UNIX ms; as old as the answer's way here."""
        question = Question(self.venue.path("time"), {}, TIME_WEIGHT, REFUSAL_BYTES, parse_server_time)
        return await self._asking.ask(question, patience)

    async def exchange_info(self, *, patience: float = 30.0) -> ExchangeInfo:
        """What Binance lists; the budget takes over the limit that the answer tells."""
        path, weight = self.venue.path("exchangeInfo"), self.venue.exchange_info_weight
        question = Question(path, {}, weight, self._settings.exchange_info_bytes, parse_exchange_info)
        info = await self._asking.ask(question, patience)
        if info.weight_limit is not None:
            self.budget.resize(info.weight_limit)
        if info.unreadable:
            _log.warning("symbols left out that are not as documented", symbols=info.unreadable)
        return info

    async def pass_on(
        self,
        path: str,
        params: Mapping[str, str],
        *,
        weight: int,
        longest: int,
        headers: Mapping[str, str] | None = None,
        patience: float = 30.0,
    ) -> PassedOn:
        """Ask what a client asks (see ``binance.public``, where ``path`` and ``weight`` come from), for its answer as
        it is: JSON of at most ``longest`` bytes, or a refusal, which is no error here.
        """

        def read(body: bytes) -> PassedOn:
            try:
                msgspec.json.decode(body, type=msgspec.Raw)
            except msgspec.DecodeError as error:
                raise UnreadableAnswer(f"answer of {path}: no JSON ({error})") from error
            return PassedOn(200, body)

        question = Question(path, dict(params), weight, longest, read, PassedOn, headers or {})
        return await self._asking.ask(question, patience)
