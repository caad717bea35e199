"""Binance's REST API: klines and exchangeInfo, which candles need, and what is passed on for clients (`Rest.pass_on`).

Every question goes the same way: its weight is got from the budget, it waits for one of a few places, is sent, and its
answer's header is reported, whatever the status. What Binance may answer, and what is done about it:

====================  ==================================================================================
200, readable         the answer
200, unreadable       counted, logged, asked again; then `UnreadableAnswer`
429, 418              nobody asks for ``Retry-After`` seconds; then asked again, or `RateLimited` at once
                      when the caller has not that much patience
5xx, a timeout, a     asked again after a capped, jittered pause, a few times; then `UpstreamUnavailable`
broken connection
451                   asked again at once of the venue's next host, if there is one; else `LocationRefused`
403                   `UpstreamUnavailable`: Binance's firewall
400 with -1121        `UnknownSymbol`
another 4xx           what is passed on: the answer, if it is in Binance's own form, or says that there is no such
                      path (404)
anything else         `UpstreamUnavailable` with what Binance says
====================  ==================================================================================

Sources: developers.binance.com, Spot REST API, "General API information", "HTTP return codes", "LIMITS",
"Market data endpoints"; and `candlesync.binance.venue` for what differs between the venues.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import httpx
import msgspec
import structlog
import trio

import candlesync
from candlesync.binance.hosts import Hosts
from candlesync.binance.listing import ExchangeInfo, parse_exchange_info
from candlesync.binance.parse import parse_error, parse_rows, parse_server_time
from candlesync.binance.venue import SPOT, Venue
from candlesync.binance.weight import Spend, WeightBudget, WeightSettings
from candlesync.core.candle import Candle, Series
from candlesync.core.histogram import MOMENTS, Histogram
from candlesync.errors import LocationRefused, UnknownSymbol, UnreadableAnswer, UpstreamUnavailable

TIME_WEIGHT = 1
"""Weight of a time request, on every venue (Binance)."""

_USED_WEIGHT = "X-MBX-USED-WEIGHT-1M"
_ERROR_BODY = 64 * 1024
"""Bytes of a refusal that are read; Binance's own have some hundred, a proxy's page may have any number."""
_BAN_429 = 10.0
_BAN_418 = 120.0
"""Seconds of a ban that does not say how long it is. Binance bans for 2 minutes at least."""
_BAN_SHORTEST = 1.0
"""Seconds; an answer of 429 with ``Retry-After: 0`` must not become a tight loop."""
_BAN_LONGEST = 3 * 86_400.0
"""Seconds; the longest ban that Binance documents."""
_INVALID_SYMBOL = -1121

_log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RestSettings:
    """How Binance's REST API is asked. Times are seconds, sizes are bytes."""

    venue: Venue = SPOT
    base_url: str = ""
    """The part before the venue's ``/api/v3/klines`` or the like. Empty: the venue's own hosts."""
    connect_timeout: float = 5.0
    """For a connection with TLS, and for a free one of ours: a few round trips around the world."""
    read_timeout: float = 10.0
    """Without a byte; Binance gives its own backends 10 s before it answers with an error (-1007)."""
    answer_timeout: float = 30.0
    """For one attempt as a whole: an answer that comes in drops must not use up all the patience."""
    attempts: int = 4
    """How often a question is asked before it is given up; waiting out a ban does not count."""
    backoff_first: float = 0.5
    """The longest pause after the first failure; it doubles with each further one."""
    backoff_cap: float = 8.0
    """The longest pause of all. Each pause is a random part, from half to the whole, of the longest it may be."""
    concurrency: int = 8
    """Requests at once: more gain nothing, and each may be counted before we know that the weight is used up."""
    page_limit: int = 1_000
    """Rows that one klines answer is asked for at most: what all venues allow, and the cheapest by the row on each."""
    klines_bytes: int = 4 * 1024 * 1024
    """Of a klines answer at most; 1,000 rows have some 170 KB."""
    exchange_info_bytes: int = 64 * 1024 * 1024
    """Of an exchangeInfo answer at most; the whole list had some 15 MB in 2025."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Where to ask, the best first. Who names a host is never sent to another one."""
        return (self.base_url,) if self.base_url else self.venue.rest_urls


