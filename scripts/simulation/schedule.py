"""What goes wrong in one simulation, and when: a pure function of the seed, to be printed, kept and shrunk as JSON.

The faults of Binance and of the way there are the simulator's own (``candlesync.simulator.faults``). Those of what else
is outside of the service, or of the service itself, are here. Times are seconds of the simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from candlesync.core.interval import Interval
from candlesync.simulator import faults


class _Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    at: float


class _Lasting(_Event, frozen=True, kw_only=True, rename={"seconds": "for"}):
    seconds: float


class HalfOpen(_Event, tag="half_open", frozen=True, kw_only=True):
    """The stream connections (of the symbol) carry nothing any more, in either direction, and nobody is told."""

    symbol: str | None = None


class NetworkDown(_Lasting, tag="network_down", frozen=True, kw_only=True):
    """No stream connection can be opened: there is no way to the exchange."""


class StoreDown(_Lasting, tag="store_down", frozen=True, kw_only=True):
    """The store's server cannot be asked: each question fails, at once or (``hangs``) after a while."""

    hangs: bool = False


class StoreLosesAnswer(_Event, tag="store_loses_answer", frozen=True, kw_only=True):
    """The next commits end without an answer, made (``happens``) or not."""

    happens: bool
    hangs: bool = False
    """Whether there is never an answer; otherwise the connection is seen to break."""
    times: int = 1


class StoreFallsBack(_Event, tag="store_falls_back", frozen=True, kw_only=True):
    """The store's server is replaced by a copy of what it was ``by`` seconds ago: an asynchronous replica, promoted."""

    by: float


class StoreWiped(_Event, tag="store_wiped", frozen=True, kw_only=True):
    """The store has lost all series."""


class StoreSlow(_Lasting, tag="store_slow", frozen=True, kw_only=True):
    """Each answer of the store takes ``delay`` seconds."""

    delay: float


class Cancel(_Event, tag="cancel", frozen=True, kw_only=True):
    """What runs is cancelled at any await: after ``steps`` more steps of its tasks."""

    what: Literal["symbol", "series", "client"]
    """A symbol's task, one of its synchronizers, or a client's session."""
    which: int
    """Which of them, modulo how many there are."""
    steps: int


class Wanted(_Lasting, tag="wanted", frozen=True, kw_only=True):
    """Somebody looks at a series for a while. If it is not pinned, it is idle later, and let go."""

    symbol: str
    interval: Interval


class ClientSlow(_Lasting, tag="client_slow", frozen=True, kw_only=True):
    """A client takes a message each ``pause`` seconds only."""

    client: int
    pause: float


class ClientStuck(_Lasting, tag="client_stuck", frozen=True, kw_only=True):
    """A client takes nothing at all."""

    client: int


class ClientVanishes(_Event, tag="client_vanishes", frozen=True, kw_only=True):
    """A client is gone without a goodbye; it comes back ``after`` so many seconds."""

    client: int
    after: float


class NodeDies(_Event, tag="node_dies", frozen=True, kw_only=True):
    """A node is gone without a word, as by SIGKILL; a new one takes its place ``after`` so many seconds."""

    node: int
    """Which of them, modulo how many there are."""
    after: float


class NodeStops(_Event, tag="node_stops", frozen=True, kw_only=True):
    """A node goes in an orderly way, as by SIGTERM; a new one takes its place ``after`` so many seconds."""

    node: int
    after: float


class NodePaused(_Lasting, tag="node_paused", frozen=True, kw_only=True):
    """Nothing of a node runs for a while, and everything goes on around it: its timers fire late."""

    node: int


class NodeCutOff(_Lasting, tag="node_cut_off", frozen=True, kw_only=True):
    """A node reaches the store, or the exchange, no more; the other nodes do."""

    node: int
    way: Literal["store", "answers", "exchange"]
    """``answers``: what it asks of the store happens, and it is not told so."""
    hangs: bool = False
    """Whether its questions to the store fail after a while only."""


class NodeHearsLate(_Lasting, tag="node_hears_late", frozen=True, kw_only=True):
    """What is announced reaches a node ``delay`` seconds late."""

    node: int
    delay: float


class NodeDeaf(_Lasting, tag="node_deaf", frozen=True, kw_only=True):
    """A node hears nothing that is announced, and knows it; it can ask the store."""

    node: int


class NodeMisses(_Lasting, tag="node_misses", frozen=True, kw_only=True):
    """Announcements of a kind do not reach a node, and it does not know."""

    node: int
    what: Literal["committed", "reported", "released", "assembled"]


OfNodes = NodeDies | NodeStops | NodePaused | NodeCutOff | NodeHearsLate | NodeDeaf | NodeMisses
Own = (
    HalfOpen
    | NetworkDown
    | StoreDown
    | StoreLosesAnswer
    | StoreFallsBack
    | StoreWiped
    | StoreSlow
    | Cancel
    | Wanted
    | ClientSlow
    | ClientStuck
    | ClientVanishes
)
Event = faults.Fault | Own | OfNodes


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """One simulation, whole: whoever has it can repeat it exactly."""

    seed: int
    """Of the market's prices, of all that the service and its clients leave to chance, and of the order of tasks."""
    days: float = 1.0
    """How long things go wrong; then they are given time to settle."""
    clients: int = 6
    history: int = 1000
    """Candles that the service holds of a series."""
    connection_seconds: float = 86_400.0
    """After which the exchange closes a stream connection; Binance's own take 24 hours."""
    lifetime: float | None = None
    """Seconds after which the service has another connection take over, or up to a tenth of it earlier; `None`: its own
    setting, which is for connections of 24 hours."""
    store: Literal["prompt", "remote"] = "prompt"
    """In this process, or a server a network away, as Redis is."""
    nodes: int = 1
    """Services; several share the store, and each client goes from one to another."""
    lease: float = 20.0
    """Seconds that a lease lasts: ten times the default, as the time between two updates is."""
    audited: bool = True
    """Whether live series are compared with REST in the background."""
    events: tuple[Event, ...] = ()

    @property
    def seconds(self) -> float:
        """How long things go wrong."""
        return self.days * 86_400.0

    def with_events(self, events: Sequence[Event]) -> Schedule:
        """The same simulation with other events."""
        return msgspec.structs.replace(self, events=tuple(events))


def kind_of(event: Event) -> str:
    """The name of a kind of event, as JSON has it."""
    tag = type(event).__struct_config__.tag
    assert isinstance(tag, str), "each has one"  # noqa: S101 - for mypy; it cannot happen
    return tag


def write(schedule: Schedule) -> bytes:
    """A schedule as JSON, one event a line."""
    whole = msgspec.json.encode(schedule.with_events(()))
    lines = b",\n".join(b"  " + msgspec.json.encode(event) for event in schedule.events)
    return whole.replace(b'"events":[]', b'"events":[\n' + lines + b"\n]") + b"\n"


def read(text: bytes) -> Schedule:
    """The schedule that `write` wrote; raises `msgspec.ValidationError` or `msgspec.DecodeError`."""
    return msgspec.json.decode(text, type=Schedule)
