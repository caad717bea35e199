"""What became of the requests, by the API that they were for: the layer before all that answers.

WebSockets are not its business, and cost nothing here: see `live.Sockets`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Iterable
from typing import Any

import trio

from candlesync.core.histogram import MOMENTS, Histogram
from candlesync.web.access import Serve

STATUSES = ("2xx", "3xx", "4xx", "5xx", "none")
"""Classes of the status of an answer; none: the client left before there was one."""

_OTHER = "other"
_APIS = {
    **dict.fromkeys(("candles", "ws"), "candles"),
    "symbols": "symbols",
    **dict.fromkeys(("health", "ready", "metrics"), "probes"),
    **dict.fromkeys(("", "static", "docs", "openapi.json"), "page"),
}
"""By the first word of the path. Clients choose paths, so what is not known is one."""


class Requests:
    """Counts them."""

    def __init__(self, doors: Iterable[str] = ()) -> None:
        """``doors`` are the paths under which there are other APIs, such as ``/udf``."""
        self._apis = {**_APIS, **{door.strip("/"): door.strip("/") for door in doors}}
        self.apis = tuple(dict.fromkeys((*self._apis.values(), _OTHER)))
        """All that are told apart."""
        self.answered = Counter[tuple[str, str]]()
        """How many there were, by API and the class of the status."""
        self.seconds = {api: Histogram(MOMENTS) for api in self.apis}
        """From the request to the beginning of its answer, by API."""

    def before(self, serve: Serve) -> Any:
        """The application that counts what ``serve`` answers."""

        def counted(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
            is_counted = scope["type"] == "http"
            return self._count(serve, scope, receive, send) if is_counted else serve(scope, receive, send)

        return counted

    async def _count(self, serve: Serve, scope: Any, receive: Any, send: Any) -> None:
        api = self._apis.get(scope["path"].lstrip("/").partition("/")[0], _OTHER)
        began, is_begun = trio.current_time(), False

        def watch(message: Any) -> Any:
            nonlocal is_begun
            if not is_begun and message["type"] == "http.response.start":
                is_begun = True
                self.answered[api, f"{message['status'] // 100}xx"] += 1
                self.seconds[api].observe(trio.current_time() - began)
            return send(message)

        try:
            await serve(scope, receive, watch)
        finally:
            if not is_begun:
                self.answered[api, "none"] += 1
