"""The parameters of a REST request, checked as Binance checks them.

The messages and their order are those of recorded answers and of errors.md: a repeated parameter, then a mandatory
one that is not there, then one that the path does not know, then each value.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import msgspec

_NUMBER = r"^[0-9]{1,20}$"
_SYMBOL = r"^[\w\-._&&[^a-z]]{1,50}$"
"""As Binance words it, in Java's syntax; in Python's:"""
_SYMBOL_PATTERN = re.compile(r"[A-Z0-9_\-.]{1,50}")
_LARGEST = 2**63 - 1


class BadRequest(Exception):
    """A request that Binance answers with status 400; ``code`` and ``message`` are those of the body."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Parameters:
    """The query of one request; ``mandatory`` and ``optional`` are the names that its path knows."""

    def __init__(
        self, query: Sequence[tuple[str, str]], *, mandatory: Collection[str] = (), optional: Collection[str] = ()
    ) -> None:
        self._values = dict(query)
        if len(self._values) < len(query):
            raise BadRequest(-1101, "Duplicate values for a parameter detected.")
        for name in mandatory:
            if name not in self._values:
                raise malformed(name)
        read = [name for name in self._values if name in mandatory or name in optional]
        if len(read) < len(self._values):
            sent = len(self._values)
            raise BadRequest(
                -1104, f"Not all sent parameters were read; read '{len(read)}' parameter(s) but was sent '{sent}'."
            )
        for name, value in query:
            if not value:
                raise BadRequest(-1105, f"Parameter '{name}' was empty.")

    def text(self, name: str) -> str | None:
        """The value as sent; `None` when it was not."""
        return self._values.get(name)

    def symbol(self, name: str) -> str | None:
        """The value, of letters that may be in a symbol."""
        value = self._values.get(name)
        if value is not None and not _SYMBOL_PATTERN.fullmatch(value):
            raise _illegal(name, _SYMBOL)
        return value

    def number(self, name: str) -> int | None:
        """The value as a whole number."""
        value = self._values.get(name)
        if value is None:
            return None
        if not re.fullmatch(_NUMBER, value, re.ASCII):
            raise _illegal(name, _NUMBER)
        if int(value) > _LARGEST:
            raise BadRequest(-1108, f"Parameter '{name}' overflowed.")
        return int(value)

    def names(self, name: str) -> list[str]:
        """The value as a JSON array of texts; empty when it was not sent."""
        try:
            return msgspec.json.decode(self._values.get(name, "[]"), type=list[str])
        except msgspec.DecodeError:
            raise BadRequest(-1135, f"JSON sent for parameter '{name}' is not valid") from None


def malformed(name: str) -> BadRequest:
    """A mandatory parameter that was not sent, or whose value cannot be."""
    return BadRequest(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def _illegal(name: str, legal: str) -> BadRequest:
    return BadRequest(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")
