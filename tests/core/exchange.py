"""A model of an exchange with faults, and a player that stands for the synchronizer, for `test_sync`.

`Market` is the truth: bars with their forming states, outages between them, flat bars without trades. `Stream` and
`Rest` show it, more or less. `Player` does what the sync decides, against a replica that stands for the store and for
what was published, and checks after each step what the design's invariants 1 to 6 allow. It knows the truth and what
was shown, not how the sync works.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from random import Random

import msgspec

from candlesync.core.candle import Candle, Series
from candlesync.core.interval import Interval
from candlesync.core.replica import Commit, Replica
from candlesync.core.sync import Ask, Decision, Idle, Rules, State, Sync, Wait


class Faults(msgspec.Struct, frozen=True):
    """Probabilities, each for one thing that may go wrong at one moment."""

    lost: float = 0.0
    """A frame is never delivered, close frames included."""
    repeated: float = 0.0
    delayed: float = 0.0
    """A frame is held back and overtaken by others."""
    old: float = 0.0
    """An old state of an old bar is sent again."""
    wrong: float = 0.0
    """A close frame does not say what REST says afterwards."""
    garbage: float = 0.0
    """A frame with an open time that is off the grid or ages away."""
    disconnect: float = 0.0
    behind: float = 0.0
    """REST begins to lag behind the stream."""
    down: float = 0.0
    """An answer of REST fails."""
    hidden: float = 0.0
    """REST begins to lack a bar for a while."""
    slow: float = 0.0
    """REST's answer does not come at once."""
    died: float = 0.0
    """The series' task is started again: what the sync knew is gone, what the store holds is not."""
    unsettled: float = 0.0
    """The outcome of a commit is unknown, and the store is read."""
    undone: float = 0.0
    """A commit did not happen, and the store is where it was."""
    fell_back: float = 0.0
    """Instead of a commit the store is found to hold less than the replica."""
    inspected: float = 0.0
    """REST is asked about a whole series, and its answer may come late."""


class Market:
    """What truly happens."""

    def __init__(self, interval: Interval, start: int, random: Random, *, outage: float, longest_outage: int) -> None:
        self.interval = interval
        self._random = random
        self._outage = outage
        self._longest_outage = longest_outage
        self._states: dict[int, list[Candle]] = {}
        """By open time, ascending: the states that a bar goes through. The last one has its final values."""
        self.moments: list[tuple[int, int]] = []
        """Each moment: the newest bar, and how many of its states have been."""
        self._price = 10_000
        self._open(start)

    @property
    def now(self) -> int:
        """The open time of the newest bar."""
        return self.moments[-1][0]

    @property
    def open_times(self) -> list[int]:
        return list(self._states)

    def final(self, open_time: int) -> Candle | None:
        """The true bar, closed, or `None` in an outage."""
        states = self._states.get(open_time)
        return None if states is None else msgspec.structs.replace(states[-1], closed=True)

    def states(self, open_time: int) -> list[Candle]:
        """What the bar was like, up to now."""
        states = self._states.get(open_time, [])
        return states if open_time != self.now else states[: self.moments[-1][1]]

    def tick(self) -> list[Candle]:
        """Go on by one moment; the frames of it."""
        time, shown = self.moments[-1]
        states = self._states[time]
        if shown < len(states):
            self.moments.append((time, shown + 1))
            return [states[shown]]
        skipped = self._random.randint(1, self._longest_outage) if self._random.random() < self._outage else 0
        self._open(self.interval.next(time, 1 + skipped))
        return [msgspec.structs.replace(states[-1], closed=True), self._states[self.now][0]]

    def truth(self, first: int, last: int) -> Iterator[Candle]:
        """The whole series as it should stand, fills included; the last one as it is now."""
        time, before = first, self.final(first)
        assert before is not None
        while time <= last:
            real = self.final(time)
            candle = real or _flat_after(before, time, self.interval)
            yield candle if time < self.now else self.states(time)[-1]
            time, before = self.interval.next(time), candle

    def _open(self, time: int) -> None:
        trades = self._random.choice([0, 0, 1, 3, 20])
        states = [self._bar(time, 0, self._price)]
        for _ in range(self._random.randint(0, 3) if trades else 0):
            self._price += self._random.randint(-50, 50)
            trades += self._random.randint(0, 5)
            states.append(self._bar(time, trades, self._price))
        self._states[time] = states
        self.moments.append((time, 1))

    def _bar(self, time: int, trades: int, price: int) -> Candle:
        return Candle(
            open_time=time,
            open=f"{price}.00",
            high=f"{price + trades}.00",
            low=f"{price - trades}.00",
            close=f"{price}.10",
            volume=f"{trades}.500" if trades else "0.000",
            close_time=self.interval.next(time) - 1,
            quote_volume=f"{trades * price}.0000",
            trades=trades,
            taker_base_volume=f"{trades}.100" if trades else "0.000",
            taker_quote_volume=f"{trades * 7}.0000",
            unused="0",
            closed=False,
        )


