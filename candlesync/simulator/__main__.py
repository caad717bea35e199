"""``python -m candlesync.simulator``: a Binance on loopback."""

from __future__ import annotations

import signal
from pathlib import Path

import click
import msgspec
import trio

from candlesync.core.interval import Interval
from candlesync.simulator.exchange import Exchange
from candlesync.simulator.faults import Fault
from candlesync.simulator.files import UnreadableFile
from candlesync.simulator.serving import serve
from candlesync.simulator.settings import KlineFile, SimulatorSettings
from candlesync.simulator.symbols import DEFAULT_SYMBOLS, SymbolSpec, symbol_spec
from candlesync.simulator.venue import VENUES, VenueName


@click.command()
@click.option("--bind", default="127.0.0.1:0", show_default=True, help="HOST:PORT; port 0 takes a free one.")
@click.option("--venue", type=click.Choice(list(VENUES)), default="spot", show_default=True, help="Which market.")
@click.option("--minute", default=1.0, show_default=True, help="Seconds that a minute of the market lasts.")
@click.option("--symbol", "symbols", multiple=True, help="A symbol to list; repeat it. [default: eight symbols]")
@click.option("--seed", default=1, show_default=True, help="Decides the prices of symbols without files.")
@click.option("--klines", multiple=True, metavar="SYMBOL:INTERVAL:PATH", help="Recorded candles; repeat it.")
@click.option("--start", type=int, metavar="MS", help="The market's time at the start, in UNIX milliseconds.")
@click.option(
    "--listed-before",
    multiple=True,
    metavar="[SYMBOL:]MINUTES",
    help="How long before the start all symbols, or one, were listed; repeat it.",
)
@click.option("--update-ms", default=2000, show_default=True, help="Market time between updates of a forming candle.")
@click.option("--shortest-update", default=0.05, show_default=True, help="Least seconds between two updates.")
@click.option("--weight-limit", type=int, help="Request weight a minute.  [default: the venue's]")
@click.option("--faults", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A JSON list of faults.")
def main(
    *,
    bind: str,
    venue: VenueName,
    minute: float,
    symbols: tuple[str, ...],
    seed: int,
    klines: tuple[str, ...],
    start: int | None,
    listed_before: tuple[str, ...],
    update_ms: int,
    shortest_update: float,
    weight_limit: int | None,
    faults: Path | None,
) -> None:
    """Run a simulated Binance until SIGTERM or Ctrl-C. When it is ready, one line tells its address."""
    try:
        host, port = bind.rsplit(":", 1)
        files = tuple(_kline_file(text) for text in klines)
        settings = SimulatorSettings(
            venue=venue,
            seed=seed,
            minute_seconds=minute,
            start=start,
            symbols=_specs(symbols, files, listed_before),
            klines=files,
            update_ms=update_ms,
            shortest_update=shortest_update,
            weight_limit=weight_limit,
            faults=() if faults is None else msgspec.json.decode(faults.read_bytes(), type=tuple[Fault, ...]),
        )
        exchange = Exchange(settings)
        trio.run(_run, exchange, host, int(port))
    except (OSError, UnreadableFile, ValueError) as error:
        raise click.ClickException(str(error)) from error


async def _run(exchange: Exchange, host: str, port: int) -> None:
    listeners = await trio.open_tcp_listeners(port, host=host)
    address = f"{host}:{listeners[0].socket.getsockname()[1]}"
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(exchange.run)
            await nursery.start(serve, exchange, listeners)
            click.echo(f"simulator ready: http://{address} ws://{address}")
            await anext(signals)
            nursery.cancel_scope.cancel()


def _kline_file(text: str) -> KlineFile:
    symbol, interval, path = text.split(":", 2)
    return KlineFile(symbol.upper(), Interval(interval), Path(path))


def _specs(names: tuple[str, ...], files: tuple[KlineFile, ...], listed: tuple[str, ...]) -> tuple[SymbolSpec, ...]:
    specs = [symbol_spec(name.upper()) for name in names]
    if not specs:
        specs = [symbol_spec(name) for name in dict.fromkeys(file.symbol for file in files)] or [*DEFAULT_SYMBOLS]
    for text in listed:
        symbol, _, minutes = text.rpartition(":")
        specs = [
            msgspec.structs.replace(spec, listed_before=int(minutes)) if symbol.upper() in ("", spec.name) else spec
            for spec in specs
        ]
    return tuple(specs)


if __name__ == "__main__":
    main(prog_name="python -m candlesync.simulator")
