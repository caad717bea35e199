"""How the process logs: one line an event, to standard error; for people on a terminal, as JSON elsewhere.

What libraries log through `logging` (Hypercorn's errors, and its access log if that is turned on) goes the same way and
looks the same. No line shows a secret: tokens are taken out of requests before anything could log them
(``web.access``), and errors are told without the values of variables.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO, cast

import structlog

FORMATS = ("auto", "console", "json")
"""``auto``: ``console`` where standard error is a terminal, which a person looks at, and ``json`` where it is not."""


_OF_LINES = frozenset({"exception", "stack"})
"""What has lines of its own."""


class _StandardError:
    """Whatever ``sys.stderr`` is when a line is written: lines go above what is drawn on the terminal meanwhile."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _printable(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """For a terminal: what others wrote, a path in an access log say, begins no line of its own, and paints nothing."""
    return {
        name: "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in value)
        if isinstance(value, str) and name not in _OF_LINES and not value.isprintable()
        else value
        for name, value in event.items()
    }


def configure(level: str = "info", form: str = "auto") -> None:
    """Set up structlog and `logging` for the process: ``level`` is debug, info, warning or error; see `FORMATS`."""
    is_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    stream = cast("TextIO", _StandardError())  # all that loggers need of one
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # As one text: its lines are escaped in JSON, so that an event stays one line. No values of variables, which the
    # structured forms of structlog and rich show: one of them may be a secret.
    last: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if is_json
        else [_printable, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    # Loggers of libraries (httpx says each request at info) speak up only when something is wrong.
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
