"""What the audit asks, in which order, and what it takes from the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.core.audit import Agenda, AuditSettings, Finding, Outcome, Question, compare
from candlesync.core.candle import Candle, Series
from candlesync.core.interval import Interval
from candlesync.core.replica import Replica
from tests.builders import BTC, answer, begun, candle, flat, forming, minute, minutes, then

ETH = Series("ETHUSDT", Interval.M1)
SETTINGS = AuditSettings(every=10.0, whole_every=1000.0, overlap=2, page=50, back_off_cap=80.0)


def test_the_numbers_are_those_that_were_decided_on() -> None:
    assert AuditSettings() == AuditSettings(
        share=0.1, busy=0.5, every=20.0, overlap=3, whole_every=3600.0, page=1000, back_off_cap=600.0
    )


def agenda_of(*series: Series, jitter: float = 0.5, settings: AuditSettings = SETTINGS) -> Agenda:
    agenda = Agenda(settings, lambda: jitter)
    for one in series:
        agenda.add(one, 0.0)
    return agenda


def asked(agenda: Agenda, replica: Replica | None, now: float) -> Question | None:
    series = agenda.next(now)
    assert series is not None
    return agenda.ask(series, replica, now)


def whole_of(replica: Replica, *, start: int = 0, limit: int = 1000) -> Question:
    tail = replica.tail
    assert tail is not None
    return Question(replica.series, start, limit, tail.open_time, True, 0)


# --- what an answer says


def test_equal_rows_differ_in_nothing() -> None:
    replica = begun([*minutes(0, 4), forming(minute(5))])
    found = compare(replica, whole_of(replica), answer([*minutes(0, 4), candle(minute(5), trades=99)]))
    assert found == Finding(seen=minute(5), compared=5, ends=True)


def test_a_final_row_that_says_otherwise_is_a_difference() -> None:
    replica = begun([*minutes(0, 4), forming(minute(5))])
    rows = minutes(0, 5)
    rows[2] = candle(minute(2), "37002.00000000", trades=11)
    assert compare(replica, whole_of(replica), answer(rows)).differing == (minute(2),)


def test_the_field_that_binance_tells_to_ignore_is_no_difference() -> None:
    replica = begun(minutes(0, 4))
    assert compare(replica, whole_of(replica), answer(minutes(0, 4, unused="1"))).differing == ()


def test_the_newest_row_says_nothing_for_it_is_not_final() -> None:
    replica = begun(minutes(0, 4))
    rows = [*minutes(0, 3), candle(minute(4), "1.00000000")]
    assert compare(replica, whole_of(replica), answer(rows)) == Finding(seen=minute(4), compared=4, ends=True)


def test_an_answer_that_is_behind_says_nothing_of_what_it_does_not_show() -> None:
    replica = begun(minutes(0, 9))
    assert compare(replica, whole_of(replica), answer(minutes(0, 4))) == Finding(seen=minute(4), compared=4, ends=True)


def test_a_forming_candle_is_not_compared() -> None:
    replica = begun([*minutes(0, 4), forming(minute(5))])
    rows = [*minutes(0, 4), candle(minute(5), trades=99), candle(minute(6))]
    assert compare(replica, whole_of(replica), answer(rows)) == Finding(seen=minute(6), compared=5, ends=True)


def test_a_fill_for_which_a_row_has_appeared_is_a_difference_and_one_without_is_none() -> None:
    replica = begun([candle(minute(0)), flat(minute(1)), flat(minute(2)), *minutes(3, 5)])
    rows = [candle(minute(0)), candle(minute(2)), *minutes(3, 5)]
    found = compare(replica, whole_of(replica), answer(rows))
    assert found == Finding(seen=minute(5), compared=4, differing=(minute(2),), ends=True)


def test_a_candle_that_REST_lacks_while_it_shows_later_ones_is_absent() -> None:  # noqa: N802 - REST is a name
    replica = begun(minutes(0, 5))
    rows = [row for row in minutes(0, 5) if row.open_time != minute(3)]
    assert compare(replica, whole_of(replica), answer(rows)).absent == (minute(3),)


def test_what_was_not_asked_for_is_not_absent() -> None:
    replica = begun(minutes(0, 5))
    found = compare(replica, whole_of(replica, start=minute(3), limit=3), answer(minutes(3, 5)))
    assert found == Finding(seen=minute(5), compared=2)


def test_an_empty_answer_says_nothing() -> None:
    replica = begun(minutes(0, 5))
    found = compare(replica, whole_of(replica), ())
    assert found == Finding(ends=True)
    assert (found.seen, found.compared, found.differing, found.absent) == (None, 0, (), ())


# --- the last candles


def test_a_series_is_looked_at_in_its_own_phase() -> None:
    assert agenda_of(BTC, jitter=0.0).due_at() == 0.0
    assert agenda_of(BTC, jitter=0.5).due_at() == 5.0
    assert Agenda(SETTINGS, lambda: 0.5).due_at() is None


def test_the_last_candles_are_asked_for_with_a_later_row_that_makes_them_final() -> None:
    agenda = agenda_of(BTC)
    question = asked(agenda, begun([*minutes(0, 30), forming(minute(31))]), 5.0)
    assert question == Question(BTC, minute(28), 5, minute(30), False, question.turn if question else 0)


def test_what_was_compared_is_asked_for_no_more_until_another_candle_has_closed() -> None:
    agenda, replica = agenda_of(BTC), begun([*minutes(0, 30), forming(minute(31))])
    first = asked(agenda, replica, 5.0)
    assert first is not None
    agenda.answered(first, Finding(seen=minute(31), compared=3), 5.5)
    assert agenda.next(15.4) is None
    assert asked(agenda, replica, 15.5) is None
    replica.apply(then(replica, candle(minute(31))))
    again = asked(agenda, replica, 25.5)
    assert again is not None
    assert again.start == minute(28), "the last ones are compared again, for nothing"
    assert again.limit == 6


def test_rows_that_are_not_there_yet_are_asked_for_again_after_a_growing_pause() -> None:
    agenda, replica, now = agenda_of(BTC), begun(minutes(0, 30)), 5.0
    pauses = []
    for _ in range(6):
        question = asked(agenda, replica, now)
        assert question is not None
        agenda.answered(question, Finding(ends=True), now)
        due_at = agenda.due_at()
        assert due_at is not None
        pauses.append(due_at - now)
        now = due_at
    assert pauses == [10.0, 20.0, 40.0, 80.0, 80.0, 80.0]
    question = asked(agenda, replica, now)
    assert question is not None
    agenda.answered(question, Finding(seen=minute(30), compared=2, ends=True), now)
    assert agenda.due_at() == now + 10.0
    question = asked(agenda, replica, now + 10.0)
    assert question is not None
    agenda.failed(question, now + 10.0)
    assert agenda.due_at() == now + 20.0, "the pause begins anew"


def test_rows_that_do_not_go_on_are_asked_for_again_after_a_growing_pause_unless_there_are_no_more() -> None:
    agenda, replica = agenda_of(BTC), begun([*minutes(0, 30), forming(minute(31))])
    for now, ends, pause in ((5.0, False, 10.0), (15.0, False, 20.0), (35.0, True, 10.0), (45.0, False, 10.0)):
        question = asked(agenda, replica, now)
        assert question is not None
        agenda.answered(question, Finding(seen=question.start, ends=ends), now)
        assert agenda.due_at() == now + pause


def test_what_is_put_off_is_asked_the_next_time() -> None:
    agenda, replica = agenda_of(BTC), begun([*minutes(0, 30), forming(minute(31))])
    question = asked(agenda, replica, 5.0)
    assert question is not None
    agenda.put_off(question, 5.0)
    assert agenda.due_at() == 15.0
    assert asked(agenda, replica, 15.0) == question


def test_an_answer_that_is_full_before_the_newest_is_final_is_gone_on_with_at_once() -> None:
    agenda, replica = agenda_of(BTC), begun([*minutes(0, 30), forming(minute(31))])
    question = asked(agenda, replica, 5.0)
    assert question is not None
    agenda.answered(question, Finding(seen=minute(30), compared=2), 5.0)
    assert agenda.due_at() == 5.0
    again = asked(agenda, replica, 5.0)
    assert again is not None
    agenda.answered(again, Finding(seen=minute(31), compared=3), 5.0)
    assert agenda.due_at() == 15.0


def test_the_first_closed_candle_of_a_series_is_compared() -> None:
    agenda = agenda_of(BTC)
    question = asked(agenda, begun([candle(minute(0)), forming(minute(1))]), 5.0)
    assert question is not None
    assert (question.start, question.newest) == (minute(0), minute(0))


def test_an_answer_that_is_behind_leaves_the_rest_to_the_next_one() -> None:
    agenda, replica = agenda_of(BTC), begun(minutes(0, 30))
    question = asked(agenda, replica, 5.0)
    assert question is not None
    agenda.answered(question, Finding(seen=minute(30), compared=2, ends=True), 5.0)
    again = asked(agenda, replica, 15.0)
    assert again is not None, "the newest was not final in it"
    assert again.start == minute(27)


def test_a_difference_is_looked_at_once_more() -> None:
    agenda, replica = agenda_of(BTC), begun([*minutes(0, 30), forming(minute(31))])
    different = Finding(seen=minute(31), compared=3, differing=(minute(29),))
    for now in (5.0, 15.0):
        question = asked(agenda, replica, now)
        assert question is not None
        assert question.start <= minute(29)
        agenda.answered(question, different, now)
        assert agenda.due_at() == now + 10.0
    assert asked(agenda, replica, 25.0) is None, "REST that says now this and now that is not followed for ever"


def test_what_is_absent_is_counted_once() -> None:
    agenda, replica = agenda_of(BTC), begun(minutes(0, 30))
    counts = []
    for now in (5.0, 15.0, 25.0):
        question = asked(agenda, replica, now)
        assert question is not None
        finding = Finding(seen=minute(30), compared=1, absent=(minute(29),), ends=True)
        counts.append(agenda.answered(question, finding, now).absent)
    assert counts == [1, 0, 0]


def test_what_is_absent_is_counted_once_also_when_the_series_has_gone_on_and_is_compared_as_a_whole() -> None:
    agenda, replica = agenda_of(BTC), begun([*minutes(0, 30), forming(minute(31))])
    rows = [row for row in minutes(0, 100) if row.open_time not in (minute(0), minute(1), minute(29))]
    counts, tail = [], 31
    for now in (5.0, 15.0, 25.0, 600.0):
        question = asked(agenda, replica, now)
        assert question is not None
        known = [row for row in rows if question.start <= row.open_time <= minute(tail)][: question.limit]
        counts.append(agenda.answered(question, compare(replica, question, answer(known)), now).absent)
        replica.apply(then(replica, *minutes(tail, tail + 5), forming(minute(tail + 6))))
        tail += 6
    assert counts == [1, 0, 0, 2]
    assert question is not None
    assert question.is_whole
    longer = begun([*minutes(1, 60), forming(minute(61))])
    agenda.add(ETH, 0.0)
    agenda.remove(ETH)
    question = asked(agenda, longer, 2000.0)
    assert question is not None
    assert question.start == minute(1)
    agenda.answered(question, Finding(seen=minute(50)), 2000.0)
    assert agenda._subjects[BTC].absent == {minute(1), minute(29)}, "of what the series no longer holds nothing is kept"


def test_nothing_is_asked_of_a_series_that_is_not_live_or_has_no_closed_candle() -> None:
    agenda = agenda_of(BTC)
    assert asked(agenda, None, 5.0) is None
    assert asked(agenda, Replica(BTC, 100), 15.0) is None
    assert asked(agenda, begun([forming(minute(0))]), 25.0) is None
    assert agenda.due_at() == 35.0


# --- the whole series


def test_a_whole_series_is_gone_through_in_pages_that_join() -> None:
    agenda, replica = agenda_of(BTC), begun([*minutes(0, 119), forming(minute(120))])
    starts = []
    outcome = Outcome()
    while not outcome.is_whole:
        question = asked(agenda, replica, 600.0)
        assert question is not None
        assert question.is_whole
        starts.append(question.start)
        rows = answer(
            [*minutes(0, 119), forming(minute(120))][(question.start - minute(0)) // 60_000 :][: question.limit]
        )
        outcome = agenda.answered(question, compare(replica, question, rows), 600.0)
    assert starts == [minute(0), minute(49), minute(98)], "each page begins with the row that was not final in the last"
    assert agenda.ages(700.0) == {BTC: 100.0}
    assert agenda.due_at() == 610.0
    assert asked(agenda, replica, 610.0) is None
    assert asked(agenda, replica, 1599.0) is None
    again = asked(agenda, replica, 1609.0)
    assert again is not None
    assert again.is_whole


def test_going_through_begins_anew_when_the_series_was_not_live_meanwhile() -> None:
    agenda, replica = agenda_of(BTC), begun([*minutes(0, 119), forming(minute(120))])
    question = asked(agenda, replica, 600.0)
    assert question is not None
    agenda.answered(question, Finding(seen=minute(49), compared=49), 600.0)
    assert asked(agenda, None, 600.0) is None
    question = asked(agenda, replica, 610.0)
    assert question is not None
    assert question.start == minute(0)


def test_going_through_a_series_that_is_behind_leaves_what_was_compared_before_as_it_was() -> None:
    agenda, replica = agenda_of(BTC, jitter=0.1), begun([*minutes(0, 30), forming(minute(31))])
    last = asked(agenda, replica, 5.0)
    assert last is not None
    agenda.answered(last, Finding(seen=minute(31), compared=3), 5.0)
    whole = asked(agenda, replica, 100.0)
    assert whole is not None
    assert whole.is_whole, "at the very time"
    assert agenda.answered(whole, Finding(seen=minute(20), compared=20, ends=True), 100.0).is_whole
    assert asked(agenda, replica, 110.0) is None


def test_a_series_that_was_never_compared_as_a_whole_is_as_old_as_it_is_here() -> None:
    agenda = agenda_of(BTC)
    assert agenda.ages(120.0) == {BTC: 120.0}
    question = asked(agenda, begun([*minutes(0, 30), forming(minute(31))]), 120.0)
    assert question is not None
    assert not question.is_whole
    agenda.answered(question, Finding(seen=minute(31), compared=3), 120.0)
    assert agenda.ages(120.0) == {BTC: 120.0}


def test_the_longest_overdue_comes_first() -> None:
    agenda = Agenda(SETTINGS, lambda: 0.0)
    agenda.add(ETH, 3.0)
    agenda.add(BTC, 1.0)
    assert [agenda.next(50.0), agenda.next(50.0), agenda.next(50.0)] == [BTC, ETH, None]


# --- coming and going


def test_the_answer_for_a_series_that_has_gone_means_nothing_also_when_it_is_back() -> None:
    agenda, replica = agenda_of(BTC), begun([*minutes(0, 30), forming(minute(31))])
    question = asked(agenda, replica, 5.0)
    assert question is not None
    agenda.remove(BTC)
    outcome = agenda.answered(question, Finding(seen=minute(31), absent=(minute(29),)), 6.0)
    assert (outcome.absent, outcome.is_whole) == (0, False)
    assert agenda.due_at() is None
    agenda.add(BTC, 10.0)
    for settle in (agenda.put_off, agenda.failed):
        settle(question, 11.0)
    agenda.answered(question, Finding(seen=minute(31)), 12.0)
    assert agenda.next(1e9) == BTC
    assert agenda.next(1e9) is None, "it stands on the agenda once"


def test_series_that_come_and_go_take_no_memory() -> None:
    agenda = agenda_of(ETH)
    for number in range(10_000):
        agenda.add(BTC, float(number))
        assert len(agenda._queue) <= 2 * len(agenda) + 16
        agenda.remove(BTC)
    assert len(agenda) == 1
    assert agenda.due_at() == 5.0
    assert agenda.next(5.0) == ETH, "who stayed is there"


@pytest.mark.parametrize("seed", range(20))
def test_series_that_come_and_go_leave_the_others_their_turns(seed: int) -> None:
    agenda = Agenda(SETTINGS, Random(seed).random)
    staying = [Series(f"S{number}USDT", Interval.M1) for number in range(12)]
    for number, series in enumerate(staying):
        agenda.add(series, 0.0)
        for _ in range(10):
            agenda.add(BTC, float(number))
    agenda.remove(BTC)
    agenda.remove(BTC)
    due = []
    while (now := agenda.due_at()) is not None:
        due.append(now)
        assert agenda.next(now) in staying
    assert len(due) == len(staying)
    assert due == sorted(due)


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": -0.1},
        {"share": 0.6},
        {"every": 0.0},
        {"every": 700.0},
        {"page": 5},
        {"overlap": -1},
        {"whole_every": 1.0},
        {"busy": 1.1},
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="AuditSettings"):
        AuditSettings(**wrong)  # type: ignore[arg-type]  # a dictionary of floats


@pytest.mark.parametrize(
    "extreme",
    [
        {"share": 0.0, "busy": 0.0},
        {"share": 1.0, "busy": 1.0},
        {"every": 0.5, "back_off_cap": 0.5, "whole_every": 0.5},
        {"overlap": 0, "page": 3},
    ],
)
def test_settings_that_can_just_be(extreme: dict[str, float]) -> None:
    AuditSettings(**extreme)  # type: ignore[arg-type]  # a dictionary of floats


@pytest.mark.parametrize("value", [AuditSettings(), Finding(), Outcome(), Question(BTC, 0, 3, 0, False, 0)])
def test_what_was_decided_does_not_change(value: AuditSettings | Finding | Outcome | Question) -> None:
    with pytest.raises(AttributeError):
        setattr(value, value.__struct_fields__[0], 0)


# --- whatever happens


class Exchange:
    """What is true of a series, and a replica of it; candles change in one of them."""

    def __init__(self, series: Series) -> None:
        self.series = series
        self.candles = minutes(0, 9)
        self.replica = begun(self.candles, series=series, history=120)

    def close(self) -> None:
        number = len(self.candles)
        self.candles += minutes(number, number)
        self.replica.apply(then(self.replica, self.candles[-1]))

    def rewrite(self, back: int) -> None:
        number = max(0, len(self.candles) - 1 - back)
        self.candles[number] = candle(minute(number), "1.00000000", trades=self.candles[number].trades + 1)

    def rows(self, question: Question, behind: int) -> Sequence[Candle]:
        known = [*self.candles, forming(minute(len(self.candles)))][: len(self.candles) + 1 - behind]
        return answer([row for row in known if row.open_time >= question.start][: question.limit])

    def correct(self, finding: Finding) -> None:
        changed = [self.candles[(time - minute(0)) // 60_000] for time in finding.differing]
        if changed:
            self.replica.apply(then(self.replica, *changed))

    def is_true(self) -> bool:
        return [entry.candle for entry in self.replica.newest(120)] == self.candles[-120:]


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("close"), st.integers(0, 1), st.integers(1, 60)),
        st.tuples(st.just("rewrite"), st.integers(0, 1), st.integers(0, 130)),
        st.tuples(st.just("behind"), st.integers(0, 1), st.integers(0, 8)),
        st.tuples(st.sampled_from(["fail", "put off", "syncing", "leave"]), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("look"), st.integers(0, 1), st.integers(1, 40)),
    ),
    max_size=40,
)


@given(EVENTS, st.floats(0, 0.99))
def test_whatever_happens_no_series_is_forgotten_and_in_the_end_all_is_true(
    events: list[tuple[str, int, int]], jitter: float
) -> None:
    exchanges = {series: Exchange(series) for series in (BTC, ETH)}
    agenda = agenda_of(*exchanges, jitter=jitter)
    now = 0.0
    behind, troubles = dict.fromkeys(exchanges, 0), dict.fromkeys(exchanges, "")

    def look(until: float) -> None:
        nonlocal now
        questions = Counter[tuple[Series, float]]()
        while (due_at := agenda.due_at()) is not None and due_at <= until:
            now = max(now, due_at)
            series = agenda.next(now)
            assert series is not None
            trouble, troubles[series] = troubles[series], ""
            exchange = exchanges[series]
            question = agenda.ask(series, None if trouble == "syncing" else exchange.replica, now)
            if question is None:
                continue
            questions[series, now] += 1
            # No tight loop: a whole series has four pages at most, of which one may have to be looked at again.
            assert questions[series, now] <= 5
            assert trouble != "syncing"
            assert 1 <= question.limit <= SETTINGS.page
            match trouble:
                case "fail":
                    agenda.failed(question, now)
                case "put off":
                    agenda.put_off(question, now)
                case "leave":
                    agenda.remove(series)
                    agenda.add(series, now)
                    agenda.answered(question, Finding(), now)
                case _:
                    finding = compare(exchange.replica, question, exchange.rows(question, behind[series]))
                    exchange.correct(finding)
                    agenda.answered(question, finding, now)
        now = max(now, until)

    for event, which, number in events:
        series = (BTC, ETH)[which]
        match event:
            case "close":
                for _ in range(number):
                    exchanges[series].close()
            case "rewrite":
                exchanges[series].rewrite(number)
            case "behind":
                behind[series] = number
            case "look":
                look(now + number)
            case trouble:
                troubles[series] = trouble
        assert len(agenda) == 2
        assert agenda.due_at() is not None
    behind.update(dict.fromkeys(exchanges, 0))
    # At most: the longest pause, one that is whole, and what there is to look at again.
    look(now + SETTINGS.back_off_cap + SETTINGS.whole_every + 10 * SETTINGS.every)
    for series, exchange in exchanges.items():
        assert exchange.is_true()
        assert agenda.ages(now)[series] <= SETTINGS.back_off_cap + SETTINGS.whole_every + 10 * SETTINGS.every


def test_the_same_events_make_the_same_questions() -> None:
    def questions() -> list[tuple[float, Question]]:
        phases = iter([number / 50 % 1 for number in range(7, 700, 7)])
        agenda = Agenda(SETTINGS, lambda: next(phases))
        replicas = {}
        for number in range(40):
            series = Series(f"S{number}USDT", Interval.M1)
            replicas[series] = begun([*minutes(0, 30), forming(minute(31))], series=series)
            agenda.add(series, 0.0)
        found = []
        for _ in range(400):
            now = agenda.due_at()
            assert now is not None
            series_due = agenda.next(now)
            assert series_due is not None
            question = agenda.ask(series_due, replicas[series_due], now)
            if question is not None:
                found.append((now, question))
                agenda.answered(question, Finding(seen=minute(31), compared=3), now)
        return found

    first = questions()
    assert len(first) >= 40
    assert first == questions()
