"""What can go wrong, and when.

A fault is one of the structs below; in JSON its ``kind`` says which. All have in common:

- ``at``: when it begins, in seconds after the start of the exchange; left out, at once (a fault of the settings: with
  the start).
- ``for`` (in Python ``seconds``): how long it lasts; left out, until it is cleared.
- ``clock``: whether those two are seconds of Trio's clock (``trio``, the default) or of the ``market``.
- ``symbol``: the symbol that it concerns; left out, all of them, and requests about none.

Spans whose name ends in ``_ms`` are milliseconds of market time. Each fault was seen of Binance or of a network in
front of it, or can be expected of one (see the facts in the project's design).
"""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec
import trio

from candlesync.core.interval import Interval
from candlesync.simulator.clock import MarketClock


class _Fault(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", rename={"seconds": "for"}
):
    at: float | None = None
    seconds: float | None = None
    clock: Literal["trio", "market"] = "trio"
    symbol: str | None = None

    def __post_init__(self) -> None:
        if (self.at or 0) < 0 or (self.seconds or 0) < 0:
            raise ValueError("`at` and `for` are not before the start")


class Drop(_Fault, tag="drop", frozen=True, kw_only=True):
    """All stream connections (of the symbol) end at once. ``for`` means nothing: new ones are taken."""

    close_frame: bool = True
    """Whether they are closed as WebSockets; otherwise the TCP connections break."""
    code: int = 1001


class Refuse(_Fault, tag="refuse", frozen=True, kw_only=True):
    """New stream connections are refused. With ``symbol``: those that ask for one of its streams, or for none yet."""

    status: int = 503
    hang: bool = False
    """Whether the handshake is not answered at all before the fault ends."""


class Silent(_Fault, tag="silent", frozen=True, kw_only=True):
    """Connections stay up and answer pings and messages, but market data stops."""

    stream: str | None = None
    """Only this stream (``btcusdt@kline_1m``)."""


class Deaf(_Fault, tag="deaf", frozen=True, kw_only=True):
    """Subscriptions are acknowledged, but nothing is ever sent for them, on that connection, even after the fault."""


class Duplicates(_Fault, tag="duplicates", frozen=True, kw_only=True):
    """Each frame is sent several times."""

    times: int = 2


class Late(_Fault, tag="late", frozen=True, kw_only=True):
    """Frames are sent as always, and once more when they are old."""

    by_ms: int = 90_000
    which: Literal["both", "forming", "closed"] = "both"


class DelayedClose(_Fault, tag="delayed_close", frozen=True, kw_only=True):
    """The frames of closed candles come late, possibly after the first ones of the next candle."""

    by_ms: int = 3_000
    interval: Interval | None = None


FrameShape = Literal["not_json", "not_an_object", "wrong_types", "missing_fields", "wrong_symbol"]


class Garbage(_Fault, tag="garbage", frozen=True, kw_only=True):
    """Frames that are not what Binance documents come before the good ones, or instead of them."""

    shape: FrameShape | None = None
    """Left out: each in turn."""
    replace: bool = False


class HideClose(_Fault, tag="hide_close", frozen=True, kw_only=True):
    """Connections (of the symbol) break just before the next close of a candle, and new ones are refused until after
    the next candle has begun. ``for`` means nothing. Without ``symbol``: the closes of the interval's grid.
    """

    interval: Interval = Interval.M1
    before_ms: int = 500
    after_ms: int = 3_000


class Shutdown(_Fault, tag="shutdown", frozen=True, kw_only=True):
    """Connections are told ``serverShutdown``, and those of them that are still there are closed after ``for``."""


class _RestFault(_Fault, frozen=True, kw_only=True):
    path: str | None = None
    """Only this path (``/api/v3/klines``)."""


class RestDown(_RestFault, tag="rest_down", frozen=True, kw_only=True):
    """REST is down, slow, or does not answer."""

    status: int | None = 503
    """The status of each answer; `None`: after ``delay`` the proper answer is given."""
    delay: float = 0.0
    """Seconds before the answer."""
    hang: bool = False
    """Whether there is no answer before the fault ends; what comes then is as if asked then."""


class RestLimited(_RestFault, tag="rest_429", frozen=True, kw_only=True):
    """Each request is answered 429."""

    retry_after: int | None = 10
    """The header ``Retry-After``; `None`: not sent."""


class RestBanned(_RestFault, tag="rest_418", frozen=True, kw_only=True):
    """Each request is answered 418."""

    retry_after: int | None = 120


