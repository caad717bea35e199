"""The request weight that Binance allows a minute, and who may spend it when.

Binance counts the weight of all requests from one IP in minutes of its own clock, and says in the header
``X-MBX-USED-WEIGHT-1M`` of each answer how much of the present minute is used ("LIMITS", developers.binance.com, Spot
REST API). Over the limit it answers 429, and bans who goes on with 418, each with ``Retry-After``.

When its minute turns is not asked of any wall clock. It shows in the answers: an answer that reports less than we knew
to be used before its request was sent comes from a later minute. And it is certain 60 seconds after any answer of that
minute. `Ledger` keeps this account, pure and synchronous; `WeightBudget` is the waiting around it.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import trio

from candlesync.binance.purpose import Purpose, spent_for
from candlesync.binance.recovery import Recovery
from candlesync.errors import RateLimited

_FOR_TURN = 0.5
"""The part of the patience in which a turn has to come: the answer takes time, too, or the request would be for
nothing."""
MINUTE = 60.0
"""Seconds that Binance counts weight over."""


@dataclass(frozen=True, slots=True)
class WeightSettings:
    """How much of what Binance allows is used."""

    limit: int = 6_000
    """Weight a minute and IP, until exchangeInfo says another (Binance, since 2023-08-25; 1,200 before)."""
    share: float = 0.9
    """The part of it that is spent: other programs may share the IP, and answers in flight may yet be counted."""
    spread: float = 1.0
    """Seconds over which those who waited for one moment (a ban's end, say) are spread: they do not all go at once."""

    after_ban: float = 0.4
    """The part of the limit that may be asked for in the minute after a ban, one request after the other: of the 6,000
    it is 20 candle requests a second, so 200 series that waited for its end are live within some ten seconds."""
    in_trouble: float = 0.04
    """The same while nobody gets an answer of use (`recovery.TROUBLE`): two requests a second, for hours if need be."""

    def __post_init__(self) -> None:
        """Refuse settings under which nothing could ever be asked, with `ValueError`."""
        if self.limit < 1 or not 0 < self.share <= 1 or self.spread < 0:
            raise ValueError(f"{self}: limit from 1, share above 0 up to 1, spread from 0")
        if not (0 <= self.after_ban <= 1 and 0 <= self.in_trouble <= 1):
            raise ValueError(f"{self}: after_ban and in_trouble from 0 to 1")


@dataclass(frozen=True, slots=True)
class WeightStatistics:
    """The budget at one moment."""

    limit: int
    """Weight a minute that Binance allows."""
    used: int
    """Weight of the present minute, as last reported, with what was sent and never answered."""
    in_flight: int
    """Weight of requests that are not answered yet."""
    waiting: int
    """Callers that may not go yet."""
    banned_for: float
    """Seconds for which Binance has told us not to ask; 0 when it has not."""
    bans: int
    """How often it has told us so; again before the end of a ban is the same one."""
    spent: Mapping[Purpose, int]
    """Weight of all that was sent since the start, as Binance documents it, by what it was for."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One request in the ledger: its weight, and what was known when it was entered."""

    weight: int
    minute: int
    used_before: int


class Ledger:
    """The account of one minute. Each call says what time it is, in seconds of a clock that never goes back."""

    def __init__(self, limit: int, share: float) -> None:
        self.limit = limit
        self.share = share
        self.in_flight = 0
        self._reported = 0
        self._lost: deque[tuple[float, int]] = deque()
        """When weight was lost (of each second, the last time), and how much; oldest first."""
        self._minute = 0
        """Counts the turns that we know of."""
        self._over_at = math.inf
        """When the present minute is surely over; infinite as long as nothing of it is known, and then nothing is
        reported."""

    @property
    def used(self) -> int:
        """What Binance has reported of the present minute, and what was lost within a minute."""
        return self._reported + sum(weight for _, weight in self._lost)

    def free_at(self, weight: int, now: float) -> float:
        """When a request of ``weight`` may go: ``now``, a later time, or infinity when only an answer can tell.

        With nothing used and nothing in flight any weight may go: no limit may block for ever.
        """
        self.roll(now)
        if self._fits(weight + self.used + self.in_flight) or self.used + self.in_flight == 0:
            return now
        # What is in flight is not freed by time: its answers come into whatever minute they are counted in.
        left = self.used
        ends = [(self._over_at, self._reported), *((lost_at + MINUTE, lost) for lost_at, lost in self._lost)]
        for moment, freed in sorted(ends):
            left -= freed
            if self._fits(weight + left + self.in_flight) or left + self.in_flight == 0:
                return moment
        return math.inf

    def roll(self, now: float) -> None:
        """Begin a new minute if the present one is surely over."""
        while self._lost and now >= self._lost[0][0] + MINUTE:
            self._lost.popleft()
        if now >= self._over_at:
            self._minute += 1
            self._reported, self._over_at = 0, math.inf

    def enter(self, weight: int) -> Entry:
        """Enter a request that is about to be sent; it ends in exactly one of the three calls below."""
        self.in_flight += weight
        return Entry(weight, self._minute, self.used)

    def withdraw(self, entry: Entry) -> None:
        """The request was not sent after all."""
        self.in_flight -= entry.weight

    def lose(self, entry: Entry, now: float) -> None:
        """The request was sent, and nothing tells what it cost: it may have been counted as late as now."""
        self.in_flight -= entry.weight
        # By itself: it does not hold up the minute, or one lost every minute would add up for ever.
        weight = entry.weight
        if self._lost and now // 1.0 == self._lost[-1][0] // 1.0:
            weight += self._lost.pop()[1]
        self._lost.append((now, weight))

    def settle(self, entry: Entry, used: int, now: float) -> None:
        """The request was answered, and the answer reports ``used`` weight in the minute that it was counted in."""
        self.in_flight -= entry.weight
        later = used < entry.used_before + entry.weight
        if entry.minute == self._minute:
            if later:
                self._turn(used, now + MINUTE)
                return
        elif not later:
            return  # counted in a minute that another answer has shown to be over
        # Answers may overtake each other: the highest is the newest. It may have counted what was lost, or not.
        self._reported = max(self._reported, used - (self.used - self._reported))
        self._over_at = min(self._over_at, now + MINUTE)

    def _turn(self, used: int, over_at: float) -> None:
        self._minute += 1
        self._reported = used
        self._over_at = over_at
        self._lost.clear()

    def _fits(self, weight: int) -> bool:
        return weight <= self.limit * self.share


class Spend:
    """The right to send one request; a context manager, left when the request is over.

    Left without `sent`, the weight goes back to the budget; left without `report`, it counts as used.
    """

    def __init__(self, budget: WeightBudget, entry: Entry) -> None:
        self._budget = budget
        self._entry = entry
        self._sent = False
        self._used: int | None = None

    def sent(self) -> None:
        """Call once, at the moment of sending: from here on Binance may count the request."""
        self._sent = True
        self._budget._spent[spent_for()] += self._entry.weight

    def report(self, used: int | None) -> None:
        """Pass on what the answer's ``X-MBX-USED-WEIGHT-1M`` says; `None` when it says nothing readable."""
        self._used = used

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._budget._settle(self._entry, sent=self._sent, used=self._used)


class WeightBudget:
    """The weight that all requests of this process share. Times are Trio's."""

    def __init__(self, settings: WeightSettings | None = None, *, jitter: Callable[[], float] = random.random) -> None:
        """``jitter`` gives numbers from 0 up to 1, for the spread."""
        self._settings = settings or WeightSettings()
        self._ledger = Ledger(self._settings.limit, self._settings.share)
        self._jitter = jitter
        self._banned_until = -math.inf
        self._recovery = Recovery(self._settings.after_ban, self._settings.in_trouble)
        self._failure = ""
        """Why the last request that had no answer of use had none."""
        self._waiting = 0
        self._bans = 0
        self._spent = Counter[Purpose]()
        self._changed = trio.Event()
        """Set, and replaced, at each change that a waiting caller may have to hear of."""

    @property
    def retry_after(self) -> float:
        """Seconds before which no request can go, as far as is known; 0 when one could go now."""
        now = trio.current_time()
        free_at = self._free_at(1, now)
        return free_at - now if math.isfinite(free_at) else 0.0

    @property
    def banned_for(self) -> float:
        """Seconds for which Binance has told us not to ask; 0 when it has not."""
        return max(0.0, self._banned_until - trio.current_time())

    def statistics(self) -> WeightStatistics:
        """The budget as it is now."""
        ledger = self._ledger
        ledger.roll(trio.current_time())
        return WeightStatistics(
            limit=ledger.limit,
            used=ledger.used,
            in_flight=ledger.in_flight,
            waiting=self._waiting,
            banned_for=self.banned_for,
            bans=self._bans,
            spent=dict(self._spent),
        )

    def check_share(self, share: float, refused: str) -> None:
        """Raise `RateLimited` when more than ``share`` of the weight is used: the rest is kept for live series.

        ``refused`` says what is not done then.
        """
        weight = self.statistics()
        if weight.banned_for or weight.used + weight.in_flight > share * weight.limit:
            message = f"{refused}: the request weight is kept for live series"
            raise RateLimited(message, retry_after=max(5.0, self.retry_after))

    def resize(self, limit: int) -> None:
        """Binance allows ``limit`` weight a minute (from exchangeInfo)."""
        self._ledger.limit = limit
        self._wake()

    def ban(self, seconds: float) -> None:
        """Nobody may ask for ``seconds``, those who wait already included. A ban is never shortened."""
        self._bans += not self.banned_for
        self._banned_until = max(self._banned_until, trio.current_time() + seconds)
        self._recovery.banned_until(self._banned_until)
        self._wake()

    def answered(self) -> None:
        """A request had an answer of use."""
        self._recovery.answered(trio.current_time())

    def failed(self, reason: str) -> None:
        """A request had none: it timed out, was cut off, or Binance was in trouble. When none has, all ask slowly."""
        self._recovery.failed()
        self._failure = reason

    async def spend(self, weight: int, *, patience: float) -> Spend:
        """Wait until a request of ``weight`` may go. Use: ``with await budget.spend(2, patience=5) as spend:``.

        Raises `RateLimited` after ``patience`` seconds, and before that as soon as it is known that they do not
        suffice; its ``retry_after`` says how long the wait would be. Cancelled, it has spent nothing.
        """
        await trio.lowlevel.checkpoint()
        self._waiting += 1
        try:
            await self._wait_for_turn(weight, trio.current_time() + patience)
        finally:
            self._waiting -= 1
        # No await between the decision above and the entry: nobody else can be promised the same weight.
        return Spend(self, self._ledger.enter(weight))

    async def _wait_for_turn(self, weight: int, deadline: float) -> None:
        while True:
            await self._wait(weight, deadline)
            now = trio.current_time()
            opens = self._recovery.opens(now)
            if opens > now + max(0.0, deadline - now) * _FOR_TURN:
                raise self._many_waiting(opens - now)
            opens = self._recovery.take(weight, self._ledger.limit, now)
            if opens <= now:
                return
            await trio.sleep_until(opens)
            # There may be a new ban, or no weight left.
            if self._free_at(weight, opens) <= opens:
                return

    async def _wait(self, weight: int, deadline: float) -> None:
        lag = self._jitter() * self._settings.spread
        go_at = -math.inf
        while True:
            now = trio.current_time()
            free_at = self._free_at(weight, now)
            if free_at > now:
                # When only an answer can free the weight, a ban may still be known to outlast the deadline.
                known = free_at if math.isfinite(free_at) else self._banned_until
                if now >= deadline or known > deadline:
                    raise self._limited(max(0.0, known - now))
                go_at = free_at + lag
            else:
                # It may have become free before its time; who had to wait keeps its lag all the same.
                go_at = min(go_at, now + lag)
                if now >= min(go_at, deadline):
                    return
            with trio.move_on_at(min(go_at, deadline)):
                await self._changed.wait()

    def _free_at(self, weight: int, now: float) -> float:
        return max(self._ledger.free_at(weight, now), self._banned_until)

    def _limited(self, seconds: float) -> RateLimited:
        if self.banned_for:
            # For how long is said by who reports it, at the time: a ban may last for days.
            message = "Binance allows no requests from this address for a while"
        else:
            ledger = self._ledger
            message = (
                f"of the {ledger.limit} request weight of this minute {ledger.used} are used and {ledger.in_flight} in "
                f"flight; free again in {seconds:.1f} s"
            )
        return RateLimited(message, retry_after=seconds)

    def _many_waiting(self, seconds: float) -> RateLimited:
        why = f"for nobody gets an answer of use ({self._failure})" if self._recovery.is_in_trouble else "after a ban"
        return RateLimited(f"Binance is asked slowly {why}, and others wait", retry_after=seconds)

    def _settle(self, entry: Entry, *, sent: bool, used: int | None) -> None:
        if not sent:
            self._ledger.withdraw(entry)
        elif used is None:
            self._ledger.lose(entry, trio.current_time())
        else:
            self._ledger.settle(entry, used, trio.current_time())
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