@dataclass(frozen=True, slots=True)
class RestStatistics:
    """What has been asked since the start."""

    requests: int
    """Requests sent, repeated ones included."""
    retries: int
    """Of them, how many repeated a question."""
    failures: Mapping[str, int]
    """Failures by kind: timeout, connection, server (5xx), rate_limited (429, 418), location (451), refused (other
    statuses), unreadable, impatience (the caller's patience ended first)."""
    last_latency: float | None
    """Seconds that the latest whole answer took; `None` before the first."""
    latencies: Histogram
    """Seconds that each whole answer took, from the moment of sending."""
    url: str
    """The host that is asked now: another than the first when that one has refused the location."""

    @property
    def unreadable(self) -> int:
        """Answers that were not what Binance documents."""
        return self.failures.get("unreadable", 0)


@dataclass(frozen=True, slots=True)
class _Question(Generic[T]):
    path: str
    params: dict[str, str | int]
    weight: int
    longest: int
    """Bytes of a good answer at most."""
    read: Callable[[bytes], T]
    """Raises `UnreadableAnswer`."""
    refused: Callable[[int, bytes], T] | None = None
    """What a refusal in Binance's own form is the answer to; `None`: it is an error."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Answer:
    url: str
    """Of the host that gave it."""
    status: int
    retry_after: float | None
    body: bytes


class PassedOn(msgspec.Struct, frozen=True):
    """What Binance answered to a question that was passed on."""

    status: int
    body: bytes


class _Fault(Exception):
    """An attempt failed in a way that another may not."""


def open_client(settings: RestSettings) -> httpx.AsyncClient:
    """A client for `Rest`; the caller closes it. Raises `ValueError` for a base URL that is none."""
    url = httpx.URL(settings.urls[0])
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        before = settings.venue.prefix
        raise ValueError(f"{settings.urls[0]!r}: the REST URL is http or https, a host, and the path before {before}")
    return httpx.AsyncClient(
        base_url=url,
        headers={"User-Agent": f"candlesync/{candlesync.__version__}", "Accept": "application/json"},
        timeout=httpx.Timeout(settings.read_timeout, connect=settings.connect_timeout, pool=settings.connect_timeout),
        limits=httpx.Limits(max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency),
        # A redirect leads to a host that nobody configured.
        follow_redirects=False,
    )


class Rest:
    """Asks Binance over a client that the caller owns, within a budget that others may share.

    Each method takes its caller's ``patience``, the seconds in which it answers or raises, and beside what its
    docstring says raises `UpstreamUnavailable` or one of its subclasses (see the module).
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
        self._client = client
        self._settings = settings or RestSettings()
        self.venue = self._settings.venue
        self.budget = budget or WeightBudget(WeightSettings(limit=self.venue.weight_limit))
        self._hosts = Hosts(self._settings.urls)
        self._jitter = jitter
        self._places = trio.CapacityLimiter(self._settings.concurrency)
        self._requests = 0
        self._retries = 0
        self._failures: Counter[str] = Counter()
        self._last_latency: float | None = None
        self._latencies = Histogram(MOMENTS)
        self._is_location_told = False

    def statistics(self) -> RestStatistics:
        """What has been asked until now."""
        failures, url = dict(self._failures), self._hosts.url
        return RestStatistics(self._requests, self._retries, failures, self._last_latency, self._latencies, url)

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
        question = _Question(self.venue.path("klines"), params, weight, self._settings.klines_bytes, read)
        return await self._ask(question, patience)

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
        question = _Question(self.venue.path("time"), {}, TIME_WEIGHT, _ERROR_BODY, parse_server_time)
        return await self._ask(question, patience)

    async def exchange_info(self, *, patience: float = 30.0) -> ExchangeInfo:
        """What Binance lists; the budget takes over the limit that the answer tells."""
        path, weight = self.venue.path("exchangeInfo"), self.venue.exchange_info_weight
        question = _Question(path, {}, weight, self._settings.exchange_info_bytes, parse_exchange_info)
        info = await self._ask(question, patience)
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

        question = _Question(path, dict(params), weight, longest, read, PassedOn, headers or {})
        return await self._ask(question, patience)

    async def _ask(self, question: _Question[T], patience: float) -> T:
        deadline = trio.current_time() + patience
        failed: list[Exception] = []
        with trio.move_on_at(deadline):
            return await self._persist(question, deadline, failed)
        self._failures["impatience"] += 1
        self.budget.failed(f"nothing within {patience:g} s")
        what_happened = f"; the last attempt: {failed[-1]}" if failed else ""
        raise UpstreamUnavailable(
            f"no usable answer to {question.path} within {patience:g} s{what_happened}",
            retry_after=self.budget.retry_after,
        )

    async def _persist(self, question: _Question[T], deadline: float, failed: list[Exception]) -> T:
        """Ask until there is an answer or none can be hoped for; each failure is noted in ``failed``."""
        sent_before = False
        while True:
            try:
                answer = await self._send_in_turn(question, deadline, repeated=sent_before)
                sent_before = True
                if answer.status in (418, 429):
                    self._obey(answer)
                    continue  # the budget now makes us wait, or raises RateLimited
                if answer.status == 451 and self._hosts.refused(answer.url):
                    self._failures["location"] += 1
                    continue  # of the next host; there are few, and none is asked again
                result = self._judge(question, answer)
            except (_Fault, UnreadableAnswer) as failure:
                sent_before = True
                self.budget.failed(str(failure))
                failed.append(failure)
                pause = self._pause(len(failed))
                if len(failed) >= self._settings.attempts or trio.current_time() + pause >= deadline:
                    kind = UnreadableAnswer if isinstance(failure, UnreadableAnswer) else UpstreamUnavailable
                    raise kind(f"{question.path} failed {len(failed)} times: {failure}") from failure
                _log.info("asking Binance again", path=question.path, failure=str(failure), pause=round(pause, 2))
            else:
                self.budget.answered()
                return result
            await trio.sleep(pause)

    def _pause(self, failures: int) -> float:
        longest = min(self._settings.backoff_cap, self._settings.backoff_first * 2.0 ** (failures - 1))
        return longest * (1 + self._jitter()) / 2

    async def _send_in_turn(self, question: _Question[T], deadline: float, *, repeated: bool) -> _Answer:
        while True:
            with await self.budget.spend(question.weight, patience=deadline - trio.current_time()) as spend:
                async with self._places:
                    if self.budget.banned_for:
                        continue  # told while we waited for a place: to the back of the queue, the weight unspent
                    self._retries += repeated
                    return await self._send(question, spend)

    async def _send(self, question: _Question[T], spend: Spend) -> _Answer:
        self._requests += 1
        started = trio.current_time()
        url = self._hosts.url
        # The client has the first host as its base; a whole URL goes to another one.
        target = question.path if self._hosts.is_first else url + question.path
        try:
            with trio.fail_after(self._settings.answer_timeout):
                spend.sent()
                async with self._client.stream(
                    "GET", target, params=question.params, headers=question.headers
                ) as response:
                    spend.report(_number(response.headers.get(_USED_WEIGHT)))
                    body = await self._body(response, question)
        except (trio.TooSlowError, httpx.TimeoutException) as error:
            self._failures["timeout"] += 1
            raise _Fault(f"timed out after {trio.current_time() - started:.1f} s ({type(error).__name__})") from error
        except httpx.RequestError as error:
            self._failures["connection"] += 1
            raise _Fault(f"connection failed ({type(error).__name__}: {error})") from error
        self._last_latency = trio.current_time() - started
        self._latencies.observe(self._last_latency)
        retry_after = _number(response.headers.get("Retry-After"))
        return _Answer(url, response.status_code, retry_after, body)

    async def _body(self, response: httpx.Response, question: _Question[T]) -> bytes:
        good = response.status_code == 200
        longest = question.longest if good else _ERROR_BODY
        chunks = []
        size = 0
        with trio.CancelScope() as scope:
            async for chunk in response.aiter_bytes():
                size += len(chunk)
                if size > longest:
                    # Not `break`: httpx reads through seven nested generators, which a break leaves to the garbage
                    # collector. Cancelled, their next read unwinds them all; Response.aclose then ends the connection.
                    scope.cancel()
                else:
                    chunks.append(chunk)
        if good and size > longest:
            self._unreadable(question, f"more than {longest} bytes")
            raise UnreadableAnswer(f"an answer of more than {longest} bytes")
        return b"".join(chunks)

    def _judge(self, question: _Question[T], answer: _Answer) -> T:
        """What an answer means: its content, or the error that the table in the module says."""
        if answer.status == 200:
            try:
                return question.read(answer.body)
            except UnreadableAnswer as error:
                self._unreadable(question, str(error))
                raise
        refusal = parse_error(answer.body)
        said = f"{answer.status}" + (f" ({refusal.code}: {refusal.msg})" if refusal else "")
        if answer.status >= 500:
            self._failures["server"] += 1
            raise _Fault(f"Binance answered {said}")
        if answer.status == 451:
            raise self._location_refused()
        is_its_own = answer.status == 404 or (refusal is not None and 400 <= answer.status < 500)
        if question.refused is not None and is_its_own and answer.status != 403:
            return question.refused(answer.status, answer.body)
        self._failures["refused"] += 1
        if answer.status == 400 and refusal is not None and refusal.code == _INVALID_SYMBOL:
            raise UnknownSymbol(f"Binance does not list {question.params.get('symbol')}")
        if answer.status == 403:
            raise UpstreamUnavailable(f"Binance's firewall refused {question.path}: {said}")
        raise UpstreamUnavailable(f"Binance refused {question.path}: {said}")

    def _unreadable(self, question: _Question[T], error: str) -> None:
        self._failures["unreadable"] += 1
        _log.warning("Binance gave an unreadable answer", path=question.path, params=question.params, error=error)

    def _obey(self, answer: _Answer) -> None:
        self._failures["rate_limited"] += 1
        unsaid = _BAN_418 if answer.status == 418 else _BAN_429
        seconds = unsaid if answer.retry_after is None else answer.retry_after
        seconds = min(max(seconds, _BAN_SHORTEST), _BAN_LONGEST)
        if not self.budget.banned_for:  # all requests in flight are told the same: one line is enough
            _log.warning("Binance asked us to wait", status=answer.status, seconds=seconds)
        self.budget.ban(seconds)

    def _location_refused(self) -> LocationRefused:
        message = "Binance does not serve the location of this machine (451)"
        if self.venue is SPOT and self._hosts.is_first:  # there was no other one to go to: this one was asked for
            message += (
                f". Its market data needs no account at {SPOT.rest_urls[-1]} (REST) and {SPOT.stream_urls[-1]} "
                "(streams): set --rest-url and --stream-url to them, or neither"
            )
        if not self._is_location_told:  # it stays refused: once is enough
            _log.error("location refused", message=message)
        self._is_location_told = True
        self._failures["location"] += 1
        return LocationRefused(message)


def _number(header: str | None) -> int | None:
    """A header's whole number; `None` when it is absent or none. ``Retry-After`` may also be a date: not read."""
    if header is not None and header.isascii() and header.isdigit() and len(header) <= 9:
        return int(header)
    return None
