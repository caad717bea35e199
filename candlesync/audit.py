"""The audit: in the background, each live series that this node owns is compared with Binance REST.

What differs is committed by the series' own synchronizer, as a correction like any other. The audit is the least
important of all that asks Binance: one question at a time, at a pace that keeps to a share of the request weight, and
none while weight is short, somebody waits for it, or Binance bans us. What to ask of which series is decided by
``core.audit``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import msgspec
import structlog
import trio

from candlesync.binance.purpose import Purpose, spending_for
from candlesync.binance.venue import SPOT
from candlesync.binance.weight import MINUTE, WeightBudget
from candlesync.core.audit import Agenda, AuditSettings, Finding, Question
from candlesync.core.candle import Series
from candlesync.core.sync import State
from candlesync.errors import UnknownSymbol, UpstreamUnavailable
from candlesync.synchronizer import Synchronizer

_log = structlog.get_logger(__name__)

_PAUSE = 5.0
"""Seconds before the next question after one that there was no weight for, or that failed; each further failure in a
row doubles it, to `MINUTE`."""


class AuditStatistics(msgspec.Struct, frozen=True):
    """What the audit has done since the start, and how old it is now."""

    series: int
    """Series that are audited while they are live."""
    questions: int
    """Put to REST."""
    compared: int
    """Closed candles that were compared with their final rows, each as often as it was."""
    differences: int
    """Times that one of them differed, and candles that REST lacks though it shows later ones."""
    corrections: int
    """Candles that were corrected for it."""
    whole: int
    """Times that a series was compared as a whole."""
    skipped: int
    """Questions that were due and not put, because the weight was needed for something else, or Binance bans us."""
    failures: int
    """Questions that were not answered usably."""
    ages: Mapping[Series, float]
    """Seconds since each series was compared as a whole, or since it is audited if it never was."""


class Audit:
    """Compares series with REST. `run` does it; `following` says which."""

    def __init__(
        self,
        settings: AuditSettings,
        budget: WeightBudget,
        *,
        weight_of: Callable[[int], int] = SPOT.klines_weight,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``budget`` is that of whom the synchronizers ask, and ``weight_of`` what a question for so many rows weighs.

        ``jitter`` gives numbers from 0 up to 1.
        """
        self._settings = settings
        self._budget = budget
        self._weight_of = weight_of
        self._jitter = jitter
        self._agenda = Agenda(settings, jitter)
        self._synchronizers: dict[Series, Synchronizer] = {}
        self._added = trio.Event()
        self._failed_in_a_row = 0
        self._questions = self._compared = self._differences = self._corrections = 0
        self._whole = self._skipped = self._failures = 0

    def statistics(self) -> AuditStatistics:
        """A snapshot."""
        return AuditStatistics(
            series=len(self._agenda),
            questions=self._questions,
            compared=self._compared,
            differences=self._differences,
            corrections=self._corrections,
            whole=self._whole,
            skipped=self._skipped,
            failures=self._failures,
            ages=self._agenda.ages(trio.current_time()),
        )

    @contextmanager
    def following(self, synchronizer: Synchronizer) -> Iterator[None]:
        """Audit a series for the block: while this node owns it, and follows it at all."""
        series = synchronizer.series
        self._synchronizers[series] = synchronizer
        self._agenda.add(series, trio.current_time())
        self._added.set()
        try:
            yield
        finally:
            # Another may have taken its place already; that one stays.
            if self._synchronizers.get(series) is synchronizer:
                del self._synchronizers[series]
                self._agenda.remove(series)

    async def run(self) -> None:
        """Compare series until cancelled; with a share of 0 there is nothing to do."""
        if not self._settings.share:
            return
        while True:
            await self._sleep_until_due()
            now = trio.current_time()
            series = self._agenda.next(now)
            if series is None:
                continue
            topic = self._synchronizers[series].topic
            # What is not live the sync asks about, and nothing is known to compare with.
            replica = topic.replica if topic.state is State.LIVE else None
            question = self._agenda.ask(series, replica, now)
            if question is not None:
                await trio.sleep(await self._put(question))

    async def _sleep_until_due(self) -> None:
        due_at = self._agenda.due_at()
        self._added = trio.Event()
        with trio.move_on_at(trio.current_time() + self._settings.every if due_at is None else due_at):
            await self._added.wait()

    async def _put(self, question: Question) -> float:
        """Put a question, if that takes nothing from anybody; the seconds to wait before the next."""
        weight = self._budget.statistics()
        used = weight.used + weight.in_flight
        if weight.banned_for or weight.waiting or used > self._settings.busy * weight.limit:
            self._skipped += 1
            self._agenda.put_off(question, trio.current_time())
            # After a ban others have waited as long, and longer for an answer.
            return _PAUSE * (1 + self._jitter()) + weight.banned_for
        synchronizer = self._synchronizers[question.series]
        self._questions += 1
        try:
            with spending_for(Purpose.AUDIT):
                comparison = await synchronizer.audit(question)
        except (UpstreamUnavailable, UnknownSymbol) as error:
            # A symbol that is listed no more is the sync's business, as soon as it asks.
            self._failures += 1
            self._failed_in_a_row += 1
            self._agenda.failed(question, trio.current_time())
            _log.debug("not audited", series=str(question.series), reason=str(error))
            return min(MINUTE, _PAUSE * 2.0 ** min(self._failed_in_a_row - 1, 16))
        self._failed_in_a_row = 0
        if comparison is None or self._synchronizers.get(question.series) is not synchronizer:
            # It is not live any more, or not this node's to change.
            self._agenda.put_off(question, trio.current_time())
        else:
            self._take(question, *comparison)
        return self._weight_of(question.limit) * MINUTE / (self._settings.share * weight.limit)

    def _take(self, question: Question, finding: Finding, corrected: int) -> None:
        answer = self._agenda.answered(question, finding, trio.current_time())
        self._compared += finding.compared
        self._differences += len(finding.differing) + answer.absent
        self._corrections += corrected
        self._whole += answer.is_whole
        if finding.differing or answer.absent:
            _log.warning(
                "the audit has found differences",
                series=str(question.series),
                differing=len(finding.differing),
                absent=answer.absent,
                corrected=corrected,
            )
