"""Where streams are and stopped, as all nodes of a shared store know it: a client goes on at whichever it comes to.

What this promises, as long as the store answers:

- A stream whose socket ends while its process lives, or that its process ends in good order (SIGTERM), goes on exactly
  where it stopped: at any node, and after a restart. Each closed candle comes once.
- One whose process dies (kill -9, a power cut) goes on from where it had been a moment before: none is missing, and
  what was sent in the last `REPEATED` seconds may come a second time.

The store is told of departures at once, all together that there are, and of present streams at each turn, those whose
place has changed: one row a close and stream, a thousand rows a call, and `MOST_A_TURN` at most; the rest waits for the
next turns. A client waits for the store for `PATIENCE` seconds at most, and not at all while it does not answer. Then
this process' own memory serves (`Departures`), which always has its own departures, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

import structlog
import trio

from candlesync.core.allowance import Allowances
from candlesync.core.departure import ALIVE, KEPT, Found
from candlesync.doors.binance.departures import Key
from candlesync.doors.binance.places import Changes, Places, Standing
from candlesync.errors import StoreUnavailable
from candlesync.store.base import ASK_AGAIN_CAP, ASK_AGAIN_FIRST, SharedStore

TURN = 0.5
"""Seconds from one turn to the next."""
REPEATED = 3 * TURN
"""Seconds: two turns until a place has settled, and one until it is told, where not more than `MOST_A_TURN` wait."""
MOST_A_TURN = 20_000
"""Keys a turn, for a call of the server and 1 ms of it each thousand."""
MOST_DEPARTURES = 100_000
"""Departures a process may add in `KEPT` seconds beyond a first 100,000, 150 bytes each: clients that come and go to
fill the server are given no more."""
PATIENCE = 3.0
"""Seconds for which a client is kept waiting: that another node is dead shows within `ALIVE`."""

_A_CALL = 1000
"""Keys that the store is told of at once."""
_A_QUESTION = 100
"""Keys that it is asked about at once."""
_AGAIN_AT_MOST = 30.0
"""Seconds between two times that all is told again, as the store has lost some of it."""
_ASK_AGAIN = 0.2
_GATHER = 0.02
"""Seconds for which departures gather that come at once."""
_DEADLINE = 1.5
"""Seconds for one question, whatever else the store has to answer."""
_LAST_WORDS = 3.0
"""Seconds for all that is to be said at the end."""

_log = structlog.get_logger(__name__)


class SharedDepartures:
    """One process' part. It works while `run` does; before and after that it only remembers."""

    def __init__(self, store: SharedStore) -> None:
        self.places = Places()
        self._store = store
        self._is_away = True
        """Whether the store has not answered the last time."""
        self._room = Allowances(MOST_DEPARTURES / KEPT, MOST_DEPARTURES, most_keys=1)
        self._budget: float = MOST_A_TURN
        """Rows of present streams that may still be told in this turn."""
        self._all_told_at = -inf
        self._wake = trio.Event()
        self._under_way: set[str] = set()
        """Keys of the departures that the store is being told of."""
        self._told = trio.Event()
        """Set when that is over; then replaced."""
        self._telling = trio.Lock()
        self._has_ended = False

    def depart(self, key: Key, place: int) -> None:
        """A stream that was never begun is to be had again."""
        self.places.depart(key.digest, place)
        self._wake.set()

    def join(self, key: Key, place: int) -> Standing:
        """See `Places.join`. The store is told now: from where it departed before it may have been taken."""
        standing = self.places.join(key.digest, place)
        self._wake.set()
        return standing

    def leave(self, standing: Standing, place: int | None) -> None:
        """See `Places.leave`. The store is told now, not at the next turn."""
        self.places.leave(standing, place)
        self._wake.set()

    async def take(self, keys: Sequence[Key]) -> dict[Key, int | None]:
        """Take over a departed stream of each key: where to go on from, or `None` when there is none.

        A key that is not in the answer could not be asked about. When this is cancelled nothing is lost.
        """
        found: dict[Key, int | None] = {}
        is_done = False
        try:
            if keys and not self._is_away:
                await self._take({key.digest: key for key in keys}, found)
            is_done = True
        except StoreUnavailable as error:
            self._note_away(error)
            is_done = True
        finally:
            if not is_done:
                for key, place in found.items():
                    if place is not None:
                        self.depart(key, place)
        return found

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell the store, until cancelled; before that `end` is to be awaited."""
        pause = ASK_AGAIN_FIRST
        turned_at = trio.current_time()
        await self._tell()
        task_status.started()
        while True:
            with trio.move_on_at(turned_at + TURN):
                await self._wake.wait()
                await trio.sleep(_GATHER)
            self._wake = trio.Event()
            now = trio.current_time()
            if now >= turned_at + TURN:
                turned_at, self._budget = now, MOST_A_TURN
                self.places.turn()
            await self._tell()
            if self._is_away:
                await trio.sleep(pause)
                pause = min(2 * pause, ASK_AGAIN_CAP)
            else:
                pause = ASK_AGAIN_FIRST

    async def end(self) -> None:
        """Tell the store all that is left, and that this process ends: what is present departs with it."""
        self._budget = inf
        with trio.move_on_after(_LAST_WORDS):
            await self._tell()
            async with self._telling:
                self._has_ended = True
                try:
                    await self._store.keep_departures((), (), ends=True)
                except StoreUnavailable as error:
                    _log.warning("where streams stopped could not be told", reason=str(error))

    async def _take(self, wanted: dict[str, Key], found: dict[Key, int | None]) -> None:
        until = trio.current_time() + PATIENCE
        with trio.move_on_after(_DEADLINE):
            # What has departed here is to be found there.
            while not self._under_way.isdisjoint(wanted) or self.places.has_departed(wanted):
                self._wake.set()
                await self._told.wait()
                if self._is_away:
                    return
        asked_at = 0
        while True:
            is_last = trio.current_time() >= until
            for digests in _batches(wanted):
                asked_at, answers = await self._ask(digests, asked_at)
                # No await here: what was taken is noted.
                for digest, answer in zip(digests, answers, strict=True):
                    if not answer.is_doubtful or is_last:
                        found[wanted.pop(digest)] = answer.place
            if not wanted:
                return
            await trio.sleep(_ASK_AGAIN)

    async def _ask(self, digests: Sequence[str], asked_at: int) -> tuple[int, list[Found]]:
        # Shielded: what was taken and is not heard of would be nobody's.
        with trio.CancelScope(shield=True), trio.move_on_after(_DEADLINE):
            return await self._store.take_departures(digests, asked_at)
        raise StoreUnavailable(f"it was not said within {_DEADLINE:g} s where streams stopped")

    async def _tell(self) -> None:
        """Say that this process is there, and what has changed."""
        async with self._telling:
            is_done = self._has_ended
            while not is_done:
                changes = self.places.take(_A_CALL, self._budget)
                self._budget -= len(changes.present)
                await self._tell_some(changes)
                is_done = self._is_away or not self.places.has_more(self._budget)

    async def _tell_some(self, changes: Changes) -> None:
        if changes.departed and self._room.take("", trio.current_time(), len(changes.departed)):
            changes = Changes(changes.present, ())
        self._under_way = {stop.key for stop in changes.departed}
        is_told = False
        try:
            length = await self._store.keep_departures(changes.present, changes.departed)
            is_told = True
        except StoreUnavailable as error:
            self._note_away(error)
        finally:
            if not is_told:
                # It may have been told: rather a close twice than none.
                self.places.put_back(changes)
            self._under_way = set()
            self._told.set()
            self._told = trio.Event()
        if is_told:
            self._is_away = False
            self.places.note_told(changes)
            self._check(length)

    def _check(self, length: int) -> None:
        """Whether the store still holds what it was told, of so many keys."""
        now = trio.current_time()
        if length != self.places.keys_told and not self.places.waiting and now > self._all_told_at + _AGAIN_AT_MOST:
            self._all_told_at = now
            self.places.tell_all_again()

    def _note_away(self, error: StoreUnavailable) -> None:
        if not self._is_away:
            _log.warning("where streams stop is known to this process alone", reason=str(error))
        self._is_away = True
        self._wake.set()


def _batches(digests: Iterable[str]) -> list[list[str]]:
    all_of_them = list(digests)
    return [all_of_them[first : first + _A_QUESTION] for first in range(0, len(all_of_them), _A_QUESTION)]


assert PATIENCE > ALIVE  # noqa: S101 - of two constants
