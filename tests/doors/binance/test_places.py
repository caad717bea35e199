"""Where the present streams of a process are, and what of it a store is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from candlesync.core.departure import Stop
from candlesync.doors.binance.places import Changes, Places, Standing


def tell(places: Places) -> Changes:
    changes = places.take(1000)
    places.note_told(changes)
    return changes


def test_a_place_is_told_when_it_has_been_one_for_a_turn() -> None:
    places = Places()
    standing = places.join("a", 100)
    assert tell(places) == ([Stop("a", 100, 1)], [])
    places.move(standing, 200)
    assert tell(places) == ([], [])
    places.turn()
    assert tell(places) == ([], [])
    places.move(standing, 300)
    places.turn()
    assert tell(places) == ([Stop("a", 200, 1)], [])
    places.turn()
    assert tell(places) == ([Stop("a", 300, 1)], [])
    places.turn()
    assert places.waiting == 0


def test_who_leaves_is_told_at_once_with_the_place_of_now() -> None:
    places = Places()
    standing, other = places.join("a", 100), places.join("b", 100)
    tell(places)
    places.move(standing, 200)
    places.leave(standing, 200)
    places.leave(other, None)
    assert places.has_departed(["a"])
    assert not places.has_departed(["b"])
    assert tell(places) == ([Stop("a", 0, 0), Stop("b", 0, 0)], [Stop("a", 200, 1)])
    places.turn()
    places.turn()
    assert (places.waiting, places.keys_told, len(places)) == (0, 0, 0)


def test_several_that_are_the_same_are_at_the_earliest_of_their_places() -> None:
    places = Places()
    first, second, third = (places.join("a", place) for place in (100, 200, 300))
    assert tell(places) == ([Stop("a", 100, 3)], [])
    places.leave(first, 150)
    places.leave(third, 400)
    assert tell(places) == ([Stop("a", 200, 1)], [Stop("a", 150, 2)])
    places.leave(second, 300)
    assert tell(places) == ([Stop("a", 0, 0)], [Stop("a", 300, 1)])


def test_of_what_is_beyond_the_bound_nobody_is_told_and_the_rest_waits_its_turn() -> None:
    places = Places(most=3)
    standings = [places.join(str(number), number) for number in range(5)]
    assert len(places) == 3
    assert places.take(2) == ([Stop("0", 0, 1), Stop("1", 1, 1)], [])
    assert places.take(2, present=0) == ([], [])
    assert places.has_more(1)
    assert not places.has_more(0)
    assert places.take(2) == ([Stop("2", 2, 1)], [])
    for standing in standings:
        places.leave(standing, 9)
    assert [stop.key for stop in places.take(10).departed] == ["0", "1", "2"]


STEPS = st.lists(
    st.tuples(st.sampled_from(["join", "move", "leave", "drop", "turn", "tell", "fail"]), st.integers(0, 9)),
    max_size=60,
)


@given(STEPS)
def test_a_store_never_lacks_a_stream_and_never_has_it_further_than_it_is(steps: list[tuple[str, int]]) -> None:
    """Against a plain store: what it holds once all has been told, after any steps and failures."""
    places = Places()
    present: list[Standing] = []
    left: dict[str, list[int]] = {}
    held: dict[str, Stop] = {}
    departed: dict[str, list[Stop]] = {}

    def keep(changes: Changes) -> None:
        for stop in changes.present:
            held[stop.key] = stop
        for stop in changes.departed:
            departed.setdefault(stop.key, []).append(stop)
        places.note_told(changes)

    for time, (step, number) in enumerate(steps, 1):
        match step:
            case "join":
                present.append(places.join("abc"[number % 3], time))
            case "move" if present:
                places.move(present[number % len(present)], time)
            case "leave" if present:
                standing = present.pop(number % len(present))
                left.setdefault(standing.key, []).append(standing.place)
                places.leave(standing, standing.place)
            case "drop" if present:
                places.leave(present.pop(number % len(present)), None)
            case "turn":
                places.turn()
            case "tell":
                keep(places.take(1 + number % 2))
            case "fail":
                places.put_back(places.take(1 + number))
    for is_settled in (False, True):
        while places.waiting:
            keep(places.take(2))
        for key in "abc":
            here = [standing.place for standing in present if standing.key == key]
            stop = held.get(key, Stop(key, 0, 0))
            assert stop.streams == len(here)
            assert not here or stop.place <= min(here)
            assert not here or not is_settled or stop.place == min(here)
            gone = departed.get(key, [])
            assert sum(one.streams for one in gone) == len(left.get(key, []))
            assert not gone or min(one.place for one in gone) == min(left[key])
        places.turn()
        places.turn()
    assert places.keys_told == len({standing.key for standing in present})
