"""Who owns a symbol where several nodes share a store: leases, kept by beats and moved by agreement.

A node beats four times a lease. At each beat it says that it is there and learns who else is (`SharedStore.attend`),
and renews the leases of all its tenures. What follows is decided by each node for itself, from what all nodes see:

- A tenure ends when the placement (``core.placement``) has given its symbol to another node for longer than a lease:
  as long as a node that has died still seems to be there, which is not to be given anything. What comes back because
  nobody took it is kept for longer (``core.handing_over``).
- It ends when a renewal is `Fenced`, and when the store has not confirmed the lease for ``hold`` seconds. That is much
  longer than the lease: while the store is away nobody else can claim either, and nobody drops its Binance connection
  for it. Whoever alone is cut off holds on in vain for so long, but cannot commit.
- A symbol without an owner is claimed by one node after the other (``core.succession``), until one has it.

The store has the last word each time: what is decided here on old news costs a refused claim, or a move more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import msgspec
import structlog
import trio

from candlesync.core.candle import Series
from candlesync.core.handing_over import HandingOver
from candlesync.core.interval import Interval
from candlesync.core.placement import Assembly, Member
from candlesync.core.report import Release, Report, SeriesReport
from candlesync.core.succession import Succession
from candlesync.errors import Fenced, Leased, StoreUnavailable
from candlesync.ownership import Tenure
from candlesync.store.base import SharedStore

_log = structlog.get_logger(__name__)

_BEATS = 4
"""In a lease: three renewals may come to nothing."""
_OVERDUE = 1.5
"""Beats after which the next renewal does not wait for the answer to the last: the one at the second beat after it,
which is half a lease before the end."""
_PAUSE = 0.2
"""Of a beat, between two askings of who is there: when many nodes change, each is told of each change."""


class LeaseSettings(msgspec.Struct, frozen=True):
    """Times in seconds. The beats and the deadlines follow from the store's lease."""

    hold: float = 15.0
    """A tenure whose lease the store has not confirmed for so long ends. Restarts of the store are shorter."""
    stagger: float = 0.3
    """Between the claims of two nodes that wait for the same symbol: more than a claim and its report take."""
    hand_overs: int = 16
    """Symbols that a node gives away at one beat: each has no feed for as long as its new owner takes to connect."""
    farewell: float = 1.0
    """How long a release, or leaving, may take."""


class _Held(Tenure):
    """A tenure, and what its renewals need."""

    def __init__(
        self, symbol: str, token: int, report: Callable[[], dict[Interval, SeriesReport]], confirmed: float
    ) -> None:
        super().__init__(symbol, token)
        self.report = report
        self.confirmed = confirmed
        """When the last renewal that succeeded was sent: the lease lasts from later on."""
        self.is_due = False
        """To be renewed (once more)."""
        self.renewing_since = -math.inf
        """When the renewal that is under way was sent, the last one if there are two; of none, long ago."""
        self.misplaced = 0
        """Beats in a row at which the placement gave the symbol to another node."""


