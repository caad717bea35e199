"""How nodes are run for real: restarted one after the other while people look at charts, and by the README's unit."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence

import click
import httpx
import pytest
import trio

from candlesync.cli import serve
from candlesync.options import settings_from
from tests.whole.announced import hearing
from tests.whole.nodes import Deployment, deploy
from tests.whole.programs import PATIENCE, free_host, open_client, run_program
from tests.whole.readme import recipe, with_own
from tests.whole.test_nodes import check, check_handovers, until_news, viewers_of, watching

SYMBOLS = ("BTCUSDT", "ETHUSDT")
LONG_LEASE = 6.0
"""Seconds: a symbol that its node did not give up when it went is without an owner for most of it; charts notice."""
UNNOTICED = 1.5
"""Seconds for which a chart may show nothing new while nodes are restarted; it has news 20 times a second else."""


async def ask(hosts: Sequence[str], symbol: str, answers: Counter[int]) -> None:
    """Load charts for ever, from the first node that can be reached."""
    async with open_client() as client:
        while True:
            for host in hosts:
                try:
                    answer = await client.get(f"http://{host}/candles/{symbol}/1m?limit=5", timeout=5)
                except httpx.TimeoutException:
                    break  # it is there, and the machine has other work
                except httpx.TransportError:
                    continue
                answers[answer.status_code] += 1
                break
            else:
                answers[0] += 1
            await trio.sleep(0.02)


async def until_ready(deployment: Deployment, name: str) -> None:
    """What the README does with ``curl --retry`` between two restarts."""
    with trio.fail_after(PATIENCE):
        while (await deployment.ready(name))["status"] != "ready":  # noqa: ASYNC110 - as an outsider
            await trio.sleep(0.05)


async def test_two_nodes_are_restarted_one_after_the_other_and_no_chart_notices() -> None:
    async with deploy() as deployment:

        async def start(name: str) -> None:
            await deployment.start(name, *SYMBOLS, lease=LONG_LEASE)

        async with trio.open_nursery() as nursery:
            for name in "ab":
                nursery.start_soon(start, name)
        await deployment.until_live(*SYMBOLS)
        viewers = [viewer for symbol in SYMBOLS for viewer in viewers_of(deployment, 5, symbol)]
        answers = [Counter[int]() for _ in range(4)]
        began = time.monotonic()
        with hearing(deployment.redis) as announced:
            async with watching(deployment, viewers), trio.open_nursery() as nursery:
                hosts = deployment.hosts
                for number, counts in enumerate(answers):
                    turn = number % 2
                    nursery.start_soon(ask, hosts[turn:] + hosts[:turn], SYMBOLS[number // 2], counts)
                restarts = []
                for name in "ab":
                    restarts.append(time.monotonic())
                    status, seconds = await deployment.nodes[name].end()
                    assert status == 0
                    what = f"{name}: from SIGTERM to the end"  # nothing held it up for half of the grace time
                    deployment.stalls.check(what, restarts[-1], seconds, 4)
                    await start(name)
                    await until_ready(deployment, name)
                back = time.monotonic()
                await until_news(deployment, "both are back", viewers, back, UNNOTICED, still=0.0)
                with trio.fail_after(PATIENCE):
                    while min(counts[200] for counts in answers) <= 50:  # noqa: ASYNC110 - of other tasks
                        await trio.sleep(0.02)
                nursery.cancel_scope.cancel()
            until = time.monotonic()
            await check(deployment, viewers)
        for viewer in viewers:
            # Each by what was lost in its own time, which is that of one restart or the other.
            for since, seconds in viewer.chart.silences(restarts[0], until):
                if seconds > UNNOTICED:
                    deployment.stalls.check("without news", since, seconds, UNNOTICED)
        told = [viewer.codes[1012] for viewer in viewers]
        assert min(told) >= 1, "each was on a node that was restarted"
        for counts in answers:
            assert set(counts) == {200}
        for symbol in SYMBOLS:
            announced.check_one_writer(symbol)
            assert len({made.life for made in announced.commits if made.symbol == symbol}) == 1, (
                "the store was there all the time"
            )
            await check_handovers(deployment, began, symbol)
            await deployment.check_stored(symbol)


UNIT = "/etc/systemd/system/candlesync@.service"


class Unit:
    """What the README's unit says of one of its nodes."""

    def __init__(self, port: str) -> None:
        text = with_own(recipe(UNIT), {"%i": port, "%H": "host"})
        lines = [line.partition("=")[::2] for line in text.splitlines() if "=" in line and not line.startswith("#")]
        self.said = {name: value for name, value in lines if name != "Environment"}
        self.environment = dict(value.split("=", 1) for name, value in lines if name == "Environment")
        program, command, *self.options = shlex.split(self.said["ExecStart"])
        assert program == "/opt/candlesync/.venv/bin/candlesync"
        assert command == "serve"


def test_the_unit_says_only_what_candlesync_understands(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = Unit("8000")
    known = {parameter.envvar for parameter in serve.params if isinstance(parameter, click.Option | click.Argument)}
    assert unit.environment.keys() <= known
    for name, value in unit.environment.items():
        monkeypatch.setenv(name, value)
    with serve.make_context("serve", [*unit.options]) as context:
        settings = settings_from(context.params)
        assert context.params["bind"] == ("127.0.0.1:8000",), "where nginx looks for it"
    assert settings.node_name == "host/8000"
    assert settings.symbols == ("BTCUSDT", "ETHUSDT")
    assert settings.store is not None, "two nodes share it"
    assert unit.said["KillSignal"] == "SIGTERM"
    assert float(unit.said["TimeoutStopSec"]) > settings.grace, "it ends by itself, and is not killed"


async def test_a_node_that_is_started_as_the_unit_says_serves_and_ends() -> None:
    async with deploy() as deployment:
        host = free_host()
        unit = Unit(host.rpartition(":")[2])
        environment = unit.environment | {
            "CANDLESYNC_STORE": f"{deployment.redis.url}/0",
            "CANDLESYNC_REST_URL": f"http://{deployment.binance.host}",
            "CANDLESYNC_STREAM_URL": f"ws://{deployment.binance.host}",
        }
        python = (sys.executable, "-m", "candlesync", "serve")
        async with run_program(unit.options, program=python, **environment) as node:
            deployment.nodes["unit"] = node
            assert node.host == host
            await deployment.until_live("BTCUSDT", "ETHUSDT")
            assert (await deployment.ready("unit"))["node"] == f"host/{host.rpartition(':')[2]}"
            ended = time.monotonic()
            status, seconds = await node.end()
            deployment.stalls.check("from SIGTERM to the end", ended, seconds, 5)
        assert status == 0
