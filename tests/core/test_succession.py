"""When a node is to claim a symbol."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from candlesync.core.interval import Interval
from candlesync.core.placement import Assembly, Member
from candlesync.core.succession import MOST, Succession

LEASE, BEAT, STAGGER = 2.0, 0.5, 0.3
BTC = "BTCUSDT"


def assembly(owns: Mapping[str, bool]) -> Assembly:
    """Nodes that all want one symbol, which some of them own."""
    return Assembly(
        {node: Member(node, {BTC: (Interval.M1,)}, (BTC,) if owning else ()) for node, owning in owns.items()}
    )


def seen(node: str, there: Assembly, *, at: float = 100.0) -> Succession:
    """A node that has long been there, with the last news at ``at``."""
    succession = Succession(node, lease=LEASE, beat=BEAT, stagger=STAGGER)
    now = at - 10
    while now < at:
        succession.learn(there, asked=now, now=now)
        now += BEAT
    succession.learn(there, asked=at, now=at)
    return succession


def order(there: Assembly, *, without: str = "", first: str = "") -> list[str]:
    return sorted(there.members, key=lambda node: there.rank(node, BTC, without=without, first=first))


def test_a_node_that_has_come_lets_a_beat_pass_before_it_claims() -> None:
    succession = Succession("a", lease=LEASE, beat=BEAT, stagger=STAGGER)
    assert succession.turn(BTC, 99) == math.inf, "it does not know who is there"
    assert succession.learn(assembly({"a": False}), asked=100, now=100.1)
    assert succession.turn(BTC, 100.1) == 100.1 + BEAT
    succession.learn(assembly({"a": False}), asked=100.6, now=100.6)
    assert succession.turn(BTC, 100.6) == 100.1 + BEAT


ETH = "ETHUSDT"


def came_to(*, owns: bool) -> tuple[Succession, Assembly]:
    """A node that has come at 100 to one that wants the same symbol, and owns another one or none."""
    wants: dict[str, tuple[Interval, ...]] = {BTC: (Interval.M1,), ETH: (Interval.M1,)}
    there = Assembly({"new": Member("new", wants, ()), "old": Member("old", wants, (ETH,) if owns else ())})
    succession = Succession("new", lease=LEASE, beat=BEAT, stagger=STAGGER)
    succession.learn(there, asked=100.0, now=100.0)
    return succession, there


def turn_at(succession: Succession, there: Assembly, now: float) -> float:
    """Its turn at a time, with the news of each beat until then."""
    for beat in range(1, round((now - 100.0) / BEAT) + 1):
        succession.learn(there, asked=100.0 + beat * BEAT, now=100.0 + beat * BEAT)
    return succession.turn(BTC, now)


def test_who_has_just_come_to_owners_lets_them_go_first_where_an_owner_has_died() -> None:
    """They have heard it, and may know more than the store."""
    succession, there = came_to(owns=True)
    succession.refused(BTC, "dead", 1.0, 100.5)
    in_turn = 101.5 + there.rank("new", BTC, without="dead") * STAGGER
    assert turn_at(succession, there, 101.5) == pytest.approx(101.5 + BEAT + 2 * STAGGER)
    assert turn_at(succession, there, 103.5) == pytest.approx(101.5 + BEAT + 2 * STAGGER)
    assert turn_at(succession, there, 104.0) == pytest.approx(in_turn), "it is new for two leases"
    succession, there = came_to(owns=False)
    succession.refused(BTC, "dead", 1.0, 100.5)
    in_turn = 101.5 + there.rank("new", BTC, without="dead") * STAGGER
    assert turn_at(succession, there, 101.5) == pytest.approx(in_turn), "all have come together"


def test_when_those_who_own_something_are_gone_it_goes_when_it_is_its_turn() -> None:
    succession, _ = came_to(owns=True)
    succession.refused(BTC, "dead", 1.0, 100.5)
    alone = Assembly({"new": Member("new", {BTC: (Interval.M1,)}, ())})
    assert turn_at(succession, alone, 101.5) == 101.5


def test_what_it_hears_of_no_owner_of_it_claims_after_a_lease() -> None:
    succession, there = came_to(owns=True)
    assert turn_at(succession, there, 100.0) == 100.0 + LEASE
    assert turn_at(succession, there, 102.0) == pytest.approx(100.0 + LEASE + BEAT + 2 * STAGGER)
    succession, there = came_to(owns=False)
    assert turn_at(succession, there, 100.0) == 100.0 + BEAT


def test_what_is_named_to_who_has_just_come_it_takes_at_once() -> None:
    succession, _ = came_to(owns=True)
    succession.released(BTC, "old", "new", 100.2)
    assert succession.turn(BTC, 100.2) == 100.2


def test_what_nobody_owns_is_claimed_at_once_by_the_first_and_by_the_others_in_turn() -> None:
    there = assembly(dict.fromkeys("abc", False))
    turns = [seen(node, there).turn(BTC, 100.2) for node in order(there)]
    assert turns == pytest.approx([100.2, 100.2 + BEAT + STAGGER, 100.2 + BEAT + 2 * STAGGER])
    assert seen("d", there).turn(BTC, 100.2) == pytest.approx(100.2 + BEAT + 3 * STAGGER), "it is not known to want it"
    assert seen("d", assembly({})).turn(BTC, 100.2) == 100.2


def test_whoever_says_that_it_owns_a_symbol_is_given_the_time_of_a_lease() -> None:
    there = assembly({"a": False, "b": True})
    succession = seen("a", there)
    assert succession.turn(BTC, 100.2) == 102.2
    succession.learn(there, asked=101, now=101)
    succession.reported(BTC, "b", 101)
    assert succession.turn(BTC, 102.2) == 103


def test_a_lease_after_it_was_last_heard_of_an_owners_symbol_is_claimed_in_turn() -> None:
    there = assembly({"a": True, "b": False, "c": False})
    expected = [103.0, 103.0 + STAGGER]
    for node, turn in zip(order(there, without="a"), expected, strict=False):
        succession = seen(node, there, at=103)
        succession.reported(BTC, "a", 101)
        assert succession.turn(BTC, 103) == turn


def test_the_time_that_the_store_says_counts() -> None:
    there = assembly({"a": False, "b": True})
    succession = seen("a", there)
    succession.reported(BTC, "b", 100)
    succession.refused(BTC, "b", 0.7, 100.2)
    assert succession.turn(BTC, 100.2) == pytest.approx(100.9)
    succession.refused(BTC, "b", 0, 100.2)
    assert 100.2 < succession.turn(BTC, 100.2) < 100.21, "not asked again in the same moment"


def test_what_was_released_is_claimed_by_the_successor_at_once() -> None:
    there = assembly({"a": True, "b": False, "c": False})
    for successor, other in (("b", "c"), ("c", "b")):
        turns = {}
        for node in (successor, other):
            succession = seen(node, there)
            succession.released(BTC, "a", successor, 100.1)
            turns[node] = succession.turn(BTC, 100.1)
        assert turns == {successor: 100.1, other: pytest.approx(100.1 + STAGGER)}


def test_whoever_gave_a_symbol_up_to_a_successor_waits_for_a_lease_and_for_all_others() -> None:
    there = assembly({"a": True, "b": False, "c": False})
    succession = seen("a", there, at=102.2)
    succession.given_up(BTC, "b", 100.2)
    assert succession.turn(BTC, 102.1) == pytest.approx(102.2)
    assert succession.turn(BTC, 102.3) == pytest.approx(102.2 + 2 * STAGGER)
    succession = seen("a", assembly({"a": True}))
    succession.given_up(BTC, "", 100.2)
    assert succession.turn(BTC, 100.2) == 100.2, "there is nobody else"


def test_what_was_lost_is_not_claimed_before_news_of_who_is_there() -> None:
    there = assembly({"a": True, "b": False})
    succession = seen("a", there)
    succession.lost(BTC, 100.1)
    assert succession.turn(BTC, 100.1) == math.inf
    now_there = assembly({"a": False, "b": True})
    assert succession.learn(now_there, asked=100.2, now=100.2)
    assert succession.turn(BTC, 100.2) == 102.2, "another owns it"
    succession.lost(BTC, 103)
    assert succession.turn(BTC, 102.2) == math.inf
    succession.learn(assembly({"a": False}), asked=103.0, now=103.0)
    assert succession.turn(BTC, 103.0) == 103.0, "nobody owns it: the store was wiped"


def test_what_was_lost_may_be_claimed_as_soon_as_there_is_news_even_if_nothing_is_new() -> None:
    there = assembly({"a": False})
    succession = seen("a", there)
    succession.lost(BTC, 100.1)
    assert succession.learn(there, asked=100.2, now=100.2)
    assert succession.turn(BTC, 100.2) == 100.2


def test_what_was_lost_to_a_node_that_was_heard_is_that_nodes() -> None:
    succession = seen("a", assembly({"a": True, "b": False}))
    succession.reported(BTC, "b", 100.1)
    succession.lost(BTC, 100.2)
    assert succession.turn(BTC, 100.2) == 102.1
    succession.lost(BTC, 102.1)
    assert succession.turn(BTC, 101) == math.inf, "once its lease has ended, there is no telling"


def test_what_was_obtained_is_forgotten() -> None:
    succession = seen("a", assembly({"a": False, "b": False}))
    succession.reported(BTC, "b", 99.5)
    succession.obtained(BTC)
    succession.obtained("ETHUSDT")
    succession.lost(BTC, 100.1)
    assert succession.turn(BTC, 100.1) == math.inf


def test_without_news_nothing_is_claimed_and_after_an_outage_each_owner_has_the_time_of_a_lease() -> None:
    there = assembly({"a": False, "b": True})
    succession = seen("a", there)
    succession.reported(BTC, "b", 99.9)
    succession.given_up("ETHUSDT", "", 99.9)
    assert succession.turn(BTC, 101) == pytest.approx(101.9)
    assert succession.turn(BTC, 101.3) == math.inf, "its lease might end, but the store seems to be away"
    assert succession.learn(there, asked=110, now=110.1)
    assert succession.turn(BTC, 110.1) == pytest.approx(112.1)
    assert succession.turn("ETHUSDT", 110.1) == pytest.approx(112.1), "what is known of it is old"
    assert succession.turn("LTCUSDT", 110.1) == pytest.approx(112.1)
    succession.released(BTC, "b", "a", 110.2)
    assert succession.turn(BTC, 110.2) == 110.2, "that is news"


def test_an_outage_shortens_no_lease_that_the_store_told_of() -> None:
    there = assembly({"a": False, "b": True})
    succession = seen("a", there)
    succession.refused(BTC, "b", 60.0, 100.0)
    succession.learn(there, asked=110, now=110.1)
    assert succession.turn(BTC, 110.1) == pytest.approx(160.0)


def test_what_is_released_to_a_node_that_has_just_come_is_not_put_off_by_the_next_news() -> None:
    there = assembly({"a": False, "b": True})
    succession = Succession("a", lease=LEASE, beat=BEAT, stagger=STAGGER)
    succession.learn(there, asked=100, now=100)
    succession.released(BTC, "b", "a", 100.2)
    succession.learn(there, asked=100.3, now=100.3)
    assert succession.turn(BTC, 100.3) == 100.2


def test_the_store_counts_as_away_before_a_lease_can_end_that_was_renewed_at_the_beat_before() -> None:
    succession = seen("a", assembly({"a": False, "b": True}))
    succession.lost("ETHUSDT", 100)
    assert succession.turn(BTC, 100 + 2 * BEAT) < math.inf, "one beat that was missed is nothing"
    assert succession.turn(BTC, 100 + 2.5 * BEAT) < math.inf
    assert succession.turn(BTC, 100 + LEASE - BEAT) == math.inf


def test_only_what_may_bring_a_turn_forward_is_said_to() -> None:
    there = assembly({"a": False, "b": True})
    succession = seen("a", there)
    assert not succession.learn(there, asked=100.5, now=100.5)
    assert succession.learn(assembly({"a": False}), asked=101, now=101)


def test_the_successor_is_whom_the_placement_names_and_never_oneself() -> None:
    assert seen("a", assembly({"a": True, "b": False})).successor(BTC) == "b"
    assert seen("b", assembly({"a": True, "b": False})).successor(BTC) == "a"
    assert seen("a", assembly({"a": True})).successor(BTC) == ""
    assert seen("a", assembly({"a": True})).successor("ETHUSDT") == ""


def test_symbols_that_there_are_not_do_not_fill_the_memory() -> None:
    succession = seen("b", assembly({"a": True, "b": False}))
    for number in range(MOST + 10):
        succession.reported(f"X{number}", "a", 100)
    assert len(succession._outlooks) == MOST == 10_000


def test_of_what_was_heard_of_lately_most_is_known() -> None:
    succession = seen("b", assembly({"a": True, "b": False}))
    for number in range(MOST):
        succession.reported(f"X{number}", "a", 100)
    succession.reported("X0", "a", 101)
    succession.reported("X", "a", 101)
    assert succession.turn("X0", 101) == 101 + LEASE
    assert "X1" not in succession._outlooks


def test_the_successor_is_the_one_that_it_would_be_moved_to_while_this_node_stays() -> None:
    symbols = [f"S{number}USDT" for number in range(5)]
    wants: dict[str, tuple[Interval, ...]] = dict.fromkeys(symbols, (Interval.M1,))
    there = Assembly({node: Member(node, wants, tuple(symbols) if node == "a" else ()) for node in "abc"})
    succession = seen("a", there)
    moved = {symbol: node for symbol, node in there.placement().items() if node != "a"}
    assert {symbol: succession.successor(symbol) for symbol in moved} == moved
    assert moved != {symbol: there.placement("a")[symbol] for symbol in moved}, "were it gone, others would be"
    assert all(succession.successor(symbol) in ("b", "c") for symbol in symbols)


def test_before_any_news_nobody_is_there() -> None:
    succession = Succession("a", lease=LEASE, beat=BEAT, stagger=STAGGER)
    assert dict(succession.assembly.members) == {}
    assert succession.successor(BTC) == ""


def test_a_node_alone_that_owns_something_lets_nobody_go_first() -> None:
    succession = Succession("a", lease=LEASE, beat=BEAT, stagger=STAGGER)
    succession.learn(assembly({"a": True}), asked=100, now=100)
    assert succession.turn("ETHUSDT", 100) == 100 + BEAT, "as where nobody owns anything"


def test_before_any_news_a_node_does_not_count_as_new() -> None:
    succession = Succession("a", lease=LEASE, beat=BEAT, stagger=STAGGER)
    succession.learn(assembly({"a": False}), asked=100, now=100)
    for beat in range(1, 40):
        succession.learn(assembly({"a": False, "b": True}), asked=100 + beat * BEAT, now=100 + beat * BEAT)
    now = 100 + 39 * BEAT
    succession.released(BTC, "b", "", now)
    rank = succession.assembly.rank("a", BTC, without="b")
    assert succession.turn(BTC, now) == now + rank * STAGGER, "others who come later do not make it new"
