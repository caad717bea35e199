"""Questions that Binance itself answers: passed on as they are, asked once for all who want the same.

They never take what live series live on: while more than half of the request weight is used nothing is passed on, and
at most four of the eight places of `Rest` are theirs. No client takes all that the others could have passed on. What is
kept of the answers is bounded.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import msgspec
import trio

from candlesync.binance.public import PublicPath, Values
from candlesync.binance.purpose import Purpose, spending_for
from candlesync.binance.rest import PassedOn
from candlesync.binance.weight import MINUTE, WeightBudget
from candlesync.core.allowance import Allowances
from candlesync.errors import RateLimited, UpstreamUnavailable
from candlesync.sharing import Sharing
from candlesync.supervisor import asked_by

TIME_UNIT = "X-MBX-TIME-UNIT"
"""The one header of a client's that is passed on; the door sees to its value."""


class Upstream(Protocol):
    """Who asks Binance (``binance.rest.Rest``)."""

    budget: WeightBudget

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
        """See there."""
        ...


@dataclass(frozen=True, slots=True)
class PassingSettings:
    """How much is passed on. Times are seconds."""

    at_once: int = 4
    """Questions on their way."""
    patience: float = 9.0
    """For an answer, with its waiting for a place. ccxt and python-binance hang up after 10."""
    share: float = 0.5
    """Of the request weight; when more is used, nothing is passed on."""
    weight_of_one: float = 1_200.0
    """That one address may have passed on in a minute, and at once: what Binance itself allowed an IP until 2023, and
    less than half of the share. 0 is no limit."""
    kept_answers: int = 200
    kept_bytes: int = 48 * 1024 * 1024
    """Of answers that are given again: the whole exchangeInfo has some 15 MB, all tickers 2."""


@dataclass(frozen=True, slots=True)
class PassingStatistics:
    """What has been passed on since the start."""

    answers: Mapping[str, int]
    """Answers of Binance's by the class of their status (``2xx``, ``4xx``), and ``none``: it could not be asked, or did
    not answer usably."""
    shared: int
    """Questions that were on their way for somebody else."""
    kept: int
    """Answers that were given again."""
    refused_for_weight: int
    """Questions that were not passed on because the weight is needed otherwise, or Binance asks to wait."""
    refused_for_address: int
    """Questions that were not passed on because their address has had all that one may have passed on."""
    kept_answers: int
    """That are held now."""
    kept_bytes: int


class _Question(msgspec.Struct, frozen=True):
    path: str
    values: tuple[tuple[str, str], ...]
    in_microseconds: bool


class _Kept(msgspec.Struct, frozen=True):
    answer: PassedOn
    until: float


class Passing:
    """Passes questions on. `run` owns those on their way."""

    def __init__(self, upstream: Upstream, settings: PassingSettings | None = None) -> None:
        self.budget = upstream.budget
        self._upstream = upstream
        self._settings = settings or PassingSettings()
        self._places = trio.CapacityLimiter(self._settings.at_once)
        self._on_their_way = Sharing[_Question, PassedOn]()
        each = self._settings.weight_of_one
        self._allowances = Allowances(each / MINUTE, max(1.0, each))
        self._kept: OrderedDict[_Question, _Kept] = OrderedDict()
        self._bytes = 0
        self._answers: Counter[str] = Counter()
        self._shared = 0
        self._given_again = 0
        self._refused_for_weight = 0
        self._refused_for_address = 0

    def statistics(self) -> PassingStatistics:
        """What has been passed on until now."""
        return PassingStatistics(
            dict(self._answers),
            self._shared,
            self._given_again,
            self._refused_for_weight,
            self._refused_for_address,
            len(self._kept),
            self._bytes,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Pass on for those who ask, until cancelled."""
        await self._on_their_way.run(task_status=task_status)

    async def ask(self, path: PublicPath, values: Values, *, in_microseconds: bool = False) -> PassedOn:
        """Binance's answer, or one of the last seconds where the path says that it is as good.

        Raises `UpstreamUnavailable`; `RateLimited` when the weight is needed for live series, or for other clients.
        """
        question = _Question(path.path, tuple(sorted(values.items())), in_microseconds)
        kept = self._kept.get(question)
        if kept is not None and trio.current_time() < kept.until:
            self._given_again += 1
            await trio.lowlevel.checkpoint()
            return kept.answer
        if path.fresh is None or not self._on_their_way.is_under_way(question):
            self._charge(path.weigh(values))
        else:
            self._shared += 1
        ask = partial(self._count, path, question)
        # What may not be shared, the time, is asked in the client's own task.
        return await (ask() if path.fresh is None else self._on_their_way.get(question, ask))

    def _charge(self, weight: int) -> None:
        """Count a question to whoever asks it."""
        key = asked_by.get()
        wait = self._allowances.take(key, trio.current_time(), weight) if key else 0.0
        if wait:
            self._refused_for_address += 1
            most = f"{self._settings.weight_of_one:g} request weight a minute"
            raise RateLimited(f"this address may have {most} passed on", retry_after=wait)

    async def _count(self, path: PublicPath, question: _Question) -> PassedOn:
        try:
            answer = await self._ask(path, question)
        except RateLimited:
            self._refused_for_weight += 1
            raise
        except UpstreamUnavailable:
            self._answers["none"] += 1
            raise
        self._answers[f"{answer.status // 100}xx"] += 1
        return answer

    async def _ask(self, path: PublicPath, question: _Question) -> PassedOn:
        settings = self._settings
        self.budget.check_share(settings.share, "nothing is passed on to Binance now")
        values = dict(question.values)
        with trio.move_on_after(settings.patience), spending_for(Purpose.PASSED_ON):
            async with self._places:
                answer = await self._upstream.pass_on(
                    path.path,
                    values,
                    weight=path.weigh(values),
                    longest=path.longest,
                    headers={TIME_UNIT: "MICROSECOND"} if question.in_microseconds else None,
                    patience=settings.patience,
                )
            if path.fresh:
                self._keep(question, _Kept(answer, trio.current_time() + path.fresh))
            return answer
        raise UpstreamUnavailable(f"no answer to {path.path} within {settings.patience:g} s", retry_after=5.0)

    def _keep(self, question: _Question, kept: _Kept) -> None:
        self._drop(question)
        self._kept[question] = kept
        self._bytes += len(kept.answer.body)
        now = trio.current_time()
        for other in [other for other, old in self._kept.items() if now >= old.until]:
            self._drop(other)
        while len(self._kept) > self._settings.kept_answers or self._bytes > self._settings.kept_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, question: _Question) -> None:
        dropped = self._kept.pop(question, None)
        if dropped is not None:
            self._bytes -= len(dropped.answer.body)
