"""Real clients of Binance's API, unchanged, see each closed candle once, in order and as it is, whatever breaks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.drop_in.clients import REST, STREAMS, Client, run_clients, why_not
from tests.drop_in.line import Line, run_line
from tests.whole.programs import PATIENCE, Program, break_something, market_time, open_client, server, simulator

MINUTE = 2.0
"""Seconds that a minute of the simulated market lasts."""
PAUSE = 1.25 * MINUTE
"""Seconds from one break to the next."""
SYMBOLS = ("BTCUSDT", "ETHUSDT")
HISTORY = 1_400
"""Minutes that the programs for REST ask for: more than the 1000 that the store holds."""

Break = tuple[bool, list[dict[str, object]]]
"""Whether the clients' own connections break, too; and what happens to Binance."""
FIRST_BREAKS: list[Break] = [
    (True, [{"kind": "drop", "close_frame": False}]),
    (False, [{"kind": "hide_close"}]),
    (False, [{"kind": "shutdown", "for": MINUTE}]),
]
LATER_BREAKS: list[Break] = [
    # The programs for REST begin here.
    (False, [{"kind": "drop"}, {"kind": "rest_down", "for": PAUSE}]),
    (True, [{"kind": "drop"}, {"kind": "refuse", "for": PAUSE}]),
    (False, [{"kind": "drop"}, {"kind": "rest_429", "retry_after": 1, "for": PAUSE}]),
    (False, [{"kind": "hide_close"}, {"kind": "rest_down", "status": None, "delay": 1.0, "for": PAUSE}]),
    (False, [{"kind": "drop"}, {"kind": "rest_behind", "for": PAUSE}]),
    (True, []),
]


class Run:
    """What one run of all clients has shown."""

    def __init__(self) -> None:
        self.clients: dict[str, Client] = {}
        self.truth: dict[str, list[list[Any]]] = {}
        """The exchange's final rows, by symbol."""
        self.breaks = (0, 0)
        """Open times (ms) of the candles that were forming when the breaks began, and when they had ended."""
        self.range = (0, 0)
        """The first and the last open time (ms) that the programs for REST asked for."""
        self.broken = 0
        """Connections of clients that were broken."""


@pytest.fixture(scope="module")
def run() -> Run:
    """All clients at the same time, beside one server and one schedule of breaks."""
    _need(*STREAMS, *REST)
    found = Run()
    trio.run(_run, found)
    return found


async def _run(run: Run) -> None:
    async with (
        simulator(MINUTE, *(argument for symbol in SYMBOLS for argument in ("--symbol", symbol))) as binance,
        server(binance, *SYMBOLS) as candlesync,
        run_line(int(candlesync.host.rpartition(":")[2]), calm=MINUTE / 3) as line,
    ):
        host = f"127.0.0.1:{line.port}"
        async with run_clients(STREAMS, host) as streams:
            run.clients |= streams
            await _until(streams, lambda client: client.newest() > 0)
            began = _opening(await market_time(binance))
            run.range = (began - HISTORY * 60_000, began - 60_000)
            for is_broken, faults in FIRST_BREAKS:
                await _break(binance, line, streams, faults, is_broken=is_broken)
            async with run_clients(REST, host, *run.range) as rest:
                run.clients |= rest
                for is_broken, faults in LATER_BREAKS:
                    await _break(binance, line, streams, faults, is_broken=is_broken)
                await _until(rest, lambda client: client.status is not None)
            ended = _opening(await market_time(binance))
            await _until(streams, lambda client: client.newest() > ended)
        run.breaks = (began, ended)
        for symbol in SYMBOLS:
            run.truth[symbol] = await _truth(binance, symbol, run.range[0])
        run.broken = line.broken


async def _break(
    binance: Program, line: Line, streams: dict[str, Client], faults: list[dict[str, object]], *, is_broken: bool
) -> None:
    if is_broken:
        # Those that are still away from the last time, up to 6 s, would have nothing to break.
        recently = _opening(await market_time(binance)) - 60_000
        await _until(streams, lambda client: client.newest() >= recently)
        line.break_streams()
        # Each waits for a calm moment of its own. What happens to Binance next could put that off until the next break.
        await _until(streams, lambda _: not line.is_breaking)
    for fault in faults:
        await break_something(binance, **fault)
    await trio.sleep(PAUSE)


async def _until(clients: dict[str, Client], is_so: Callable[[Client], bool]) -> None:
    """Wait until something is so for all of them; for nothing if it takes too long, for the tests to tell."""
    with trio.move_on_after(PATIENCE):
        while not all(map(is_so, clients.values())):  # noqa: ASYNC110 - other processes give no event
            await trio.sleep(0.05)


def _opening(time: int) -> int:
    return time // 60_000 * 60_000


async def _truth(binance: Program, symbol: str, start: int) -> list[list[Any]]:
    async with open_client() as client:
        query = f"symbol={symbol}&interval=1m&startTime={start}"
        rows: list[list[Any]] = (await client.get(f"http://{binance.host}/control/truth?{query}")).json()
    return rows


def _need(*names: str) -> None:
    """Skip the test where none of these programs can run; in CI that is a failure."""
    reasons = [why_not(name) for name in names]
    if None not in reasons:
        if "CI" in os.environ:
            pytest.fail(str(reasons[0]))
        pytest.skip(str(reasons[0]))


def _client(run: Run, name: str) -> Client:
    _need(name)
    return run.clients[name]


def _same(seen: list[Any], row: list[Any]) -> bool:
    """Digit for digit where the client keeps Binance's digits, otherwise as the number that they are."""
    return all(
        value == (float(true) if isinstance(value, float) and isinstance(true, str) else true)
        for value, true in zip(seen, row, strict=False)
    )


def _check(client: Client, symbol: str, first: int, last: int, run: Run) -> None:
    rows = client.rows[symbol]
    truth = [row for row in run.truth[symbol] if first <= row[0] <= last]
    assert [row[0] for row in rows] == [row[0] for row in truth], client.complaints.decode()
    assert all(len(row) >= 6 for row in rows)
    wrong = [(seen, row) for seen, row in zip(rows, truth, strict=True) if not _same(seen, row)]
    assert not wrong


@pytest.mark.parametrize("name", STREAMS)
def test_each_closed_candle_is_streamed_once_and_in_order(name: str, run: Run) -> None:
    client = _client(run, name)
    assert client.status is None, f"it ended: {client.complaints.decode()}"
    assert client.rows, f"it showed nothing: {client.complaints.decode()}"
    for symbol, rows in client.rows.items():
        first, last = rows[0][0], rows[-1][0]
        assert first <= run.breaks[0], "it began late"
        assert last >= run.breaks[1], f"it is behind: {client.complaints.decode()}"
        _check(client, symbol, first, last, run)


@pytest.mark.parametrize("name", REST)
def test_a_range_across_the_border_of_the_store_is_whole(name: str, run: Run) -> None:
    client = _client(run, name)
    assert client.status == 0, client.complaints.decode()
    _check(client, "BTCUSDT", *run.range, run)


def test_the_connections_did_break(run: Run) -> None:
    streams = [name for name in STREAMS if why_not(name) is None]
    assert run.broken >= len(streams) * sum(is_broken for is_broken, _ in FIRST_BREAKS + LATER_BREAKS)
