"""What a value of the command line, or of an environment variable, may be; what it may not be is said in words.

The callbacks and types of the options that ``candlesync.options`` and ``candlesync.cli`` declare. A callback raises
`click.BadParameter`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import isfinite
from typing import Any
from urllib.parse import urlsplit

import click

from candlesync.core.address import Networks
from candlesync.core.interval import INTERVALS, Interval
from candlesync.store.address import Address
from candlesync.store.codec import Keys
from candlesync.web.access import Token, read_origin
from candlesync.web.parameters import read_series
from candlesync.web.refusal import Refusal

STORES = "redis://HOST:PORT/DATABASE, rediss:// (TLS), unix:///PATH, or redis+cluster://HOST:PORT,HOST:PORT"
"""How a shared store may be named."""


def _words(values: tuple[str, ...]) -> list[str]:
    """What was given; an environment variable may hold several, apart by commas or spaces."""
    return list(dict.fromkeys(" ".join(values).replace(",", " ").split()))


def read_symbols(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """A click callback: symbols in upper case, each once."""
    try:
        return tuple(dict.fromkeys(read_series(word, "1m").symbol for word in _words(values)))
    except Refusal as refusal:
        raise click.BadParameter(f"{refusal.message}; symbols look like BTCUSDT") from None


def read_intervals(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[Interval, ...]:
    """A click callback: intervals by their names."""
    try:
        return tuple(Interval(word) for word in _words(values))
    except ValueError as error:
        raise click.BadParameter(f"{error}; there are {', '.join(map(str, INTERVALS))}") from None


def read_binds(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """A click callback: addresses to listen at, each HOST:PORT; one at least."""
    words = _words(values)
    for word in words:
        host, _, port = word.rpartition(":")
        if not (host and port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 65536):
            raise click.BadParameter(f"{word!r} is not HOST:PORT, such as 127.0.0.1:8000 or [::]:8000")
    if not words:
        raise click.BadParameter("no address is given; they look like 127.0.0.1:8000 or [::]:8000")
    return tuple(words)


def read_url(*schemes: str) -> Callable[[click.Context, click.Parameter, str | None], str]:
    """A click callback: a URL of one of these schemes; empty when none is given."""

    def check(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str:
        if value is None:
            return ""
        try:
            parts = urlsplit(value)
            # Asking for the port raises, too, when it is none.
            is_good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_good = False
        if not is_good or parts.query or parts.fragment:
            raise click.BadParameter(f"{value!r} is not {' or '.join(schemes)}, a host, and perhaps a port and a path")
        return value

    return check


class Number(click.FloatRange):
    """A finite number: NaN is in every range, and without an end there would be none."""

    unit = ""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value!r} is not a number{self.unit}.", param, ctx)
        return number


class Seconds(Number):
    """A finite number of seconds."""

    name = "seconds"
    unit = " of seconds"


def read_store(_context: click.Context, _parameter: click.Parameter, value: str) -> Address | None:
    """A click callback: where Redis is; `None` for this process's memory."""
    if value == "memory":
        return None
    address = Address(value)
    try:
        address.options()
    except ValueError as error:
        raise click.BadParameter(f"{error}; a store is memory, or {STORES}") from None
    return address


def read_prefix(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """A click callback: what all names in Redis may begin with."""
    try:
        if value is not None:
            Keys(value, 0)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def read_origins(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """A click callback: origins of pages; none when all may ask."""
    words = _words(values)
    try:
        return () if "*" in words else tuple(dict.fromkeys(read_origin(word) for word in words))
    except ValueError as error:
        raise click.BadParameter(f"{error}; origins look like https://chart.example") from None


def read_tokens(_context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Token, ...]:
    """A click callback: tokens, each once."""
    # Neither here nor in what is raised is a token said: it would end in a log.
    texts = [text for value in values for text in value.split(",")]
    # Click takes an empty variable for none, and a secret that was lost on its way must not open the server.
    if not all(texts) or (not texts and not os.environ.get(str(parameter.envvar), "unset").strip()):
        raise click.BadParameter("a token is empty")
    try:
        return tuple(Token(text) for text in dict.fromkeys(texts))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def read_proxies(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """A click callback: addresses and networks of proxies, or ``unix``."""
    words = _words(values)
    for word in words:
        try:
            Networks([word])
        except ValueError as error:
            message = f"{error}; proxies look like 10.0.0.1, 10.0.0.0/8, 2001:db8::/32 or unix"
            raise click.BadParameter(message) from None
    return tuple(words)
