"""The short way to a REST answer: most requests for candles can be answered at once, and need nothing of the framework.

Measured: 0.012 ms of CPU for a request here, 0.3 ms through Quart; Hypercorn takes 0.4 ms for either. All that is not
plain goes on to the framework's route, which reads and answers by the same functions (``web.history``): what a client
gets does not depend on the way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from candlesync.supervisor import Supervisor
from candlesync.web.history import Answer, History, read_question
from candlesync.web.parameters import read_series
from candlesync.web.refusal import Refusal

_PATH = re.compile(r"/candles/([A-Za-z0-9._-]+)/([0-9]+[A-Za-z])")
_PARAMETER = re.compile(r"(limit|before)=([0-9]+)", re.ASCII)
_OF_BODIES = (b"content-length", b"transfer-encoding", b"expect")
"""Headers of requests that bring a body along; what becomes of it is the framework's business."""


class ReadyAnswers:
    """An ASGI application in front of another one, ``serve``, that answers in its place where it can."""

    def __init__(
        self, serve: ASGIFramework, supervisor: Supervisor, history: History, headers: Mapping[str, str]
    ) -> None:
        """``headers`` are added to each answer."""
        self._serve = serve
        self._supervisor = supervisor
        self._history = history
        self._headers = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """See the ASGI specification."""
        answer = self._answer(scope) if scope["type"] == "http" else None
        if answer is None:
            await self._serve(scope, receive, send)
            return
        headers = [*answer.headers, *self._headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers, "trailers": False})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})

    def _answer(self, scope: HTTPScope) -> Answer | None:
        """The answer, or `None` when the framework has to see to it."""
        path = _PATH.fullmatch(scope["path"])
        if path is None or scope["method"] not in {"GET", "HEAD"} or scope.get("root_path"):
            return None
        if any(name in _OF_BODIES for name, _ in scope["headers"]):
            return None
        given: dict[str, list[str]] = {"limit": [], "before": []}
        for text in scope["query_string"].decode("latin-1").split("&") if scope["query_string"] else ():
            parameter = _PARAMETER.fullmatch(text)
            if parameter is None:
                return None
            given[parameter[1]].append(parameter[2])
        try:
            series = read_series(path[1], path[2])
            question = read_question(given["limit"], given["before"])
        except Refusal:
            return None
        topic = self._supervisor.at_once(series)
        return None if topic is None else self._history.answer(topic, question, scope["headers"])
