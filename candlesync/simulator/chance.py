"""Chance that is the same everywhere: integers drawn from a seed and a name, and what is built from them.

Only ``getrandbits`` is used: its values are fixed by Python's Mersenne Twister on every platform and version, while
the distributions of `random` go through the C library's floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import isqrt
from random import Random


def chance(*name: object) -> Random:
    """A generator that depends on nothing but ``name``."""
    return Random("/".join(map(str, name)))  # noqa: S311 - prices are no secrets


def below(rng: Random, limit: int) -> int:
    """A whole number from 0 to ``limit`` - 1."""
    return rng.getrandbits(32) * limit >> 32


def bell(rng: Random, spread: int) -> int:
    """A whole number around 0, standard deviation about ``spread``, never beyond 3.5 times that."""
    total = rng.getrandbits(16) + rng.getrandbits(16) + rng.getrandbits(16) + rng.getrandbits(16) - 2 * 0xFFFF
    return total * spread // 37_837  # the deviation of the sum of four such draws


def choose(rng: Random, count: int, size: int) -> list[int]:
    """``count`` different numbers below ``size``, ascending; all of them when there are no more."""
    if count >= size:
        return list(range(size))
    chosen: set[int] = set()
    while len(chosen) < count:
        chosen.add(below(rng, size))
    return sorted(chosen)


def cumulate(total: int, weights: Sequence[int]) -> list[int]:
    """``total`` shared out by weight, as running sums: they never fall, and the last is ``total``."""
    sums = list(accumulate(weights))
    whole = sums[-1]
    if not whole:
        return [total * (place + 1) // len(sums) for place in range(len(sums))]
    return [total * part // whole for part in sums]


def share(total: int, weights: Sequence[int]) -> list[int]:
    """``total`` shared out by weight, in whole numbers that add up to it."""
    sums = cumulate(total, weights)
    return [after - before for before, after in zip([0, *sums], sums, strict=False)]


def wander(rng: Random, start: int, end: int, steps: int, *, low: int, high: int) -> list[int]:
    """A random walk of ``steps`` steps from ``start`` (left out) to ``end``, within ``low`` and ``high``."""
    reach = max(1, (high - low) // (isqrt(steps) + 1))
    walk = list(accumulate(below(rng, 2 * reach + 1) - reach for _ in range(steps)))
    slope = end - start - walk[-1]
    return [min(high, max(low, start + at + slope * place // steps)) for place, at in enumerate(walk, 1)]
