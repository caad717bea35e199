"""A sync and its replica, driven by hand."""

from __future__ import annotations

from itertools import count

from candlesync.core.candle import Candle, Series
from candlesync.core.replica import Commit, Replica
from candlesync.core.sync import Ask, Idle, Rules, State, Sync, Wait
from tests.builders import BTC, answer

RULES = Rules(history=10, page=10, outage_patience=2)


class Session:
    """A sync with its replica; the tests say what happens, and look at what it decides."""

    def __init__(self, *candles: Candle, rules: Rules = RULES, series: Series = BTC) -> None:
        """With candles: a series that holds them, connected and confirmed by an answer."""
        self.replica = Replica(series, rules.history)
        lives = count(1)
        self.sync = Sync(self.replica, rules, lambda: f"life{next(lives)}")
        if candles:
            self.replica.apply(Commit("life0", 1, candles, begins=True))
            self.sync.connected()
            self.answers(*candles[-1:])
            assert self.state() is State.LIVE
            assert isinstance(self.sync.decide(), Idle)

    def state(self) -> State:
        return self.sync.state

    def asks(self) -> Ask:
        decision = self.sync.decide()
        assert isinstance(decision, Ask), decision
        return decision

    def waits(self) -> Wait:
        decision = self.sync.decide()
        assert isinstance(decision, Wait), decision
        return decision

    def answers(self, *candles: Candle) -> None:
        """It asks, and REST answers with these, the last one forming."""
        self.sync.answered(self.asks(), answer(candles))

    def passes_time(self) -> float:
        wait = self.waits()
        self.sync.waited(wait)
        return wait.seconds

    def commits(self) -> list[Candle]:
        """It makes one commit."""
        decision = self.sync.decide()
        assert isinstance(decision, Commit), decision
        self.replica.apply(decision)
        self.sync.committed(decision)
        return list(decision.candles)

    def begins_life(self) -> list[Candle]:
        """It makes the store whole."""
        decision = self.sync.decide()
        assert isinstance(decision, Commit), decision
        self.replica.begin_life(decision)
        self.sync.committed(decision)
        return list(decision.candles)

    def shows(self, *frames: Candle) -> None:
        for frame in frames:
            self.sync.frame(frame)
