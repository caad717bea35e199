"""How much, how often and how many: token buckets, and places. The caller says what time it is, in seconds.

A bucket is kept as one number, the moment at which it is full again. Taking one moves that moment on by the time that
one takes to come back; one may be taken as long as the moment stays within the burst's time from now.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from math import inf

_ROUNDING = 0.001
"""The part of one that sums of floats may be off by, so that a whole burst, or a whole wait, always suffices."""


class Allowance:
    """``rate`` a second, and up to ``burst`` at once after a quiet time. A rate of 0 is no limit."""

    __slots__ = ("_ahead", "_each", "_full_at")

    def __init__(self, rate: float, burst: float) -> None:
        self._each, self._ahead = _times(rate, burst)
        self._full_at = -inf

    def wait(self, now: float) -> float:
        """Seconds until one may be taken; 0 when one may be taken now."""
        return max(0.0, max(self._full_at, now) + self._each - now - self._ahead)

    def take(self, now: float) -> float:
        """Take one, which gives 0; or take none, when it is too early, and give the seconds to wait."""
        wait = self.wait(now)
        if not wait:
            self._full_at = max(self._full_at, now) + self._each
        return wait


class Allowances:
    """An `Allowance` for each key, of which at most ``most_keys`` are remembered.

    A key whose bucket is full again is forgotten: it would say nothing. Beyond the bound the one that has asked least
    lately is forgotten, and has its burst anew.
    """

    def __init__(self, rate: float, burst: float, *, most_keys: int = 50_000) -> None:
        self._each, self._ahead = _times(rate, burst)
        self._most_keys = most_keys
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """By key, whoever has asked least lately first."""

    def __len__(self) -> int:
        return len(self._full_at)

    def wait(self, key: str, now: float) -> float:
        """See `Allowance.wait`."""
        return max(0.0, max(self._full_at.get(key, now), now) + self._each - now - self._ahead)

    def take(self, key: str, now: float, amount: int = 1) -> float:
        """See `Allowance.take`; ``amount`` of them, all or none, and never more than the burst."""
        if not self._each:
            return 0.0
        full_at = self._full_at
        after = max(full_at.get(key, now), now) + min(self._each * amount, self._ahead)
        wait = after - now - self._ahead
        if wait <= 0:
            full_at[key] = after
        # Who is refused has asked, too: it is not forgotten for that.
        full_at.move_to_end(key)
        # Two for each that comes, so that the table shrinks by itself.
        for _ in range(2):
            first = next(iter(full_at))
            if full_at[first] > now and len(full_at) <= self._most_keys:
                break
            del full_at[first]
        return max(0.0, wait)


def _times(rate: float, burst: float) -> tuple[float, float]:
    """Seconds in which one comes back, and in which all of a burst do."""
    if rate < 0 or burst < 1:
        raise ValueError(f"a rate of {rate:g} with a burst of {burst:g}: from 0 and from 1")
    each = 1 / rate if rate else 0.0
    return each, (burst + _ROUNDING) * each


class Verdict(Enum):
    """What becomes of a message."""

    TAKEN = "taken"
    REFUSED = "refused"
    ENOUGH = "enough"
    """Refused, as so many others before that there is no use in going on."""


class Pace:
    """Messages of one client: those over its allowance are refused, for which it has the same allowance once more.

    So who is over the rate for a while is refused, and who goes on at more than twice the rate has had enough.
    """

    __slots__ = ("_refusals", "_taken")

    def __init__(self, rate: float, burst: float) -> None:
        self._taken = Allowance(rate, burst)
        self._refusals = Allowance(rate, burst)

    def take(self, now: float) -> Verdict:
        """Judge one message."""
        if not self._taken.take(now):
            return Verdict.TAKEN
        return Verdict.ENOUGH if self._refusals.take(now) else Verdict.REFUSED


class Places:
    """How many are in at once: in all, and of each key. What has no key (``""``) counts only in all."""

    def __init__(self, most: float, most_each: float) -> None:
        self.most = most
        self.most_each = most_each
        self.taken = 0
        self._by_key: dict[str, int] = {}
        """Of those that have one; a key with none is not kept."""

    @property
    def is_full(self) -> bool:
        """Whether nobody else may come in."""
        return self.taken >= self.most

    def is_full_for(self, key: str) -> bool:
        """Whether nobody else with this key may come in."""
        return bool(key) and self._by_key.get(key, 0) >= self.most_each

    def take(self, key: str) -> None:
        """One comes in."""
        self.taken += 1
        if key:
            self._by_key[key] = self._by_key.get(key, 0) + 1

    def leave(self, key: str) -> None:
        """One goes."""
        self.taken -= 1
        if key:
            left = self._by_key.pop(key) - 1
            if left:
                self._by_key[key] = left
