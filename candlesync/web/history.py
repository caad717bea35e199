"""REST: ``GET /candles/{symbol}/{interval}``, from the replica, and what is older from Binance."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from hashlib import blake2b

import msgspec
from quart import Blueprint, Response, request
from werkzeug.http import parse_accept_header, parse_etags, quote_etag

from candlesync.archive import Archive
from candlesync.core import wire
from candlesync.core.interval import Interval
from candlesync.core.sync import State
from candlesync.hub import Topic
from candlesync.supervisor import Supervisor
from candlesync.web.bodies import Bodies, Question
from candlesync.web.openapi import Header, Operation, Parameter, Reply, documented
from candlesync.web.parameters import BEFORE, COUNT, SYMBOL, interval_parameter, read_before, read_limit, read_series
from candlesync.web.shapes import Candle

_IDENTITY = "identity"
_GZIP = "gzip"
_SUFFIXES = {_IDENTITY: "", _GZIP: "-gzip"}
"""Of the ``ETag``: each form of an answer has its own (RFC 9110, 8.8.3.3)."""
_LEVEL = 4
"""Of the gzip of answers with older candles, which are not kept in pieces; zlib's usual 6 takes twice as long."""
_FEWEST = 8
"""Candles that are worth compressing: fewer fit into one packet as they are."""

STATE = Header(
    "Candlesync-State",
    "`live`: connected and whole; `syncing`: true up to the newest candle, catching up; `stale`: no connection.",
    {"type": "string", "enum": [state.value for state in State]},
)
_ETAG = Header("ETag", "Of this answer in this form; for `If-None-Match`.", {"type": "string"})
_POSITION = Header(
    "Candlesync-Position", "For a WebSocket's `position=`; not with `before`.", {"type": "string"}, required=False
)
Headers = Iterable[tuple[bytes, bytes]]
"""As ASGI has them: names in lower case, values in Latin-1."""


def _operation(intervals: Iterable[Interval]) -> Operation:
    return Operation(
        "Candles",
        "Candles of a series",
        description=(
            "The newest candles, ascending; the last one may be forming. A series that is not followed yet is started: "
            "the answer waits for its first candles, at most some seconds. With `before` it goes back beyond what is "
            "stored: such candles are read from Binance, and their `rev` is 0; an empty array says that there is "
            "nothing older."
        ),
        parameters=(
            SYMBOL,
            interval_parameter(intervals),
            COUNT,
            BEFORE,
            Parameter("If-None-Match", "header", "The `ETag` of the answer that is known already.", {"type": "string"}),
        ),
        replies=(
            Reply(200, "The candles", (list[Candle],), headers=(_ETAG, STATE, _POSITION)),
            Reply(304, "Nothing has changed", headers=(_ETAG, STATE, _POSITION)),
        ),
        errors=("bad_limit", "bad_interval", "bad_parameter", "unknown_symbol", "upstream_unavailable"),
    )


