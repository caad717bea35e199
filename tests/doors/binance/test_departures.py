"""Where departed streams stopped, and who goes on from there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from candlesync.doors.binance.departures import Departures, Key

KEY = Key("192.0.2.1", b"ccxt", "btcusdt@kline_1m")


def test_who_comes_back_goes_on_from_its_place_and_only_once() -> None:
    departures = Departures()
    assert departures.take(KEY, 0) is None
    departures.remember(KEY, 100, 0)
    assert departures.take(KEY, 10) == 100
    assert departures.take(KEY, 10) is None
    assert len(departures) == 0
    departures.remember(KEY, 100, 20)
    assert departures.statistics() == (2, 1, 1)


def test_another_address_program_or_stream_is_another_client() -> None:
    departures = Departures()
    departures.remember(KEY, 100, 0)
    for other in ({"address": "other"}, {"program": b"other"}, {"stream": "other"}):
        assert departures.take(KEY._replace(**other), 1) is None
    assert departures.take(KEY, 1) == 100


def test_a_departure_is_forgotten_after_some_minutes() -> None:
    departures = Departures(kept=300)
    departures.remember(KEY, 100, 0)
    departures.remember(KEY, 200, 100)
    assert departures.take(KEY, 399) == 200
    departures.remember(KEY, 300, 400)
    assert departures.take(KEY, 701) is None
    assert len(departures) == 0


def test_the_latest_departure_counts_not_that_of_a_client_that_is_gone_for_good() -> None:
    departures = Departures(together=60)
    departures.remember(KEY, 100, 0)
    departures.remember(KEY, 300, 200)
    assert departures.take(KEY, 201) == 300
    assert departures.take(KEY, 202) == 100


def test_clients_that_left_together_go_without_nothing_in_whatever_order_they_come_back() -> None:
    departures = Departures(together=60)
    for place, at in ((200, 0), (100, 30), (300, 60)):
        departures.remember(KEY, place, at)
    assert [departures.take(KEY, 61) for _ in range(4)] == [100, 100, 100, None]


def test_the_oldest_is_forgotten_when_there_are_too_many() -> None:
    departures = Departures(most=3)
    for number in range(5):
        departures.remember(KEY._replace(stream=str(number)), number, number)
    assert len(departures) == 3
    assert [departures.take(KEY._replace(stream=str(number)), 5) for number in range(5)] == [None, None, 2, 3, 4]


STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 200)), max_size=40)


@given(steps=STEPS, most=st.integers(1, 10))
def test_no_successor_starts_behind_a_place_that_it_was_not_given_or_beyond_the_bound(
    steps: list[tuple[str, int, int]], most: int
) -> None:
    """Against a plain model: all that left and was neither taken over nor has become old."""
    departures = Departures(kept=300, together=60, most=most)
    known: list[tuple[str, float, int]] = []
    now = 0.0
    for stream, place, pause in steps:
        now += pause
        known = [departure for departure in known if departure[1] > now - 300][-most:]
        key = KEY._replace(stream=stream)
        if place:
            departures.remember(key, place, now)
            known = [*known, (stream, now, place)][-most:]
        else:
            taken = departures.take(key, now)
            own = [departure for departure in known if departure[0] == stream]
            together = [departure for departure in own if departure[1] >= own[-1][1] - 60]
            assert taken == min((departure[2] for departure in together), default=None)
            if together:
                known.remove(max(together, key=lambda departure: departure[2]))
        assert len(departures) == len(known) <= most


def test_what_all_nodes_know_is_known_better() -> None:
    departures = Departures()
    for place in (100, 200):
        departures.remember(KEY, place, 0)
    departures.note_taken(KEY, 100, 1)
    assert departures.take(KEY, 1) == 100
    departures.remember(KEY, 300, 2)
    departures.note_taken(KEY, None, 3)
    assert departures.take(KEY, 3) is None
    departures.note_taken(KEY, 400, 4)
    assert departures.statistics() == (3, 3, 0)


def test_a_stores_key_tells_apart_whose_streams_are_apart_and_no_address() -> None:
    others = (KEY, KEY._replace(address="other"), KEY._replace(program=b"other"), KEY._replace(stream="other"))
    assert len({key.digest for key in others}) == 4
    assert len(KEY.digest) == 32