class RestBlocked(_RestFault, tag="rest_451", frozen=True, kw_only=True):
    """Each request is answered 451: Binance is not available at this place."""


class RestBehind(_RestFault, tag="rest_behind", frozen=True, kw_only=True):
    """REST shows the market as it was a while ago; the stream is current."""

    by_ms: int = 90_000


BodyShape = Literal["html", "truncated", "empty", "not_an_array", "wrong_types", "short_rows"]


class RestGarbage(_RestFault, tag="rest_garbage", frozen=True, kw_only=True):
    """Answers with status 200 and a body that is not what Binance documents."""

    shape: BodyShape | None = None
    """Left out: each in turn."""


class Missing(_Fault, tag="missing", frozen=True, kw_only=True):
    """REST answers lack some candles."""

    interval: Interval | None = Interval.M1
    """`None`: of any interval."""
    open_times: tuple[int, ...]
    stream: bool = False
    """Whether the stream lacks them too."""


class Rewritten(_Fault, tag="rewritten", frozen=True, kw_only=True):
    """Some candles, once they are closed, are shown by REST otherwise than the stream has shown them: what is true has
    changed, for as long as the fault lasts.
    """

    interval: Interval | None = Interval.M1
    """`None`: of any interval."""
    open_times: tuple[int, ...]


Fault = (
    Drop
    | Refuse
    | Silent
    | Deaf
    | Duplicates
    | Late
    | DelayedClose
    | Garbage
    | HideClose
    | Shutdown
    | RestDown
    | RestLimited
    | RestBanned
    | RestBlocked
    | RestBehind
    | RestGarbage
    | Missing
    | Rewritten
)

_Kind = TypeVar("_Kind", bound=_Fault)


_SLACK = 1e-6
"""Seconds; whoever slept until a fault begins finds it active, in spite of rounding."""


class Window:
    """One fault with the time in which it is active, in seconds of Trio's clock after the start."""

    def __init__(self, fault: Fault, start: float, end: float) -> None:
        self.fault = fault
        self.start = start
        self.end = end
        self.cleared = trio.Event()


class FaultPlan:
    """The faults that are active or to come."""

    def __init__(self, clock: MarketClock) -> None:
        self._clock = clock
        self._windows: list[Window] = []

    def add(self, fault: Fault) -> Window:
        """Take up a fault."""
        scale = self._clock.seconds(1000) if fault.clock == "market" else 1.0
        start = self._elapsed() if fault.at is None else fault.at * scale
        window = Window(fault, start, float("inf") if fault.seconds is None else start + fault.seconds * scale)
        self._windows.append(window)
        return window

    def clear(self) -> None:
        """End all faults, and forget those to come."""
        for window in self._windows:
            window.cleared.set()
        self._windows.clear()

    def listed(self) -> list[Fault]:
        """The faults that are active or to come."""
        self._forget_old()
        return [window.fault for window in self._windows]

    def active(self, kind: type[_Kind], symbol: str | None = None) -> list[_Kind]:
        """The faults of one kind that are active now and concern ``symbol``."""
        return [window.fault for window in self.windows(kind, symbol) if isinstance(window.fault, kind)]

    def windows(self, kind: type[_Fault], symbol: str | None = None) -> list[Window]:
        """The same with their times."""
        if not self._windows:
            return []  # as a rule, and on the path of every frame
        self._forget_old()
        elapsed = self._elapsed()
        return [
            window
            for window in self._windows
            if isinstance(window.fault, kind)
            and window.start <= elapsed + _SLACK
            and window.fault.symbol in (None, symbol)
        ]

    async def begin(self, window: Window) -> bool:
        """Wait until a fault begins; `False` when it was cleared before."""
        return await self._uncleared_until(window, window.start)

    async def end(self, window: Window) -> bool:
        """Wait until a fault ends, and forget it; `False` when it was cleared before."""
        ended = await self._uncleared_until(window, window.end)
        self.forget(window)
        return ended

    def forget(self, window: Window) -> None:
        """A fault has had its effect."""
        if window in self._windows:
            self._windows.remove(window)

    async def _uncleared_until(self, window: Window, elapsed: float) -> bool:
        began = self._clock.began
        with trio.move_on_at(float("inf") if began is None else began + elapsed):
            await window.cleared.wait()
        return not window.cleared.is_set()

    def _elapsed(self) -> float:
        began = self._clock.began
        return 0.0 if began is None else trio.current_time() - began

    def _forget_old(self) -> None:
        elapsed = self._elapsed()
        self._windows = [window for window in self._windows if elapsed < window.end]