class Stream:
    """The frames of a market, on their way."""

    def __init__(self, market: Market, rules: Rules, random: Random) -> None:
        self._market = market
        self._rules = rules
        self._random = random
        self.connected = False
        self.on_their_way: list[Candle] = []

    def connect(self) -> None:
        self.connected = True

    def disconnect(self) -> None:
        self.connected = False
        self.on_their_way = []

    def send(self, frames: Sequence[Candle], faults: Faults) -> None:
        if not self.connected:
            return
        for frame in frames:
            if self._happens(faults.lost):
                continue
            sent = self._distorted(frame) if frame.closed and self._happens(faults.wrong) else frame
            place = len(self.on_their_way)
            if self._happens(faults.delayed):
                place += self._random.randint(1, 4)
            for _ in range(2 if self._happens(faults.repeated) else 1):
                self.on_their_way.insert(place, sent)
        if self._happens(faults.old):
            time = self._random.choice(self._market.open_times)
            self.on_their_way.append(self._random.choice(self._market.states(time)))
        if self._happens(faults.garbage):
            self.on_their_way.append(self._garbage())
        if self._happens(faults.delayed) and len(self.on_their_way) > 1:
            first = self._random.randrange(len(self.on_their_way) - 1)
            self.on_their_way.insert(self._random.randrange(len(self.on_their_way)), self.on_their_way.pop(first))

    def deliver(self) -> Candle | None:
        return self.on_their_way.pop(0) if self.on_their_way else None

    def _happens(self, probability: float) -> bool:
        return self._random.random() < probability

    def _distorted(self, frame: Candle) -> Candle:
        return msgspec.structs.replace(frame, close="6.66", high=f"{self._random.randint(20_000, 30_000)}.00")

    def _garbage(self) -> Candle:
        interval, now = self._market.interval, self._market.now
        away = self._rules.history * self._random.randint(40, 90)
        time = self._random.choice([interval.next(now, away), interval.next(now, -away), now + 1, now - 12_345])
        frame = self._market.states(now)[-1]
        return msgspec.structs.replace(frame, open_time=time, closed=self._random.random() < 0.5)


class Rest:
    """What REST shows of a market."""

    def __init__(self, market: Market, rules: Rules) -> None:
        self._market = market
        self._rules = rules
        self.lag = 0
        """How many moments it is behind."""
        self.hidden: set[int] = set()

    def rows(self, start: int | None) -> tuple[Candle, ...]:
        """An answer: a page from ``start`` on, or the newest of a whole history."""
        newest, shown = self._seen()
        rows: list[Candle] = []
        for time in self._market.open_times:
            if time <= newest and time not in self.hidden and (start is None or time >= start):
                states = self._market.states(time)
                rows.append(states[-1] if time < newest else states[shown - 1])
        rows = rows[-self._rules.history :] if start is None else rows[: self._rules.page]
        newest_row = len(rows) - 1
        return tuple(msgspec.structs.replace(row, closed=at < newest_row) for at, row in enumerate(rows))

    def _seen(self) -> tuple[int, int]:
        """The moment that REST has come to; never a whole history behind, where the stream would seem to tell lies."""
        oldest = self._market.interval.next(self._market.now, 1 - self._rules.history)
        seen = self._market.moments[-1]
        for moment in self._market.moments[-1 : -2 - self.lag : -1]:
            if moment[0] > oldest:
                seen = moment
        return seen


