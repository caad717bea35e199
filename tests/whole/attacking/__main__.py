"""``scripts/attack --help``.

    attackers ─▶ server ─▶ relay (looks at what is asked) ─▶ simulator
    a chart  ─▶    └─────▶ Redis (overwritten, and announced on, meanwhile)

Beside the attackers a chart loads and follows as any would. In the end it has to show what the exchange has, and each
candle in time; the server must have answered nothing as its own failure, logged no error and no secret, asked Binance
for nothing that is not documented, written no key outside of its prefix, and hold about as much memory as before.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import click
import msgspec
import trio

from tests.store.redis_server import RedisServer, run_server
from tests.whole.attacking.clients import KINDS, Target
from tests.whole.attacking.inputs import SECRET
from tests.whole.attacking.upstream import Upstream, relayed
from tests.whole.nodes import ShownChart
from tests.whole.programs import PATIENCE, Program, follow, load, market_time, server, simulator, truth

ROOT = Path(__file__).parent.parent.parent.parent
PREFIX = "candlesync"
LONGEST_SILENCE = 2.5
"""Seconds without news at the chart, of a market with five updates a second: attackers and all else share two cores."""
GROWTH = 48.0
"""Megabytes that the server may hold more after than it did after the first round of attacks: caches fill."""
_IDLE = 6.0
"""Seconds after which the connections that were left are closed: after five that are idle are."""
_ERROR = re.compile(rb'[^\n]*(?:\[(?:error|critical) *\]|"level": "(?:error|critical)")[^\n]*')


Visits: TypeAlias = Counter[str]
"""How many inputs, by kind."""


class Result(msgspec.Struct):
    """What came of it."""

    inputs: Counter[str]
    """How many, by kind."""
    wrong: list[str]
    candles: int
    """That the chart has shown."""
    silence: float
    """The longest that the chart had no news, in seconds."""
    memory: tuple[float, float]
    """Megabytes of the server: after the first round, and in the end."""
    asked: int
    """Requests that reached Binance."""

    def lines(self) -> list[str]:
        """It, for people."""
        counted = [f"{count:>10,}  {kind}" for kind, count in self.inputs.most_common()]
        before, after = self.memory
        return [
            f"{self.inputs.total():>10,}  inputs",
            *counted,
            f"the chart: {self.candles} candles shown, without news for {self.silence:.2f} s at most",
            f"memory: {before:.1f} MB after the first round, {after:.1f} MB in the end",
            f"upstream: {self.asked} requests looked at",
            *(f"WRONG: {what}" for what in self.wrong),
            "nothing went wrong" if not self.wrong else f"{len(self.wrong)} things went wrong",
        ]


def megabytes(program: Program) -> float:
    """What is resident."""
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def attack(
    seconds: float, *, seed: int = 1, at_once: int = 4, with_schemathesis: bool = False, idle: float = _IDLE
) -> Result:
    """Attack for so many seconds, ``at_once`` attackers at a time, and say what came of it.

    ``idle``: seconds after which the server's memory is looked at in the end.
    """
    with run_server() as store:
        async with simulator(1.0, "--shortest-update", "0.2") as binance, relayed(binance.host) as upstream:
            through = Program(binance.process, upstream.host, binance.said)
            shared = ("--store", f"{store.url}/0", "--message-rate", "50", "--max-symbols", "20")
            async with server(through, "BTCUSDT", "ETHUSDT", *shared) as candlesync:
                target = Target(candlesync.host, store, PREFIX)
                visits = partial(_visit, target, Random(seed), seconds, at_once)
                result = await _watch(target, candlesync, binance, visits, idle)
                if with_schemathesis:
                    result.wrong += await schemathesis(candlesync.host, seconds, seed)
                    await trio.sleep(1)
                result.asked = upstream.requests
                result.wrong += _look_around(candlesync, upstream, store, result.inputs)
                status, _ = await candlesync.end()
                if status:
                    result.wrong.append(f"it ended with status {status}")
    return result


async def _visit(
    target: Target, chance: Random, seconds: float, at_once: int, first_round: Callable[[], None]
) -> Visits:
    """Attack in each way once, tell so, and go on for so many seconds; how many inputs of each kind that were."""
    inputs = Counter[str]()

    async def visit(kind: str) -> None:
        inputs[kind] += await KINDS[kind](target, Random(chance.randrange(2**32)))

    async def go_on(end: float) -> None:
        while time.monotonic() < end:
            await visit(chance.choice(list(KINDS)))

    for kind in KINDS:
        await visit(kind)
    first_round()
    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(go_on, time.monotonic() + seconds)
    return inputs


async def _watch(
    target: Target, candlesync: Program, binance: Program, visits: Callable[..., Awaitable[Visits]], idle: float
) -> Result:
    """Look at a chart during the visits, and at what was overwritten afterwards."""
    chart, other = ShownChart(), ShownChart()
    codes: list[int] = []
    sizes: list[float] = []
    await load(chart, target.host)

    async def look() -> None:
        while True:
            codes.append(await follow(chart, target.host, f"&position={chart.position}", handshake=PATIENCE))
            if codes[-1] == 4410:
                await load(chart, target.host)

    async with trio.open_nursery() as watching:
        watching.start_soon(look)
        await trio.sleep(0.5)
        began = time.monotonic()
        inputs = await visits(lambda: sizes.append(megabytes(candlesync)))
        ended = time.monotonic()
        wrong = [f"the chart's connection ended with {code}" for code in codes]
        now = await market_time(binance)
        with trio.move_on_after(PATIENCE):
            while chart.newest * 1000 < now or other.newest * 1000 < now - 60_000:
                await trio.sleep(0.5)
                await load(other, target.host, "ETHUSDT")
        await trio.sleep(idle)
        sizes.append(megabytes(candlesync))
        watching.cancel_scope.cancel()
    if other.newest * 1000 < now - 60_000:
        wrong.append("the series that was overwritten did not heal")
    wrong += chart.compare(await truth(binance, chart)) + other.compare(await truth(binance, other, "ETHUSDT"))
    silence = max(length for _, length in chart.silences(began, ended))
    if silence > LONGEST_SILENCE:
        wrong.append(f"the chart had no news for {silence:.1f} s")
    before, after = sizes
    if after > before + GROWTH:
        wrong.append(f"it has grown from {before:.0f} to {after:.0f} MB")
    return Result(inputs, wrong + target.failures, len(chart.candles), silence, (before, after), 0)


def _look_around(candlesync: Program, upstream: Upstream, store: RedisServer, inputs: Visits) -> list[str]:
    """What has been left where it should not be."""
    wrong = [f"asked of Binance: {fault}" for fault in upstream.faults]
    with store.client() as client:
        keys = [key.decode(errors="replace") for key in client.scan_iter()]
    wrong += [f"a key that is not ours: {key}" for key in keys if not key.startswith(f"{PREFIX}:{{")]
    said = bytes(candlesync.said)
    wrong += [f"logged: {line.decode(errors='replace')[:300]}" for line in _ERROR.findall(said)]
    if SECRET.encode() in said:
        wrong.append("a token was logged")
    if len(said) > 100_000 + 1_000 * inputs["writes to the store"]:  # of which each may be told
        wrong.append(f"{len(said)} bytes were logged")
    return wrong


async def schemathesis(host: str, seconds: float, seed: int) -> list[str]:
    """Have schemathesis ask all that the OpenAPI document allows, and what it does not."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(ROOT / "schemathesis.toml"), "run"]
        command += [f"http://{host}/openapi.json", "--max-time", f"{seconds:g}", "--seed", str(seed), "--no-color"]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, cwd=folder)
    said = (done.stdout + done.stderr).decode(errors="replace")
    click.echo("\n".join(said.splitlines()[-12:]))
    return [] if done.returncode == 0 else [f"schemathesis found something:\n{said[-6000:]}"]


@click.command()
@click.option("--seconds", default=60.0, show_default=True, help="Of the attacks, and again of schemathesis.")
@click.option("--seed", default=1, show_default=True, help="Decides what is tried; not how it is mixed.")
@click.option("--at-once", default=4, show_default=True, help="Attackers.")
@click.option("--schemathesis/--no-schemathesis", "with_schemathesis", default=True, show_default=True)
def main(**choices: Any) -> None:
    """Attack a server that is started for it, on this machine alone; status 1 if anything went wrong."""
    result = trio.run(partial(attack, **choices))
    click.echo("\n".join(result.lines()))
    sys.exit(1 if result.wrong else 0)


if __name__ == "__main__":
    main()
