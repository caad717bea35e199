"""How a question to Binance's REST API gets its answer, whatever the question is.

Each goes the same way: its weight is got from the budget, it waits for one of a few places, is sent, and its answer's
header is reported, whatever the status. What Binance may answer, and what is done about it:

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

Sources: developers.binance.com, Spot REST API, "General API information", "HTTP return codes", "LIMITS".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import httpx
import structlog
import trio

from candlesync.binance.hosts import Hosts
from candlesync.binance.parse import parse_error
from candlesync.binance.rest_client import RestSettings
from candlesync.binance.venue import SPOT
from candlesync.binance.weight import Spend, WeightBudget
from candlesync.core.histogram import MOMENTS, Histogram
from candlesync.errors import LocationRefused, UnknownSymbol, UnreadableAnswer, UpstreamUnavailable

REFUSAL_BYTES = 64 * 1024
"""Of a refusal so many are read; Binance's own have some hundred, a proxy's page may have any number."""

_USED_WEIGHT = "X-MBX-USED-WEIGHT-1M"
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
class RestStatistics:
    """What has been asked since the start."""

    requests: int
    """Requests sent, repeated ones included."""
    retries: int
    """Of them, how many repeated a question."""
    failures: Mapping[str, int]
    """Failures by kind: timeout, connection, server (5xx), rate_limited (429, 418), location (451), refused (other
    statuses), unreadable, impatience (the caller's patience ended first)."""
    latencies: Histogram
    """Seconds that each whole answer took, from the moment of sending."""
    url: str
    """The host that is asked now: another than the first when that one has refused the location."""

    @property
    def unreadable(self) -> int:
        """Answers that were not what Binance documents."""
        return self.failures.get("unreadable", 0)


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """What is asked, and how its answer is read."""

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


class _Fault(Exception):
    """An attempt failed in a way that another may not."""


class Asking:
    """Asks over a client that its owner closes, within a budget that others may share."""

    def __init__(
        self, client: httpx.AsyncClient, budget: WeightBudget, settings: RestSettings, jitter: Callable[[], float]
    ) -> None:
        """``jitter`` gives numbers from 0 up to 1, for the pauses between attempts."""
        self._client = client
        self._budget = budget
        self._settings = settings
        self._hosts = Hosts(settings.urls)
        self._jitter = jitter
        self._places = trio.CapacityLimiter(settings.concurrency)
        self._requests = 0
        self._retries = 0
        self._failures: Counter[str] = Counter()
        self._latencies = Histogram(MOMENTS)
        self._is_location_told = False

    def statistics(self) -> RestStatistics:
        """What has been asked until now."""
        failures, url = dict(self._failures), self._hosts.url
        return RestStatistics(self._requests, self._retries, failures, self._latencies, url)

    async def ask(self, question: Question[T], patience: float) -> T:
        """The answer, within ``patience`` seconds. Raises `UpstreamUnavailable` or one of its subclasses, or
        `UnknownSymbol`, as the table in the module says.
        """
        deadline = trio.current_time() + patience
        failed: list[Exception] = []
        with trio.move_on_at(deadline):
            return await self._persist(question, deadline, failed)
        self._failures["impatience"] += 1
        self._budget.failed(f"nothing within {patience:g} s")
        what_happened = f"; the last attempt: {failed[-1]}" if failed else ""
        raise UpstreamUnavailable(
            f"no usable answer to {question.path} within {patience:g} s{what_happened}",
            retry_after=self._budget.retry_after,
        )

    async def _persist(self, question: Question[T], deadline: float, failed: list[Exception]) -> T:
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
                self._budget.failed(str(failure))
                failed.append(failure)
                pause = self._pause(len(failed))
                if len(failed) >= self._settings.attempts or trio.current_time() + pause >= deadline:
                    kind = UnreadableAnswer if isinstance(failure, UnreadableAnswer) else UpstreamUnavailable
                    raise kind(f"{question.path} failed {len(failed)} times: {failure}") from failure
                _log.info("asking Binance again", path=question.path, failure=str(failure), pause=round(pause, 2))
            else:
                self._budget.answered()
                return result
            await trio.sleep(pause)

    def _pause(self, failures: int) -> float:
        longest = min(self._settings.backoff_cap, self._settings.backoff_first * 2.0 ** (failures - 1))
        return longest * (1 + self._jitter()) / 2

    async def _send_in_turn(self, question: Question[T], deadline: float, *, repeated: bool) -> _Answer:
        while True:
            with await self._budget.spend(question.weight, patience=deadline - trio.current_time()) as spend:
                async with self._places:
                    if self._budget.banned_for:
                        continue  # told while we waited for a place: to the back of the queue, the weight unspent
                    self._retries += repeated
                    return await self._send(question, spend)

    async def _send(self, question: Question[T], spend: Spend) -> _Answer:
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
        self._latencies.observe(trio.current_time() - started)
        retry_after = _number(response.headers.get("Retry-After"))
        return _Answer(url, response.status_code, retry_after, body)

    async def _body(self, response: httpx.Response, question: Question[T]) -> bytes:
        good = response.status_code == 200
        longest = question.longest if good else REFUSAL_BYTES
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

    def _judge(self, question: Question[T], answer: _Answer) -> T:
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

    def _unreadable(self, question: Question[T], error: str) -> None:
        self._failures["unreadable"] += 1
        _log.warning("Binance gave an unreadable answer", path=question.path, params=question.params, error=error)

    def _obey(self, answer: _Answer) -> None:
        self._failures["rate_limited"] += 1
        unsaid = _BAN_418 if answer.status == 418 else _BAN_429
        seconds = unsaid if answer.retry_after is None else answer.retry_after
        seconds = min(max(seconds, _BAN_SHORTEST), _BAN_LONGEST)
        if not self._budget.banned_for:  # all requests in flight are told the same: one line is enough
            _log.warning("Binance asked us to wait", status=answer.status, seconds=seconds)
        self._budget.ban(seconds)

    def _location_refused(self) -> LocationRefused:
        message = "Binance does not serve the location of this machine (451)"
        # At the first host there was no other one to go to: this one was asked for.
        if self._settings.venue is SPOT and self._hosts.is_first:
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
