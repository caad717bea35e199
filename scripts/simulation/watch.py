"""Watches the service from outside: what it publishes, what it says of itself, and whether anything grows or dies.

The one look into the service's own state is at what must stay bounded. What is published, and which states are told, is
seen where the hub is told so.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog
import trio

from candlesync import hub
from candlesync.core.candle import Candle, Series
from candlesync.core.replica import Commit, Snapshot
from candlesync.core.sync import State
from candlesync.core.wire import BATCH
from candlesync.service import Service

from .ledger import Ledger
from .network import Witness
from .truth import Truth
from .verdict import Verdict
from .view import View

LOOK_EACH = 30.0
"""Seconds between two looks at what is live, and at what waits."""
CLOSE_WITHIN = 15.0
"""Seconds in which a live series shows a close that the stream has shown: a slow store takes four for a commit."""
LET_GO_WITHIN = 180.0
"""Seconds after its idle time in which a series is let go: it is looked at each 60, and a slow store takes its time."""
MOST_TASKS = 600
"""Tasks of a simulation with some clients; it has about a hundred."""


class Watch:
    """All that is known of one simulation from outside."""

    def __init__(self, verdict: Verdict, witness: Witness, truth: Truth, history: int) -> None:
        self.verdict = verdict
        self.witness = witness
        self.truth = truth
        self.ledger = Ledger(truth, witness, verdict, self.record, history)
        self.messages = 0
        self.logged: Counter[str] = Counter()
        self._history = history
        self._hash = hashlib.sha256()
        self.events = 0
        self.lives: dict[Series, list[tuple[float, str, int]]] = defaultdict(list)
        """Each time that a series became live: when, and the life and revision that it had then."""

    # --- the history

    def record(self, kind: str, what: str) -> None:
        """Enter something that happened into the history."""
        self.events += 1
        self._hash.update(f"{trio.current_time():.6f} {kind} {what}\n".encode())

    @property
    def digest(self) -> str:
        """The hash of the whole history so far: of each commit and all that each client got, with its time."""
        return self._hash.hexdigest()

    def view(self, name: str, series: Series) -> View:
        """What a client has of a series."""
        return View(name, series, self.ledger, self.truth, self.verdict)

    def saw(self, name: str, kind: str, what: str) -> None:
        """A client got something."""
        self.messages += kind == "message"
        self.record(kind, f"{name} {what}")

    # --- the states

    def told_live(self, series: Series) -> None:
        """A client was told that a series is live: the hub said so, and it is looked at."""
        self.verdict.expect(bool(self.lives[series]), "live", "{} is said to be live, and never was", series)

    def told_live_after(self, view: View) -> None:
        """A client was told that a series is live again: it has what made it so, one of the times that it was."""
        if view.position is None:
            return
        life, _, revision = view.position.partition("-")
        lives = self.lives[view.series]
        # The first that fits: a client that was stuck is told of several at once, when all of them have been.
        for number in range(view.lives_told, len(lives)):
            _, its_life, its_revision = lives[number]
            if its_life != life or int(revision) >= its_revision:
                view.lives_told = number + 1
                return
        missed = lives[view.lives_told :]
        self.verdict.wrong("live", f"{view.name}: told live at {view.position}, of the times {missed}")

    def _became_live(self, topic: hub.Topic) -> None:
        series = topic.series
        self.lives[series].append((trio.current_time(), topic.replica.life, topic.replica.revision))
        self._check_live(topic, self.witness)

    def _check_live(self, topic: hub.Topic, witness: Witness) -> None:
        """Whether a series that has become live is connected and whole, by what its owner was shown."""
        series, verdict = topic.series, self.verdict
        connected = witness.connected_since(series.symbol)
        answer = witness.answers.get(series)
        if connected is None:
            verdict.wrong("live", f"{series} is said to be live without a connection")
        elif answer is None or answer.asked < connected:
            verdict.wrong("live", f"{series} is said to be live, unconfirmed since {connected}: {answer}")
        else:
            self._check_whole(topic, max(answer.times[-2:-1], default=0), witness)

    def _check_whole(self, topic: hub.Topic, final: int, witness: Witness) -> None:
        series, tail = topic.series, topic.replica.tail
        closed, at = witness.closed.get(series, (0, 0.0))
        newest = 0 if tail is None else tail.open_time
        self.verdict.expect(
            newest >= final, "live", "{} is said to be live at {}, and REST has shown {}", series, newest, final
        )
        self.verdict.expect(
            newest >= closed or at > trio.current_time() - CLOSE_WITHIN,
            "live",
            "{} is said to be live at {}, and the stream has shown {}",
            series,
            newest,
            closed,
        )

    # --- looking now and then

    async def run(self, service: Service) -> None:
        """Look at the service every now and then, until cancelled."""
        while True:
            await trio.sleep(LOOK_EACH)
            self.look(service)

    def look(self, service: Service) -> None:
        """Look at the service as it is now."""
        now = trio.current_time()
        for topic in service.hub:
            series = topic.series
            self.ledger.check_published(series)
            closed, at = self.witness.closed.get(series, (0, 0.0))
            tail = topic.replica.tail
            is_long_live = topic.state is State.LIVE and self.lives[series][-1][0] < now - CLOSE_WITHIN
            if is_long_live and at < now - CLOSE_WITHIN and tail is not None:
                self.verdict.expect(
                    tail.open_time >= closed, "live", "{} is live at {}, without {}", series, tail.open_time, closed
                )
        self._check_bounds(service)

    def _check_bounds(self, service: Service) -> None:
        expect = self.verdict.expect
        for task in service.supervisor.tasks:
            for synchronizer in task.synchronizers.values():
                pending = synchronizer.sync._pending
                waiting = max(len(pending), len(pending._shown))
                expect(waiting <= self._history + 1, "bounded", "{}: {} wait", synchronizer.series, waiting)
        for session in service._sockets.open:
            marked = len(session.outbox._ready)
            expect(marked <= 500, "bounded", "{} subscribers are marked", marked)
            kept = getattr(session._line, "_size", 0)
            expect(kept <= BATCH, "bounded", "{} bytes are kept for a client", kept)
        let_go = trio.current_time() - service.settings.supervisor.idle - LET_GO_WITHIN
        for topic in service.hub:
            wanted = topic.is_pinned or topic.idle_since is None or topic.idle_since > let_go
            expect(wanted, "bounded", "{}: nobody has wanted it since {}", topic.series, topic.idle_since)
        tasks = trio.lowlevel.current_statistics().tasks_living
        expect(tasks <= MOST_TASKS, "bounded", "{} tasks", tasks)

    # --- being told

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Be told of all that is published, and of all that is logged, for the block."""
        topic = hub.Topic
        publish, adopt, set_state = topic.publish, topic.adopt, topic.set_state
        watch = self

        def watched_publish(topic: hub.Topic, commit: Commit) -> Any:
            tail = topic.replica.tail
            entries = publish(topic, commit)
            watch._published(topic, tail)
            return entries

        def watched_adopt(topic: hub.Topic, snapshot: Snapshot) -> None:
            tail = topic.replica.tail
            adopt(topic, snapshot)
            watch._published(topic, tail)

        def watched_set_state(topic: hub.Topic, state: State) -> None:
            before = topic.state
            set_state(topic, state)
            if topic.state is not before:
                watch.record("state", f"{topic.series} {topic.state.value}")
                if topic.state is State.LIVE:
                    watch._became_live(topic)

        kept, was_configured = structlog.get_config(), structlog.is_configured()
        structlog.configure(processors=[self._logged], cache_logger_on_first_use=False)
        topic.publish, topic.adopt, topic.set_state = watched_publish, watched_adopt, watched_set_state  # type: ignore[assignment,method-assign] # that is the point
        try:
            yield
        finally:
            topic.publish, topic.adopt, topic.set_state = publish, adopt, set_state  # type: ignore[method-assign] # as before
            structlog.reset_defaults()
            if was_configured:
                structlog.configure(**kept)

    def _published(self, topic: hub.Topic, before: Candle | None) -> None:
        replica, tail = topic.replica, topic.replica.tail
        self.ledger.published(topic.series, replica.life, replica.revision)
        if before is not None:
            progress = (before.open_time, before.closed, before.trades * (not before.closed))
            now = (0, False, 0) if tail is None else (tail.open_time, tail.closed, tail.trades * (not tail.closed))
            self.verdict.expect(now >= progress, "back in time", "{}: {} is shown after {}", topic.series, tail, before)

    def _logged(self, logger: object, method: str, event: MutableMapping[str, Any]) -> str:  # noqa: ARG002 - structlog's shape
        name = event["event"]
        self.logged[name] += 1
        if name == "symbol task died" and not _is_meant(event["exc_info"]):
            self.verdict.wrong("alive", f"{event['symbol']}: {event['exc_info']!r}")
        raise structlog.DropEvent


class Crash(Exception):
    """What dies because the schedule says so dies of this."""


def _is_meant(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_meant(inner) for inner in error.exceptions)
    return isinstance(error, Crash)