class Player:
    """Does what the sync decides, and checks it."""

    def __init__(self, interval: Interval, start: int, random: Random, rules: Rules, faults: Faults) -> None:
        self._random = random
        self.rules = rules
        self.faults = faults
        outage, longest = random.choice([(0.0, 1), (0.1, 3), (0.1, rules.history * 2)])
        self.market = Market(interval, start, random, outage=outage, longest_outage=longest)
        for _ in range(random.randint(0, rules.history * 6)):
            self.market.tick()
        self.rest = Rest(self.market, rules)
        self.stream = Stream(self.market, rules, random)
        self.replica = Replica(Series("BTCUSDT", interval), rules.history)
        self._lives = 0
        self._sync = Sync(self.replica, rules, self._new_life)
        self._wait: Wait | None = None
        self._asking: tuple[Ask, tuple[Candle, ...] | None, int] | None = None
        """A question whose answer is on its way, the answer (`None`: it fails), and the connection it was put on."""
        self._inspecting: tuple[Candle, ...] | None = None
        self._log: list[tuple[str, tuple[object, ...]]] = []

        self._connection = 0
        self._confirmed = False
        """Whether an answer to a question that was put after the last connect has shown the tail."""
        self._answer: tuple[Candle, ...] = ()
        self._inspection: tuple[Candle, ...] = ()
        """What REST has said since the last commit."""
        self._said: defaultdict[int, list[Candle]] = defaultdict(list)
        """By open time: all final rows that REST has given."""
        self._shown: defaultdict[int, list[Candle]] = defaultdict(list)
        """By open time: all frames that the sync was handed."""
        self._shown_by_then: set[int] = set()
        """The same open times, when REST answered last."""
        self._ever_shown: defaultdict[int, list[Candle]] = defaultdict(list)
        """The same, over all that the sync has been started anew."""
        self._in_sight: set[int] = set()
        """Open times that the stream or REST has shown since the last connect."""
        self._newest_frame: Candle | None = None
        """The newest one since the sync began or was connected."""
        self._pauses = 0
        self._lacked: defaultdict[int, set[int]] = defaultdict(set)
        """By open time: after how many pauses REST lacked it while it showed later rows."""
        self._asks_in_a_row = 0
        self._committed = False
        self.statistics = {
            "commits": 0,
            "lives": 0,
            "begins": 0,
            "fills": 0,
            "asks": 0,
            "corrections": 0,
            "followed": 0,
        }

    @property
    def state(self) -> State:
        return self._sync.state

    # --- what may happen

    def play(self, steps: int) -> None:
        """Let the exchange and the sync go on, with faults."""
        for _ in range(steps):
            self._maybe_trouble()
            self._random.choice(
                [self._tick, self._tick, self._deliver, self._deliver, self._turn, self._turn, self._turn, self._rest]
            )()
            self._check_bounds()

    def recover(self) -> None:
        """No more faults: what is on its way arrives, and a few bars pass."""
        self.faults = Faults()
        self.rest.lag = 0
        self.rest.hidden.clear()
        if not self.stream.connected:
            self._connect()
        newest = self.market.now
        while self.market.open_times.index(self.market.now) < self.market.open_times.index(newest) + 4:
            self._tick()
            self._settle()
        for time in sorted(self.replica.filled):  # the fills' inspection, for a minute that REST lacked until now
            self._take_inspection(self.rest.rows(time))
            self._settle()

    def reconnect(self) -> None:
        """A short break of the connection."""
        self._lose()
        self._connect()
        self._settle()

    def check_recovered(self) -> None:
        """The series is live, whole and true."""
        assert self.state is State.LIVE
        first, tail = self.replica.first, self.replica.tail
        assert first is not None
        assert tail is not None
        assert tail.open_time == self.market.now
        have = [entry.candle for entry in self.replica.newest(self.rules.history)]
        if first.filled:
            return self._check_true(have)
        for candle, true in zip(have, self.market.truth(first.open_time, self.market.now), strict=True):
            excused = self._is_excused(candle) or (candle.filled and self._after_excused(candle.open_time))
            assert candle == true or excused, f"{candle} where {true} is true"
        return None

    def story(self, events: int = 60) -> str:
        """What happened last, for whoever looks into a failure; candles by their number since the market's start."""
        return "\n".join(f"{event} {' '.join(map(self._told, what))}" for event, what in self._log[-events:])

    def _told(self, what: object) -> str:
        if not isinstance(what, Candle):
            return str(what)
        number = self.market.interval.steps(self.market.open_times[0], what.open_time)
        state = "filled" if what.filled else "closed" if what.closed else "forming"
        return f"#{number if number is not None else what.open_time}:{state}({what.trades})"

    # --- the steps

    def _tick(self) -> None:
        self.stream.send(self.market.tick(), self.faults)

    def _deliver(self) -> None:
        frame = self.stream.deliver()
        if frame is None:
            return
        self._note("frame", frame)
        self._in_sight.add(frame.open_time)
        self._shown[frame.open_time].append(frame)
        self._ever_shown[frame.open_time].append(frame)
        if self.market.interval.is_open_time(frame.open_time) and frame.open_time <= self.market.now:
            newest = self._newest_frame
            if newest is None or frame.open_time >= newest.open_time:
                self._newest_frame = frame
        self._show(frame)

    def _show(self, frame: Candle) -> None:
        """Where the short way may be taken, it leads to where the long one does."""
        commit = self._sync.follow(frame)
        self._sync.frame(frame)
        if commit is not None:
            self.statistics["followed"] += 1
            assert self._sync.decide() == commit, "the short way leads elsewhere"

    def _rest(self) -> None:
        if self._asking is not None:
            self._take_answer()
        elif self._wait is not None:
            self._pass_time(self._wait)
        elif self._inspecting is not None:
            self._take_inspection(self._inspecting)

    def _pass_time(self, wait: Wait) -> None:
        self._note("waited", wait)
        self._sync.waited(wait)
        self._wait = None
        self._asks_in_a_row = 0
        self._pauses += wait.outage

    def _turn(self) -> None:
        """One turn of the critical section, as far as it goes without waiting."""
        if self._asking is not None:
            return
        decision = self._sync.decide()
        self._check_decision(decision)
        match decision:
            case Commit():
                self._asks_in_a_row = 0
                self._commit(decision)
            case Ask():
                self._ask(decision)
            case Wait():
                self._wait = decision
            case Idle():
                self._asks_in_a_row = 0
                self._check_idle()
        if not isinstance(decision, Wait):
            self._wait = None

    def _ask(self, ask: Ask) -> None:
        self.statistics["asks"] += 1
        self._asks_in_a_row += 1
        assert self._asks_in_a_row <= 3, "it asks again and again without a pause"
        failed = self._happens(self.faults.down)
        self._asking = (ask, None if failed else self.rest.rows(ask.start), self._connection)
        self._note("asks", ask)
        if not self._happens(self.faults.slow):
            self._take_answer()

    def _take_answer(self) -> None:
        assert self._asking is not None
        ask, rows, connection = self._asking
        self._asking = None
        if rows is None:
            self._note("failed")
            self._sync.failed()
            return
        self._note("answered", *rows)
        self._answer = rows
        self._shown_by_then = set(self._shown)
        self._learn(rows, ask.start)
        self._sync.answered(ask, rows)
        tail = self.replica.tail
        for time in list(self._shown) if rows else []:
            if time > self.market.interval.next(rows[-1].open_time, self.rules.history):
                del self._shown[time]  # so far from what REST shows that it need not be believed
                if self._newest_frame is not None and self._newest_frame.open_time == time:
                    self._newest_frame = None
        covers = tail is None or (bool(rows) and rows[-1].open_time >= tail.open_time)
        if covers and self.stream.connected and connection == self._connection:
            self._confirmed = True
            self._in_sight.update(row.open_time for row in rows)

    def _learn(self, rows: Sequence[Candle], start: int | None) -> None:
        for row in rows[:-1]:
            self._said[row.open_time].append(row)
        if not rows:
            return
        tail = self.replica.tail
        time = rows[0].open_time if tail is None or start is None else min(start, rows[0].open_time)
        if tail is not None and start is None and tail.open_time < time:
            time = tail.open_time
        shown = {row.open_time for row in rows}
        while time < rows[-1].open_time:
            if time not in shown:
                self._lacked[time].add(self._pauses)
            time = self.market.interval.next(time)

    def _take_inspection(self, rows: tuple[Candle, ...]) -> None:
        self._inspecting = None
        if self._asking is None:
            self._note("inspected", *rows)
            self._inspection += rows
            self._in_sight.update(row.open_time for row in rows)
            self._learn(rows, rows[0].open_time if rows else None)
            self._sync.inspected(rows)

    def _commit(self, commit: Commit) -> None:
        self._note("commits", *commit.candles)
        if len(self.replica) and self._happens(self.faults.fell_back):
            self._sync.store_fell_back(self.replica.life)
            return
        if self._happens(self.faults.undone):
            return
        if commit.life != self.replica.life and len(self.replica):
            self._begin_life(commit)
            return
        self._check_commit(commit)
        if self._happens(self.faults.unsettled):
            if self._random.random() < 0.5:
                self._apply(commit)
            self._sync.conflicted()
            self._confirmed = False
            return
        self._apply(commit)
        self._answer = self._inspection = ()
        self._sync.committed(commit)

    def _begin_life(self, commit: Commit) -> None:
        """The store is made whole, and nothing else: what was known, asked for and confirmed goes on."""
        candles = [entry.candle for entry in self.replica.newest(self.rules.history)]
        assert list(commit.candles) == candles
        assert (commit.revision, commit.begins, commit.replaces) == (1, True, self.replica.life)
        self.statistics["lives"] += 1
        state = self.state
        self.replica.begin_life(commit)
        self._sync.committed(commit)
        assert self.state is state

    def _apply(self, commit: Commit) -> None:
        self.replica.apply(commit)
        self.statistics["commits"] += 1
        self._check_series()

    def _settle(self) -> None:
        """Let everything that is on its way arrive, and the sync come to rest."""
        for _ in range(400):
            self._deliver()
            if self._asking is not None:
                self._take_answer()
            self._turn()
            if self._wait is not None:
                self._pass_time(self._wait)
            elif not self.stream.on_their_way and isinstance(self._sync.decide(), Idle):
                return
        raise AssertionError("the sync does not come to rest")

    # --- trouble

    def _maybe_trouble(self) -> None:
        if self._happens(self.faults.disconnect if self.stream.connected else 0.2):
            if self.stream.connected:
                self._lose()
            else:
                self._connect()
        if self._happens(self.faults.behind):
            self.rest.lag = self._random.choice([0, 1, 3, 10, 30])
        if self._happens(self.faults.hidden):
            self.rest.hidden.add(self._random.choice(self.market.open_times[-4:]))
        elif self.rest.hidden and self._happens(0.05):
            self.rest.hidden.discard(self._random.choice(sorted(self.rest.hidden)))
        if self._happens(self.faults.died):
            self._die()
        if self._happens(self.faults.inspected) and self._sync.is_whole:
            tail = self.replica.tail
            assert tail is not None
            self._inspecting = self.rest.rows(min(self.replica.filled, default=tail.open_time))

    def _connect(self) -> None:
        self._note("connected")
        self._connection += 1
        self._asks_in_a_row = 0
        self._confirmed = False
        self._newest_frame = None
        self._in_sight.clear()
        self.stream.connect()
        self._sync.connected()

    def _lose(self) -> None:
        self._note("lost")
        self.stream.disconnect()
        self._sync.lost()

    def _die(self) -> None:
        self._note("died")
        self._sync = Sync(self.replica, self.rules, self._new_life)
        self._sync.conflicted()
        self._wait = self._asking = self._inspecting = None
        self._confirmed = False
        self._asks_in_a_row = 0
        self._shown.clear()
        self._newest_frame = None
        self.stream.disconnect()

    def _new_life(self) -> str:
        self._lives += 1
        return f"life{self._lives}"

    # --- the checks

    def _check_decision(self, decision: Decision) -> None:
        if self.state is State.LIVE and not isinstance(decision, Commit):
            assert self.stream.connected
            assert self._confirmed, "live before an answer has confirmed the tail"
            assert isinstance(decision, Idle), "live, but something is missing"

    def _check_commit(self, commit: Commit) -> None:
        """What is about to be committed may be committed."""
        tail = self.replica.tail
        if commit.begins:
            self._check_begin(commit)
        for candle in commit.candles:
            known = None if commit.begins else self.replica.get(candle.open_time)
            if not self._confirmed:
                # Unconfirmed: only what REST says, and between its rows what stands for those that it lacks.
                said = self._answer + self._inspection
                assert candle in said or candle.closed
                assert candle.open_time <= max(row.open_time for row in said), "committed without REST's word"
            if known is not None:
                self._check_change(known, candle)
            elif candle.filled:
                self._check_fill(candle.open_time)
            if candle.closed and not candle.filled:
                self._check_true([candle])
            if not candle.closed:
                assert candle in self.market.states(candle.open_time)
        new = [candle for candle in commit.candles if tail is None or candle.open_time > tail.open_time]
        self.statistics["fills"] += sum(candle.filled for candle in new)

    def _check_begin(self, commit: Commit) -> None:
        self.statistics["begins"] += 1
        tail, newest = self.replica.tail, self._answer[-1].open_time
        times = [row.open_time for row in self._answer]
        leaps = [after for before, after in pairwise(times) if self._steps(before, after) - 1 > self.rules.history]
        if tail is not None:
            joined = times[0] <= tail.open_time
            assert leaps if joined else self._steps(tail.open_time, newest) >= self.rules.history, "began without need"
        first = leaps[-1] if leaps else times[0]
        assert commit.candles[0].open_time == first, "began without what the answer had"

    def _check_change(self, known: Candle, candle: Candle) -> None:
        """Invariant 3 and the end of 6."""
        if known.filled:
            assert candle.closed
        elif known.closed:
            assert candle in self._said[candle.open_time], "a closed candle changed without a final row"
            self.statistics["corrections"] += 1
        elif not candle.closed:
            assert candle.trades >= known.trades, "a forming candle lost trades"

    def _check_fill(self, open_time: int) -> None:
        """Invariant 6."""
        assert len(self._lacked[open_time]) >= 2, "filled without a second look after a pause"
        assert open_time not in self._shown_by_then, "filled although the stream had shown it"

    def _check_true(self, candles: Sequence[Candle]) -> None:
        for candle in candles:
            if candle.closed and not candle.filled and candle != self.market.final(candle.open_time):
                assert self._is_excused(candle), f"{candle} is not {self.market.final(candle.open_time)}"

    def _is_excused(self, candle: Candle) -> bool:
        """Whether a closed candle has wrong values that the faults gave it, and REST nothing better."""
        if candle in self._ever_shown[candle.open_time]:
            return True
        # Given up: REST lacked it through all patience, and what the stream showed last is all there is.
        as_shown = msgspec.structs.replace(candle, closed=False)
        patient = len(self._lacked[candle.open_time]) >= 2
        return patient and as_shown in self.market.states(candle.open_time)

    def _after_excused(self, open_time: int) -> bool:
        while (candle := self.replica.get(open_time)) is not None and candle.filled:
            open_time = self.market.interval.previous(open_time)
        return candle is None or self._is_excused(candle)

    def _check_series(self) -> None:
        """Invariant 1, and each fill derived from what stands before it."""
        interval = self.market.interval
        series = [entry.candle for entry in self.replica.newest(self.rules.history + 1)]
        assert 0 < len(series) <= self.rules.history
        for before, after in pairwise(series):
            assert after.open_time == interval.next(before.open_time)
            assert before.closed
            if after.filled:
                assert after == _flat_after(before, after.open_time, interval)

    def _check_idle(self) -> None:
        """Nothing to do while connected: the series has what the stream showed."""
        newest, tail = self._newest_frame, self.replica.tail
        if not self.stream.connected:
            return
        assert tail is not None
        if newest is not None:
            assert tail.open_time >= newest.open_time, "idle, although the stream is further on"
            if tail.open_time == newest.open_time:
                assert tail.closed or tail.trades >= newest.trades
        assert tail.closed or tail.open_time in self._in_sight, "live with a tail that is out of sight"
        assert all(time >= tail.open_time for time in self._sync._pending._shown), "kept although it is done with"

    def _check_bounds(self) -> None:
        pending = self._sync._pending
        assert len(pending) <= self.rules.history + 1
        assert len(pending._shown) <= self.rules.history

    def _steps(self, first: int, last: int) -> int:
        steps = self.market.interval.steps(first, last)
        assert steps is not None
        return steps

    def _happens(self, probability: float) -> bool:
        return self._random.random() < probability

    def _note(self, event: str, *what: object) -> None:
        self._log.append((event, what))


def _flat_after(before: Candle, time: int, interval: Interval) -> Candle:
    """The fill of a missing bar, derived here once more: no trades, at the close before it."""
    return Candle(
        open_time=time,
        open=before.close,
        high=before.close,
        low=before.close,
        close=before.close,
        volume="0.000",
        close_time=interval.next(time) - 1,
        quote_volume="0.0000",
        trades=0,
        taker_base_volume="0.000",
        taker_quote_volume="0.0000",
        unused="0",
        closed=True,
        filled=True,
    )