class SharedOwnership:
    """An `Ownership` among the nodes of a shared store. It works while `run` does."""

    def __init__(
        self,
        store: SharedStore,
        *,
        name: str,
        wants: Callable[[], dict[str, tuple[Interval, ...]]],
        keep: Callable[[Series], None],
        settings: LeaseSettings,
    ) -> None:
        """``wants`` says what this node follows; ``keep`` is called at each beat for what others want of its own."""
        self.name = name
        """This node's, for people."""
        self.members: Mapping[str, Member] = {}
        """The nodes that were there when the store was last asked, this one among them, by their identities."""
        self.claims = 0
        """Tenures begun."""
        self.losses = 0
        """Tenures that ended against this node's will."""
        self.hand_overs = 0
        """Tenures that ended because the symbol went to another node."""
        self.last_error = ""
        """Why the store could not be asked the last time; empty when it could."""
        self._store = store
        self._node = store.node
        self._lease = store.lease
        self._beat = store.lease / _BEATS
        self._wants = wants
        self._keep = keep
        self._settings = settings
        self._assembly = Assembly({})
        self._succession = Succession(self._node, lease=self._lease, beat=self._beat, stagger=settings.stagger)
        self._handing_over = HandingOver(_BEATS)
        self._said: Member | None = None
        self._held: dict[str, _Held] = {}
        self._waiting: dict[str, trio.Event] = {}
        """Of each symbol that `obtain` waits for; set when its turn may come sooner."""
        self._judged = -math.inf
        self._is_attending = False
        self._attendance_is_due = False
        self._has_resigned = False
        self._beating = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._logged = (0, 0, 0)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Beat, until cancelled or until `resign` was called; then this node has left."""
        task_status.started()
        try:
            with self._beating:
                await self._beat_on()
        finally:
            if self._has_resigned:
                with trio.move_on_after(self._settings.farewell, shield=True):
                    try:
                        await self._store.leave()
                    except StoreUnavailable as error:
                        _log.warning("left without saying so", reason=str(error))

    async def obtain(self, symbol: str, report: Callable[[], dict[Interval, SeriesReport]]) -> Tenure:
        """See `Ownership.obtain`. One call for a symbol at a time, and none before its tenure was given up."""
        self._waiting[symbol] = trio.Event()
        if self._said is None or symbol not in self._said.wants:
            self._attend_soon()
        try:
            while True:
                while (turn := self._turn(symbol)) > trio.current_time():
                    sooner = self._waiting[symbol] = trio.Event()
                    with trio.move_on_at(turn):
                        await sooner.wait()
                held = await self._claim(symbol, report)
                if held is not None:
                    return held
        finally:
            del self._waiting[symbol]

    def state_changed(self, tenure: Tenure) -> None:
        """See `Ownership.state_changed`."""
        held = self._held.get(tenure.symbol)
        if held is tenure:
            self._renew_soon(held)

    async def give_up(self, tenure: Tenure) -> None:
        """See `Ownership.give_up`."""
        symbol = tenure.symbol
        tenure.end("given up")
        held = self._held.get(symbol)
        if held is not tenure:
            return
        successor = self._succession.successor(symbol)
        is_lost = False
        with trio.move_on_after(self._settings.farewell, shield=True):
            try:
                await self._store.release(symbol, Release(self._node, successor), token=held.token)
            except Fenced:
                is_lost = True
            except StoreUnavailable as error:
                self._note_trouble(error)
        del self._held[symbol]
        if is_lost:
            self._succession.lost(symbol, trio.current_time())
            self._attend_soon()
        else:
            self._succession.given_up(symbol, successor, trio.current_time())

    def resign(self) -> None:
        """This node goes: it claims nothing more, ends all its tenures, and leaves. `give_up` is still to be called."""
        self._has_resigned = True
        for held in self._held.values():
            held.end("the node is leaving")
        self._beating.cancel()

    def wants_changed(self) -> None:
        """What this node follows has changed: others are told soon."""
        self._attend_soon()

    @property
    def tenures(self) -> Mapping[str, Tenure]:
        """This node's, by symbol, until they were given up."""
        return self._held

    def owners(self) -> dict[str, str]:
        """The name of each symbol's owner, as far as this node knows."""
        names = {node: member.name for node, member in self.members.items()}
        owners = {
            symbol: names[self._assembly.owner(symbol)]
            for member in self.members.values()
            for symbol in member.owns
            if self._assembly.owner(symbol) != self._node
        }
        return dict(sorted((owners | dict.fromkeys(self._held, self.name)).items()))

    # --- what is announced (see ``store.base.Audience``)

    def assembled(self) -> None:
        """See `Audience.assembled`."""
        self._attend_soon()

    def reported(self, symbol: str, report: Report) -> None:
        """See `Audience.reported`."""
        if report.owner == self._node:
            return
        self._succession.reported(symbol, report.owner, trio.current_time())
        self._handing_over.taken(symbol)
        held = self._held.get(symbol)
        if held is not None:
            self._renew_soon(held)  # which of the two of us is the owner, the store says

    def released(self, symbol: str, release: Release) -> None:
        """See `Audience.released`."""
        if release.owner == self._node:
            return
        self._succession.released(symbol, release.owner, release.successor, trio.current_time())
        self._wake(symbol)

    # --- beats

    async def _beat_on(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                beat = trio.current_time()
                while True:
                    self._renew_all()
                    self._attend_soon()
                    self._log_changes()
                    beat = max(beat + self._beat, trio.current_time())
                    await trio.sleep_until(beat)
            finally:
                self._nursery = None  # closed to new arrivals, while the last calls still end

    def _renew_all(self) -> None:
        now = trio.current_time()
        for held in self._held.values():
            if now - held.confirmed >= self._settings.hold:
                self._lose(held, f"the store has not confirmed the lease for {self._settings.hold:g} s")
            else:
                self._renew_soon(held)

    def _renew_soon(self, held: _Held) -> None:
        held.is_due = True
        # One is under way at a time; but one whose answer does not come is not waited for until the lease has ended.
        is_under_way = trio.current_time() - held.renewing_since < _OVERDUE * self._beat
        if not is_under_way and self._nursery is not None:
            held.renewing_since = trio.current_time()
            self._nursery.start_soon(self._renew, held)

    async def _renew(self, held: _Held) -> None:
        while held.is_due and not held.ended.is_set():
            held.is_due = False
            sent = held.renewing_since = trio.current_time()
            report = Report(self._node, held.report())
            try:
                with trio.fail_after(self._lease):
                    await self._store.renew(held.symbol, report, token=held.token)
            except Fenced as error:
                self._lose(held, str(error))
            except (StoreUnavailable, trio.TooSlowError) as error:
                self._note_trouble(error)
            else:
                held.confirmed = sent
            if held.renewing_since != sent:
                return  # it took so long that another has begun
        held.renewing_since = -math.inf

    def _lose(self, held: _Held, reason: str) -> None:
        if not held.ended.is_set():
            self.losses += 1
            _log.debug("tenure lost", symbol=held.symbol, reason=reason)
            held.end(reason)

    def _attend_soon(self) -> None:
        self._attendance_is_due = True
        if not self._is_attending and self._nursery is not None:
            self._is_attending = True
            self._nursery.start_soon(self._attend)

    async def _attend(self) -> None:
        try:
            while self._attendance_is_due:
                self._attendance_is_due = False
                sent = trio.current_time()
                said = self._describe()
                try:
                    with trio.fail_after(self._lease):
                        members = await self._store.attend(said)
                except (StoreUnavailable, trio.TooSlowError) as error:
                    self._note_trouble(error)
                else:
                    self._said = said
                    self._learn(members, sent)
                await trio.sleep(self._beat * _PAUSE)
        finally:
            self._is_attending = False

    def _describe(self) -> Member:
        # A symbol whose task does not run just now cannot be taken over by us: we do not want it, so to speak.
        wants = {
            symbol: intervals
            for symbol, intervals in sorted(self._wants().items())
            if symbol in self._waiting or symbol in self._held
        }
        return Member(self.name, wants, tuple(sorted(self._held)))

    def _learn(self, members: Mapping[str, Member], sent: float) -> None:
        now = trio.current_time()
        if self.last_error:
            self.last_error = ""
            _log.info("the store answers again", nodes=len(members))
        if members != self.members:
            if members.keys() != self.members.keys():
                _log.info("nodes", nodes={node: member.name for node, member in members.items()})
            self.members = members
            self._assembly = Assembly(members)
        if self._succession.learn(self._assembly, asked=sent, now=now):
            for symbol in self._waiting:
                self._wake(symbol)
        if now - self._judged > 0.9 * self._beat:
            self._judged = now
            self._judge()

    def _judge(self) -> None:
        """Once a beat, with news of who is there: what is to be kept for others, and what is to go to them."""
        placement = self._assembly.placement()
        left = self._settings.hand_overs
        for symbol, held in self._held.items():
            if held.ended.is_set():
                continue
            for interval in self._assembly.wanted_beside(self._node, symbol):
                self._keep(Series(symbol, interval))
            node = placement.get(symbol, self._node)
            held.misplaced = 0 if node == self._node else held.misplaced + 1
            if self._handing_over.is_due(symbol, held.misplaced) and left:
                left -= 1
                self.hand_overs += 1
                self._handing_over.offered(symbol)
                _log.debug("symbol handed over", symbol=symbol, successor=self.members[node].name)
                held.end(f"the symbol goes to {self.members[node].name}")

    # --- claims

    def _turn(self, symbol: str) -> float:
        return math.inf if self._has_resigned else self._succession.turn(symbol, trio.current_time())

    def _wake(self, symbol: str) -> None:
        if symbol in self._waiting:
            self._waiting[symbol].set()

    async def _claim(self, symbol: str, report: Callable[[], dict[Interval, SeriesReport]]) -> _Held | None:
        sent = trio.current_time()
        try:
            with trio.fail_after(self._lease):
                token = await self._store.claim(symbol)
        except Leased as refusal:
            self._succession.refused(symbol, refusal.owner, refusal.seconds, trio.current_time())
            self._handing_over.taken(symbol)
            return None
        except (StoreUnavailable, trio.TooSlowError) as error:
            self._note_trouble(error)
            await trio.sleep(self._beat)
            return None
        self.claims += 1
        held = self._held[symbol] = _Held(symbol, token, report, sent)
        self._succession.obtained(symbol)
        self._handing_over.claimed(symbol)
        _log.debug("symbol claimed", symbol=symbol)
        if self._has_resigned:
            held.end("the node is leaving")
        self._renew_soon(held)  # which tells the others
        return held

    def _note_trouble(self, error: StoreUnavailable | trio.TooSlowError) -> None:
        if not self.last_error:
            _log.warning("the store cannot be asked", reason=str(error))
        self.last_error = str(error) or "the store did not answer in time"

    def _log_changes(self) -> None:
        counted = (self.claims, self.losses, self.hand_overs)
        if counted != self._logged:
            claimed, lost, handed_over = (now - before for now, before in zip(counted, self._logged, strict=True))
            self._logged = counted
            _log.info("tenures", claimed=claimed, lost=lost, handed_over=handed_over, owned=len(self._held))
