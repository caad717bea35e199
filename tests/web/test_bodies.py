"""The bodies of answers are made once a revision, never served for another one, and bounded."""

from __future__ import annotations

import gc
import gzip
import weakref

from candlesync.core import wire
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.hub import Topic
from candlesync.web.bodies import Bodies, Question
from tests.builders import BTC, candle, forming, minute, minutes
from tests.web.builders import Web, commit

ALL = Question(1000, None)


def plain(bodies: Bodies, topic: Topic, question: Question = ALL) -> bytes:
    return bodies.plain(topic, question, topic.replica.newest(question.limit, question.before))


def zipped(bodies: Bodies, topic: Topic, question: Question = ALL) -> bytes:
    return bodies.gzip(topic, question, topic.replica.newest(question.limit, question.before))


async def test_each_form_of_each_question_is_made_once_a_revision() -> None:
    topic, bodies = Web().topic(minutes(0, 99)), Bodies()
    questions = [ALL, Question(50, None), Question(50, minute(70))]
    first = [made(bodies, topic, question) for question in questions for made in (plain, zipped)]
    again = [made(bodies, topic, Question(*_fields(question))) for question in questions for made in (plain, zipped)]
    assert all(one is other for one, other in zip(first, again, strict=True))
    assert len(set(first)) == 6


async def test_any_change_is_seen() -> None:
    topic, bodies = Web().topic(minutes(0, 99)), Bodies()
    snapshots = [topic.replica.snapshot()]
    seen = set()

    def look() -> None:
        body = plain(bodies, topic)
        assert body == wire.history(BTC, topic.replica.newest(1000))
        assert gzip.decompress(zipped(bodies, topic)) == body
        seen.add(body)

    look()
    commit(topic, forming(minute(100)))
    look()
    commit(topic, candle(minute(5), "1.5"))
    look()
    topic.adopt(snapshots[0])
    look()
    commit(topic, candle(minute(99), "2.5"))
    look()  # of the same revision as the second, in a store that has gone back
    commit(topic, *minutes(1, 100), life="life1")
    look()
    assert len(seen) == 5, "the store that went back shows the first again"


async def test_no_candles_at_all() -> None:
    topic, bodies = Web().topic(), Bodies()
    question = Question(1000, 0)
    assert plain(bodies, topic, question) == b"[]"


async def test_the_bodies_asked_for_last_are_kept_up_to_the_capacity() -> None:
    web = Web()
    topics = [web.topic(minutes(0, 99), series=Series(f"S{number}", Interval.M1)) for number in range(10)]
    size = len(wire.history(topics[0].series, topics[0].replica.newest(1000)))
    bodies = Bodies(capacity=3 * size)
    made = [plain(bodies, topic) for topic in topics]
    assert 2 * size < bodies.size <= 3 * size
    assert plain(bodies, topics[7]) is made[7]
    assert plain(bodies, topics[9]) is made[9]
    plain(bodies, topics[0])
    assert plain(bodies, topics[7]) is made[7], "asked for again before the eighth was"
    assert plain(bodies, topics[8]) is not made[8]
    for _ in range(10):
        commit(topics[0], candle(minute(0), "1.5"))
        plain(bodies, topics[0])
    assert bodies.size <= 3 * size


async def test_a_body_that_is_too_long_to_be_kept_is_served_all_the_same() -> None:
    topic, bodies = Web().topic(), Bodies(capacity=100)
    assert plain(bodies, topic) == wire.history(BTC, topic.replica.newest(1000))
    assert bodies.size == 0


async def test_nothing_holds_a_series_that_is_followed_no_more() -> None:
    web, bodies = Web(), Bodies()
    topic = web.topic(minutes(0, 299))
    zipped(bodies, topic)
    gone, oldest = weakref.ref(topic), weakref.ref(topic.replica)
    web.hub.close(BTC)
    del topic
    gc.collect()
    assert gone() is None
    assert oldest() is None


def _fields(question: Question) -> tuple[int, int | None]:
    return question.limit, question.before
