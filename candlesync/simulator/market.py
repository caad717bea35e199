"""The simulated market: which symbols there are, and their candles at any instant. Pure data, without Trio."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from candlesync.core.interval import MINUTE, Interval
from candlesync.simulator.bars import LENGTH, Row
from candlesync.simulator.files import joined, read_rows
from candlesync.simulator.recorded import Recorded
from candlesync.simulator.series import Series
from candlesync.simulator.settings import DEFAULT_START, KlineFile, SimulatorSettings
from candlesync.simulator.source import Source
from candlesync.simulator.symbols import SymbolSpec, symbol_spec
from candlesync.simulator.walk import Walk


class Market:
    """All candles of all symbols, those to come included; a pure function of its settings.

    Raises `OSError` or `UnreadableFile` when a kline file cannot be read.
    """

    def __init__(self, settings: SimulatorSettings) -> None:
        recorded = _read(settings.klines)
        self.start = settings.start if settings.start is not None else _usual_start(recorded)
        specs = [symbol_spec(symbol) if isinstance(symbol, str) else symbol for symbol in settings.symbols]
        specs += [symbol_spec(name) for name in recorded if name not in {spec.name for spec in specs}]
        self._specs = {spec.name: spec for spec in specs}
        self._sources: dict[str, Source] = {}
        for spec in specs:
            seed = f"{settings.seed}/{spec.name}"
            if spec.name in recorded:
                self._sources[spec.name] = Recorded(seed, recorded[spec.name])
            else:
                self._sources[spec.name] = Walk(seed, spec.profile, self.start - spec.listed_before * MINUTE)
        self._series: dict[tuple[str, Interval], Series] = {}

    @property
    def symbols(self) -> Mapping[str, SymbolSpec]:
        """The listed symbols by name, in the order of the settings."""
        return MappingProxyType(self._specs)

    def series(self, symbol: str, interval: Interval) -> Series:
        """The candles of one symbol at one interval; raises `KeyError` for a symbol that is not listed."""
        series = self._series.get((symbol, interval))
        if series is None:
            series = self._series[symbol, interval] = Series(self._sources[symbol], interval)
        return series

    def source(self, symbol: str) -> Source:
        """Where the candles of a symbol come from, and the trades inside them; raises `KeyError` as `series`."""
        return self._sources[symbol]


def _read(files: tuple[KlineFile, ...]) -> dict[str, dict[Interval, list[Row]]]:
    recorded: dict[str, dict[Interval, list[Row]]] = {}
    for file in files:
        rows = recorded.setdefault(file.symbol, {})
        rows[file.interval] = joined([*rows.get(file.interval, []), *read_rows(file.path)])
    return recorded


def _usual_start(recorded: dict[str, dict[Interval, list[Row]]]) -> int:
    if not recorded:
        return DEFAULT_START
    files = next(iter(recorded.values()))
    rows = files[min(files, key=LENGTH.__getitem__)]
    return rows[min(1000, len(rows) // 2)].open_time
