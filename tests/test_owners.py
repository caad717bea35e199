"""``candlesync owners``."""

from __future__ import annotations

from click.testing import CliRunner

from candlesync.cli import main
from candlesync.core.interval import Interval
from candlesync.core.placement import Member
from candlesync.owners import describe, show_owners
from tests.store.redis_server import redis_nodes, run_server

M1 = (Interval.M1,)


def test_every_node_and_every_symbol_has_its_line() -> None:
    members = {
        "1": Member("blue", {"BTCUSDT": M1, "ETHUSDT": M1, "LTCUSDT": M1}, ("ETHUSDT",)),
        "2": Member("amber", {"BTCUSDT": M1, "ETHUSDT": M1}, ("BTCUSDT",)),
    }
    assert describe(members) == [
        "node   owns  follows",
        "amber     1        2",
        "blue      1        3",
        "",
        "symbol   owner",
        "BTCUSDT  amber",
        "ETHUSDT  blue",
        "LTCUSDT  nobody",
    ]


def test_without_nodes_and_without_symbols() -> None:
    assert describe({}) == ["no node is there"]
    assert describe({"1": Member("blue")}) == ["node  owns  follows", "blue     0        0"]


async def test_it_looks_without_being_a_node_itself() -> None:
    said: list[str] = []
    with run_server() as server:
        async with redis_nodes(server.url, 10, 2.0) as make:
            one, other = await make(), await make()
            await one.attend(Member("blue", {"BTCUSDT": M1}, ("BTCUSDT",)))
            await other.attend(Member("amber"))
            await show_owners(one.settings, said.append)
            assert said == [
                *("node   owns  follows", "amber     0        0", "blue      1        1"),
                *("", "symbol   owner", "BTCUSDT  blue"),
            ]
            assert set(await one.attend(Member("blue"))) == {one.node, other.node}


def test_what_can_be_wrong_is_said() -> None:
    result = CliRunner().invoke(main, ["owners"])
    assert result.exit_code == 2
    assert "--store URL" in result.output
    result = CliRunner().invoke(main, ["owners", "--store", "redis://127.0.0.1:1"])
    assert result.exit_code == 1
    assert "Connection refused" in result.output
