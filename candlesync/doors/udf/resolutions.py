"""The protocol's resolutions: a number is minutes, and ``S``, ``D``, ``W`` and ``M`` stand for themselves. Pure."""

from __future__ import annotations

from candlesync.core.interval import Interval

RESOLUTIONS = {
    "1S": Interval.S1,
    "1": Interval.M1,
    "3": Interval.M3,
    "5": Interval.M5,
    "15": Interval.M15,
    "30": Interval.M30,
    "60": Interval.H1,
    "120": Interval.H2,
    "240": Interval.H4,
    "360": Interval.H6,
    "480": Interval.H8,
    "720": Interval.H12,
    "1D": Interval.D1,
    "3D": Interval.D3,
    "1W": Interval.W1,
    "1M": Interval.MO1,
}
"""Every interval, by the name that we give it."""

SHORT = {"S": "1S", "D": "1D", "W": "1W", "M": "1M"}
"""Other names that clients may give."""
