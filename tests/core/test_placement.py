"""Which node is to own which symbol."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from candlesync.core.interval import Interval
from candlesync.core.placement import Assembly, Member, place

SYMBOLS = [f"S{number}USDT" for number in range(40)]
NODES = [f"node{number}" for number in range(6)]


def member(wants: Iterable[str], owns: Iterable[str] = (), interval: Interval = Interval.M1) -> Member:
    return Member("host/1", dict.fromkeys(sorted(wants), (interval,)), tuple(sorted(owns)))


some_members = st.dictionaries(
    st.sampled_from(NODES),
    st.builds(member, st.sets(st.sampled_from(SYMBOLS)), st.sets(st.sampled_from(SYMBOLS))),
)
"""Nodes that want and claim to own anything, also the same and what they do not want."""


def settled(members: Mapping[str, Member]) -> dict[str, Member]:
    """The nodes when each owns what is placed on it."""
    placed = place(members)
    return {
        node: member(there.wants, (symbol for symbol, owner in placed.items() if owner == node))
        for node, there in members.items()
    }


def loads(members: Mapping[str, Member], placed: Mapping[str, str]) -> list[int]:
    counted = Counter(placed.values())
    return sorted(counted[node] for node in members)


def moved(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    return {symbol for symbol in before if symbol in after and before[symbol] != after[symbol]}


def all_want_all(nodes: Iterable[str], count: int = len(SYMBOLS)) -> dict[str, Member]:
    return {node: member(SYMBOLS[:count]) for node in nodes}


node_counts = st.integers(1, len(NODES))
symbol_counts = st.integers(0, len(SYMBOLS))


@given(some_members)
def test_each_symbol_that_is_wanted_is_placed_with_a_node_that_wants_it(members: dict[str, Member]) -> None:
    placed = place(members)
    assert set(placed) == {symbol for there in members.values() for symbol in there.wants}
    assert all(symbol in members[node].wants for symbol, node in placed.items())


@given(some_members, st.randoms(use_true_random=False))
def test_the_order_of_the_nodes_and_of_what_they_say_changes_nothing(
    members: dict[str, Member], random: Random
) -> None:
    nodes = list(members)
    random.shuffle(nodes)
    shuffled = {}
    for node in nodes:
        wants, owns = list(members[node].wants), list(members[node].owns)
        random.shuffle(wants)
        random.shuffle(owns)
        shuffled[node] = Member("", dict.fromkeys(wants, (Interval.M1,)), tuple(owns))
    assert place(shuffled) == place(members)


@given(some_members)
def test_no_symbol_is_with_a_node_when_another_that_wants_it_has_two_less(members: dict[str, Member]) -> None:
    placed = place(members)
    counted = Counter(placed.values())
    for symbol, node in placed.items():
        least = min(counted[other] for other, there in members.items() if symbol in there.wants)
        assert counted[node] - least < 2


@given(some_members)
def test_where_nothing_is_to_be_gained_nothing_moves(members: dict[str, Member]) -> None:
    there = settled(members)
    assert place(there) == place(members)


@given(node_counts, st.integers(1, len(SYMBOLS)), st.data())
def test_when_symbols_lose_their_owners_no_other_moves(nodes: int, symbols: int, data: st.DataObject) -> None:
    """As between a release and the next claim."""
    there = settled(all_want_all(NODES[:nodes], symbols))
    free = data.draw(st.sets(st.sampled_from(SYMBOLS[:symbols]), max_size=3))
    less = {node: member(was.wants, set(was.owns) - free) for node, was in there.items()}
    assert moved(place(there), place(less)) <= free


def test_who_claims_after_whom_is_a_matter_of_the_symbol_and_not_of_how_the_nodes_are_listed() -> None:
    members = all_want_all(NODES)
    one, other = Assembly(members), Assembly(dict(reversed(members.items())))
    orders = set()
    for symbol in SYMBOLS:
        ranks = {node: one.rank(node, symbol, first=NODES[0]) for node in NODES}
        assert ranks == {node: other.rank(node, symbol, first=NODES[0]) for node in NODES}
        assert sorted(ranks.values()) == list(range(len(NODES)))
        orders.add(tuple(sorted(NODES, key=ranks.__getitem__)))
    assert len(orders) > len(SYMBOLS) // 2


def test_nodes_that_come_are_given_different_symbols() -> None:
    """Each by its own hash: several that come at once do not ask for the same ones."""
    owner = member(SYMBOLS, SYMBOLS)
    taken = [
        {symbol for symbol, node in place({"owner": owner, new: member(SYMBOLS)}).items() if node == new}
        for new in NODES[:2]
    ]
    assert [len(symbols) for symbols in taken] == [len(SYMBOLS) // 2] * 2
    assert taken[0] != taken[1]


def test_of_two_that_say_they_own_a_symbol_one_is_taken_in_whatever_order_they_are_listed() -> None:
    members = {node: member(SYMBOLS, SYMBOLS) for node in NODES[:2]}
    one, other = Assembly(members), Assembly(dict(reversed(members.items())))
    owners = [one.owner(symbol) for symbol in SYMBOLS]
    assert owners == [other.owner(symbol) for symbol in SYMBOLS]
    assert set(owners) == set(NODES[:2])


def test_nodes_of_another_version_come_to_the_same_answer() -> None:
    """They are restarted one after the other: where loads do not decide, all go by the hash that has always been."""
    members = all_want_all(NODES[:3], 9)
    by_node: dict[str, list[int]] = {}
    for symbol, node in sorted(place(members).items()):
        by_node.setdefault(node, []).append(SYMBOLS.index(symbol))
    assert by_node == {"node0": [0, 1, 5], "node1": [2, 4, 8], "node2": [3, 6, 7]}


def test_a_placement_is_made_once() -> None:
    there = Assembly(all_want_all(NODES))
    assert there.placement() is there.placement()
    assert there.placement(NODES[0]) is there.placement(NODES[0])


@given(node_counts, symbol_counts)
def test_loads_are_within_one_of_each_other_where_all_want_all(nodes: int, symbols: int) -> None:
    members = all_want_all(NODES[:nodes], symbols)
    counted = loads(members, place(members))
    assert sum(counted) == symbols
    assert counted[-1] - counted[0] <= 1


@given(some_members, st.data())
def test_loads_come_to_within_one_wherever_they_began(members: dict[str, Member], data: st.DataObject) -> None:
    owners = {symbol: data.draw(st.sampled_from([*members, ""])) for symbol in SYMBOLS} if members else {}
    there = {node: member(SYMBOLS, (symbol for symbol in SYMBOLS if owners[symbol] == node)) for node in members}
    counted = loads(there, place(there))
    assert not members or counted[-1] - counted[0] <= 1


@given(st.integers(1, len(NODES) - 1), symbol_counts)
def test_a_node_that_comes_takes_its_share_and_no_other_symbol_moves(nodes: int, symbols: int) -> None:
    before = settled(all_want_all(NODES[:nodes], symbols))
    after = before | all_want_all(NODES[nodes : nodes + 1], symbols)
    moves = moved(place(before), place(after))
    assert len(moves) == symbols // (nodes + 1)
    assert {place(after)[symbol] for symbol in moves} <= {NODES[nodes]}


@given(st.integers(2, len(NODES)), symbol_counts)
def test_when_a_node_goes_only_its_own_symbols_move(nodes: int, symbols: int) -> None:
    before = settled(all_want_all(NODES[:nodes], symbols))
    after = {node: there for node, there in before.items() if node != NODES[0]}
    assert moved(place(before), place(after)) == set(before[NODES[0]].owns)
    counted = loads(after, place(after))
    assert counted[-1] - counted[0] <= 1


@given(st.integers(1, len(NODES)), symbol_counts, st.randoms(use_true_random=False))
def test_moves_made_one_by_one_are_no_more_than_all_at_once(nodes: int, symbols: int, random: Random) -> None:
    """Symbols are handed over a few at a time, and have no owner for a moment."""
    owners = {symbol: random.choice(NODES[:nodes]) for symbol in SYMBOLS[:symbols]}

    def there() -> dict[str, Member]:
        owned = {node: [symbol for symbol, owner in owners.items() if owner == node] for node in NODES[:nodes]}
        return {node: member(owners, owned[node]) for node in owned}

    at_once = moved(owners, place(there()))
    moves = []
    while left := sorted(moved(owners, place(there()))):
        symbol = random.choice(left)
        moves.append(symbol)
        owners[symbol] = ""
        owners[symbol] = place(there())[symbol]
    assert len(moves) == len(at_once)
    assert len(set(moves)) == len(moves), "none moves twice"


@given(st.integers(1, len(NODES)), st.integers(0, 4), st.randoms(use_true_random=False))
def test_while_a_placement_comes_true_it_stays_what_it_was(nodes: int, each: int, random: Random) -> None:
    """Or nodes that see different stages of it would claim the same symbols."""
    there = all_want_all(NODES[:nodes], nodes * each)
    aim = place(there)
    for symbol in random.sample(sorted(aim), len(aim) // 2):
        owner = aim[symbol]
        there[owner] = member(there[owner].wants, (*there[owner].owns, symbol))
    assert place(there) == aim


def test_equal_nodes_share_symbols_out_each_differently() -> None:
    placed = place(all_want_all(NODES[:2]))
    alternating = {symbol: NODES[number % 2] for number, symbol in enumerate(sorted(SYMBOLS))}
    assert len(moved(placed, alternating)) not in (0, len(SYMBOLS))


def test_the_same_in_every_process() -> None:
    """No hash that begins with another seed each time: nodes are processes of their own."""
    placed = place(all_want_all(NODES[:3], 6))
    assert [placed[symbol] for symbol in SYMBOLS[:6]] == [f"node{number}" for number in (0, 1, 1, 2, 2, 0)]


def test_who_goes_first_is_with_whom_the_symbol_is_placed_without_its_owner() -> None:
    there = settled(all_want_all(NODES[:4]))
    assembly = Assembly(there)
    for symbol in SYMBOLS:
        owner = assembly.owner(symbol)
        ranks = {node: assembly.rank(node, symbol, without=owner) for node in NODES[:4]}
        assert sorted(ranks.values()) == [0, 1, 2, 3]
        assert ranks[owner] == 3
        first = min(ranks, key=ranks.__getitem__)
        assert first == assembly.placement(owner)[symbol]
        assert assembly.rank(NODES[5], symbol, without=owner) == 3, "it does not want it"
    assert assembly.placement()["S0USDT"] == assembly.owner("S0USDT")
    survivors = Counter(assembly.placement(NODES[0]).values())
    assert set(survivors) == set(NODES[1:4])
    assert max(survivors.values()) - min(survivors.values()) <= 1


def test_the_successor_that_was_named_goes_first_if_it_wants_the_symbol() -> None:
    assembly = Assembly(all_want_all(NODES[:4]) | {NODES[4]: member([])})
    for node in NODES[:4]:
        ranks = {other: assembly.rank(other, SYMBOLS[0], first=node) for other in NODES[:4]}
        assert ranks[node] == 0
        assert sorted(ranks.values()) == [0, 1, 2, 3]
    assert [assembly.rank(node, SYMBOLS[0], first=NODES[4]) for node in NODES] == [
        assembly.rank(node, SYMBOLS[0]) for node in NODES
    ]
    assert Assembly({}).rank(NODES[0], SYMBOLS[0]) == 0


def test_what_others_want_is_told_with_all_their_intervals() -> None:
    assembly = Assembly(
        {
            "a": member(["BTCUSDT", "ETHUSDT"]),
            "b": member(["BTCUSDT"], interval=Interval.M5),
            "c": member(["BTCUSDT"], interval=Interval.H1),
        }
    )
    assert assembly.wanted_beside("a", "BTCUSDT") == {Interval.M5, Interval.H1}
    assert assembly.wanted_beside("a", "ETHUSDT") == set()
    assert assembly.wanted_beside("b", "ETHUSDT") == {Interval.M1}


def test_of_two_that_say_they_own_a_symbol_one_is_taken() -> None:
    both = {"a": member(["BTCUSDT"], ["BTCUSDT"]), "b": member(["BTCUSDT"], ["BTCUSDT"])}
    assert Assembly(both).owner("BTCUSDT") == Assembly(dict(reversed(both.items()))).owner("BTCUSDT")
    assert Assembly(both).owner("ETHUSDT") == ""


def calls_of(work: Callable[[], object]) -> int:
    """How many calls some work takes: the same on each machine, however busy that is."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


def test_five_hundred_symbols_on_sixteen_nodes_take_no_time_worth_mentioning() -> None:
    """It runs in the thread that serves clients: it takes 4 calls for each symbol at each node at most."""
    symbols = [f"S{number}USDT" for number in range(500)]
    members = {f"n{number}": member(symbols) for number in range(15)}
    there = settled(members) | {"n15": member(symbols)}
    uneven = {f"n{number}": member(symbols if number < 8 else symbols[:300:5]) for number in range(16)}
    uneven["n0"] = member(symbols, symbols)
    for some in (members, there, uneven):
        assert calls_of(partial(place, some)) < 8 * 500 * 16