class Answer(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def read_question(limits: Iterable[str], befores: Iterable[str]) -> Question:
    """What ``limit`` and ``before`` ask for, each as often as it is given; raises `Refusal`."""
    return Question(read_limit(limits), read_before(befores))


class History:
    """The answers, however a question comes in."""

    def __init__(self, supervisor: Supervisor, archive: Archive) -> None:
        self._supervisor = supervisor
        self._archive = archive
        self._bodies = Bodies()

    def routes(self) -> Blueprint:
        """The route, for all that is asked; see ``web.ready`` for what most ask."""
        routes = Blueprint("history", __name__)

        @routes.get("/candles/<symbol>/<interval>")
        @documented(_operation(self._supervisor.intervals))
        async def candles(symbol: str, interval: str) -> Response:
            series = read_series(symbol, interval)
            question = read_question(request.args.getlist("limit"), request.args.getlist("before"))
            topic = await self._supervisor.ensure(series)
            headers = request.scope["headers"]
            answer = self.answer(topic, question, headers) or await self._older_answer(topic, question, headers)
            response = Response(answer.body, answer.status)
            response.headers.clear()
            response.headers.extend(
                [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers]
            )
            return response

        return routes

    def answer(self, topic: Topic, question: Question, request_headers: Headers) -> Answer | None:
        """What is answered now; `None` when it takes candles that are older than the store's.

        Synchronous: body and headers are of one revision.
        """
        entries = topic.replica.newest(question.limit, question.before)
        if question.before is not None and len(entries) < question.limit and len(topic.replica):
            return None
        position = str(topic.replica.position)
        tag = f"{position}-{question.limit}" + ("" if question.before is None else f"-{question.before}")

        def body(coding: str) -> bytes:
            make = self._bodies.gzip if coding == _GZIP else self._bodies.plain
            return make(topic, question, entries)

        answer = _answer(request_headers, topic, tag, body, can_be_gzip=len(entries) >= _FEWEST)
        if question.before is None:
            answer.headers.append((b"candlesync-position", position.encode("ascii")))
        return answer

    async def _older_answer(self, topic: Topic, question: Question, request_headers: Headers) -> Answer:
        """What is answered with the help of the archive. Raises what it raises."""
        # Taken before anything is waited for: what the store drops meanwhile would be missing between the two.
        stored = topic.replica.newest(question.limit, question.before)
        first = topic.replica.first
        joint = first.open_time if first else 0
        before = joint if question.before is None else min(question.before, joint)
        older = await self._archive.older(topic.series, question.limit - len(stored), before=before, joint=joint)
        plain = wire.history(topic.series, [*older, *stored])
        tag = blake2b(plain, digest_size=16).hexdigest()

        def body(coding: str) -> bytes:
            return gzip.compress(plain, _LEVEL, mtime=0) if coding == _GZIP else plain

        return _answer(request_headers, topic, tag, body, can_be_gzip=len(older) + len(stored) >= _FEWEST)


def _answer(
    request_headers: Headers, topic: Topic, question_tag: str, make: Callable[[str], bytes], *, can_be_gzip: bool
) -> Answer:
    """The answer in the form that the client takes, or that it has it already; ``make`` makes the body in a coding."""
    known, accepted = _fields(request_headers)
    codings = read_codings(accepted) if can_be_gzip else (_IDENTITY,)
    tags = {coding: f"{question_tag}{_SUFFIXES[coding]}" for coding in codings}
    etags = parse_etags(known)
    same = next((coding for coding in codings if etags.contains_weak(tags[coding])), None)
    coding = same or codings[0]
    headers = [
        (b"etag", quote_etag(tags[coding]).encode("ascii")),
        (b"cache-control", b"no-cache"),
        (b"vary", b"Accept-Encoding"),
        (b"candlesync-state", topic.state.value.encode("ascii")),
    ]
    if same is not None:
        # Nothing of a body that is not sent: it would replace what the client knows of its own (RFC 9110, 15.4.5).
        return Answer(304, headers, b"")
    body = make(coding)
    if coding == _GZIP:
        headers.append((b"content-encoding", b"gzip"))
    headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return Answer(200, headers, body)


def read_codings(accepted: str | None) -> tuple[str, ...]:
    """In which codings ``Accept-Encoding`` (`None`: not given) lets an answer be, the best first; never none at all.

    A client that takes no coding that we have gets the answer as it is (RFC 9110, 12.5.3).
    """
    weights = parse_accept_header(accepted)
    gzip, identity = weights.quality(_GZIP), weights.quality(_IDENTITY)
    if not gzip:
        return (_IDENTITY,)
    if identity > gzip:
        return (_IDENTITY, _GZIP)
    # What is not named is allowed, but not preferred.
    is_refused = not identity and weights.find(_IDENTITY) >= 0
    return (_GZIP,) if is_refused else (_GZIP, _IDENTITY)


def _fields(headers: Headers) -> tuple[str | None, str | None]:
    """``If-None-Match`` and ``Accept-Encoding``; each may come in several lines, which are one list."""
    known, accepted = [], []
    for name, value in headers:
        if name == b"if-none-match":
            known.append(value)
        elif name == b"accept-encoding":
            accepted.append(value)
    return _joined(known), _joined(accepted)


def _joined(values: list[bytes]) -> str | None:
    return b", ".join(values).decode("latin-1") if values else None
