"""A position: how far a client has everything. To clients it is one opaque text."""

from __future__ import annotations

import re

import msgspec

LIFE = r"[0-9a-z]{1,32}"
"""A life's name, as a regular expression: it stands in positions as it is."""
LAST_REVISION = 10**18 - 1
_TEXT = re.compile(rf"({LIFE})-([0-9]{{1,18}})")


class Position(msgspec.Struct, frozen=True):
    """A life and the revision up to which a client has everything of one series."""

    life: str
    revision: int

    def __str__(self) -> str:
        return f"{self.life}-{self.revision}"


def parse_position(text: str) -> Position:
    """The position that ``str(position)`` gave; raises `ValueError` for any other text."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError("not a position that this server gave")
    return Position(match[1], int(match[2]))
