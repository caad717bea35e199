"""Imports point one way (design, section 5), and what is pure stays so."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import candlesync

ROOT = Path(candlesync.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))

LAYERS = (
    ("errors", "nursery"),
    ("core", "sharing", "websocket"),
    ("hub", "store", "binance", "client"),
    ("announcements", "archive", "follower", "ownership", "synchronizer"),
    ("leases",),
    ("audit", "inspection"),
    ("symbol",),
    ("supervisor",),
    ("web",),
    ("doors",),
    ("config", "option_values"),
    ("options", "service"),
    ("backfill", "owners"),
    ("server",),
    ("demo", "watch"),
    ("asgi", "cli"),
    ("__main__",),
)
"""Each imports itself and the layers before it; those of one layer do not know each other."""

BESIDE: dict[str, tuple[set[str], set[str]]] = {
    # Shares nothing with the server but the calendar of candles, lest it repeat our misunderstandings of Binance.
    "simulator": ({"core"}, {"cli", "demo"}),
    # What we add to Hypercorn; it knows no candles.
    "edge": (set(), {"asgi", "server"}),
    # Checks a server from outside: it knows Binance and the calendar, and nothing of how a server works.
    "verify": ({"binance", "core", "errors", "websocket"}, {"cli"}),
    "log": (set(), {"asgi", "cli", "options"}),
}
"""What stands beside the layers: what it may import, and who may import it."""

RANKS = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

PURE = {
    *("__future__", "bisect", "collections", "dataclasses", "datetime", "decimal", "enum", "functools", "hashlib"),
    *("heapq", "ipaddress", "itertools", "math", "msgspec", "operator", "re", "typing"),
}
"""What pure modules may import beside our own: nothing that waits, reads, writes, tells the time or throws dice."""

PURE_SOURCES = [path for path in SOURCES if path.parent == ROOT / "core"] + [
    ROOT / "errors.py",
    *(ROOT / "binance" / name for name in ("listing.py", "parse.py", "text.py")),
    ROOT / "client/candles.py",
    *(
        ROOT / "doors/binance" / name
        for name in ("departures.py", "errors.py", "events.py", "places.py", "requests.py")
    ),
]


def part_of(path: Path) -> str:
    """The top-level part that a source file belongs to; empty for ``candlesync/__init__.py``."""
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return "" if part == "__init__" else part


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports_of(path: Path) -> Iterator[str]:
    """The full names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: a relative import"
            yield f"{node.module}"
            if node.module == "candlesync":
                yield from (f"candlesync.{alias.name}" for alias in node.names)


def our_parts(path: Path) -> set[str]:
    """The top-level parts of candlesync that a file imports, other than its own."""
    parts = {name.split(".")[1] for name in imports_of(path) if name.startswith("candlesync.")}
    return parts - {part_of(path), "__version__"}


def may_import(importer: str, imported: str) -> bool:
    if imported in BESIDE:
        return importer in BESIDE[imported][1]
    if importer in BESIDE:
        return imported in BESIDE[importer][0]
    return RANKS.get(imported, 99) < RANKS.get(importer, -1)


def test_each_part_has_its_rule() -> None:
    parts = {part_of(path) for path in SOURCES} - {""}
    assert parts - RANKS.keys() - BESIDE.keys() == set(), "say in LAYERS or BESIDE what a new part may import"
    assert RANKS.keys() | BESIDE.keys() <= parts, "a rule for what is no longer there"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    wrong = {imported for imported in our_parts(path) if not may_import(part_of(path), imported)}
    assert wrong == set(), f"{name_of(path)} imports what stands above or beside it"


def test_the_package_itself_imports_none_of_its_parts() -> None:
    assert our_parts(ROOT / "__init__.py") == set()


@pytest.mark.parametrize("path", PURE_SOURCES, ids=name_of)
def test_what_is_pure_can_neither_wait_nor_tell_the_time(path: Path) -> None:
    modules = {name.split(".")[0] for name in imports_of(path)} - {"candlesync"}
    assert modules <= PURE
    clocks = [
        node.attr
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}
    ]
    assert clocks == [], "a clock (invariant 7)"


def test_what_is_called_pure_is_in_the_standard_library_or_msgspec() -> None:
    assert {"msgspec"} == PURE - set(sys.stdlib_module_names)
    assert PURE.isdisjoint({"trio", "time", "socket", "httpx", "random", "secrets", "os", "io", "pathlib", "asyncio"})


def texts_of(path: Path) -> Iterator[str]:
    """The texts in a file's code, docstrings aside."""
    nodes = list(ast.walk(ast.parse(path.read_bytes())))
    prose = {node.value for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            yield node.value


OTHER_SOURCES = [
    path
    for path in SOURCES
    if part_of(path) in RANKS.keys() - {"binance", "options"} and ROOT / "doors/binance" not in path.parents
]
"""All of the server but Binance's own side, the help text that says what stands behind ``--rest-url``, and the door
that speaks Binance's language to clients."""


@pytest.mark.parametrize("path", OTHER_SOURCES, ids=name_of)
def test_only_binance_speaks_binances_language(path: Path) -> None:
    """``kline`` is the exchange's word for a candle: its paths, stream names and events are known in one place."""
    assert [text for text in texts_of(path) if "kline" in text.lower()] == []


EVENT_TIME = ("binance/parse.py", "binance/feed.py", "binance/delay.py", "verify/check.py")
"""Who knows when Binance sent an event: it is read, passed on, and measured for people."""


@pytest.mark.parametrize("path", [path for path in SOURCES if "simulator" not in path.parts], ids=name_of)
def test_no_decision_is_made_by_the_time_of_an_event(path: Path) -> None:
    """Invariant 7: what compares it with this machine's clock is read by metrics, and by a check from outside."""
    names = {node.attr for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Attribute)}
    assert "event_time" not in names or name_of(path) in EVENT_TIME
    importers = {part_of(path)} & {"core", "synchronizer", "symbol", "supervisor", "hub", "follower"}
    assert not importers or "candlesync.binance.delay" not in set(imports_of(path))
