"""The store's contract.

A store keeps series, each continuous (invariant 1), and changes one only by a *commit*: an atomic compare-and-set that
either happens whole or not at all. Every implementation passes ``tests/store/contract.py``.

- **Revision.** A commit names the life and the revision that it makes. The store refuses it with `RevisionConflict`
  unless the series is at that life and at the revision just before. The first commit of a life *begins* the series with
  revision 1; a commit that begins within a life (after a gap longer than the history) takes the next revision, and
  leaves only its own candles.
- **Continuity.** The store checks invariants 1 and 3 itself and refuses with `NotContinuous`; no caller can break them.
- **Fencing.** A commit carries the symbol's current fencing token. `Store.claim` makes a new token, never used before,
  and so fences off whoever had the last one: tokens are compared for equality, and any other gets `Fenced`.
- **History.** After a commit the oldest candles beyond the history length are gone, and the snapshot's ``trimmed`` is
  the greatest revision among all that ever left so.
- **Unknown outcome.** A commit that is cancelled or that fails in another way than by one of the refusals above may or
  may not have happened, and the store does not try it again. Whoever wants to know reads the series.
- **Unavailable.** A store outside of the process raises `StoreUnavailable` from any method, within a time of its own,
  when it cannot be asked or does not answer usably.
"""

from __future__ import annotations

from typing import Protocol

from candlesync.core.candle import Series
from candlesync.core.replica import Commit, Snapshot


class Store(Protocol):
    """Where series are kept."""

    async def claim(self, symbol: str) -> int:
        """Take over the writing of a symbol's series: a new fencing token, which makes every earlier one invalid."""
        ...

    async def read(self, series: Series) -> Snapshot | None:
        """The whole series at one revision, or `None` if there is none."""
        ...

    async def commit(self, series: Series, commit: Commit, *, token: int) -> None:
        """Make one atomic change.

        Raises, with nothing changed, `RevisionConflict`, `NotContinuous` or `Fenced`.
        """
        ...

    async def forget(self, series: Series, *, token: int) -> None:
        """Drop a series that nobody follows any more, where keeping it would cost this process's memory.

        A store outside of the process keeps it. Raises `Fenced`.
        """
        ...
