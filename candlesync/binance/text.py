"""Texts of Binance's: what a decimal and a symbol look like, what is raised for a bad one, how one is quoted. Pure."""

from __future__ import annotations

import re

import msgspec

from candlesync.core.candle import DECIMAL

EXCERPT = 120
"""Characters of a foreign text that may stand in a message of ours: frames and bodies can be megabytes."""

_SYMBOL = r"(?:[^\Wa-z]|[-.]){1,50}"
"""Binance's own rule, `^[\\w\\-._&&[^a-z]]{1,50}$` (error -1100), with letters beyond ASCII, as it lists since 2025."""

is_decimal = re.compile(DECIMAL).fullmatch
is_symbol = re.compile(_SYMBOL).fullmatch
UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What msgspec raises for a foreign text: bad JSON or types, bad UTF-8 or a lone surrogate, nesting too deep."""


def excerpt(text: object) -> str:
    """A foreign text for a message or a log line: one line, printable ASCII, bounded."""
    shown = ascii(str(text)[: EXCERPT + 1])
    return shown if len(shown) <= EXCERPT else shown[:EXCERPT] + "…"
