"""What a client says on a stream connection, and what Binance answers (web-socket-streams.md, "Live Subscribing").

The documentation shows the errors alone; recorded answers wrap them: ``{"error":{"code":2,…},"id":2}``. That a name
no stream can have is an "invalid stream", and that above the limit there are "Too many subscriptions" (code 4), is
known from recorded answers only. A well-formed name of a stream that does not exist is taken, and stays silent.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_STREAM = re.compile(r"!?[\w.\-]+@[\w@:+.\-]+|![\w@]+")
_TEXT_ID = re.compile(r"[0-9A-Za-z]{1,36}")


class _Refused(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Reply(NamedTuple):
    """The answer to one message, and what it changed."""

    text: str
    joined: list[str]
    """Streams that were not subscribed to before."""
    left: list[str]


class Subscriptions:
    """What one connection is subscribed to; changed by its messages."""

    def __init__(self, names: list[str], *, combined: bool, most: int) -> None:
        self.names = dict.fromkeys(names)
        self.combined = combined
        """Whether events are wrapped with the name of their stream."""
        self._most = most

    @property
    def too_many(self) -> bool:
        return len(self.names) > self._most

    def answer(self, message: str | bytes) -> Reply:
        """Do what a message asks for."""
        length = len(message)
        try:
            request: Any = msgspec.json.decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Reply(_error(3, f"Invalid JSON: expected value at line 1 column {length}"), [], [])
        if not isinstance(request, dict):
            return Reply(_error(2, f"Invalid request: missing field `method` at line 1 column {length}"), [], [])
        if "id" not in request or not _is_id(request["id"]):
            return Reply(_error(2, "Invalid request: request ID must be an unsigned integer"), [], [])
        before = dict(self.names)
        try:
            result = self._do(request, length)
        except _Refused as refused:
            return Reply(_error(refused.code, str(refused), request["id"]), [], [])
        joined = [name for name in self.names if name not in before]
        left = [name for name in before if name not in self.names]
        return Reply(_encode({"result": result, "id": request["id"]}), joined, left)

    def _do(self, request: dict[str, Any], length: int) -> Any:
        match request.get("method"):
            case None:
                raise _Refused(2, f"Invalid request: missing field `method` at line 1 column {length}")
            case "SUBSCRIBE":
                names = self.names | dict.fromkeys(_streams(request, length))
                if len(names) > self._most:
                    raise _Refused(4, "Too many subscriptions")
                self.names = names
                return None
            case "UNSUBSCRIBE":
                for name in _streams(request, length):
                    self.names.pop(name, None)
                return None
            case "LIST_SUBSCRIPTIONS":
                if request.get("params"):
                    raise _Refused(2, "Invalid request: too many parameters")
                return list(self.names)
            case "SET_PROPERTY":
                self.combined = _property(request, 1)
                return None
            case "GET_PROPERTY":
                _property(request, 0)
                return self.combined
            case method:
                known = ", ".join(f"`{name}`" for name in _METHODS)
                raise _Refused(
                    2, f"Invalid request: unknown variant `{method}`, expected one of {known} at line 1 column {length}"
                )


def _streams(request: dict[str, Any], length: int) -> list[str]:
    names = request.get("params")
    if not isinstance(names, list):
        raise _Refused(2, f"Invalid request: missing field `params` at line 1 column {length}")
    for name in names:
        if not isinstance(name, str) or not _STREAM.fullmatch(name):
            raise _Refused(2, "Invalid request: invalid stream")
    return names


def _property(request: dict[str, Any], values: int) -> bool:
    """The value that follows the property's name, if ``values`` is 1; the only property is a truth value."""
    parameters = request.get("params")
    if not isinstance(parameters, list) or not parameters or not isinstance(parameters[0], str):
        raise _Refused(2, "Invalid request: property name must be a string")
    if parameters[0] != "combined":
        raise _Refused(0, "Unknown property")
    if len(parameters) > 1 + values:
        raise _Refused(2, "Invalid request: too many parameters")
    if values and not (len(parameters) > 1 and isinstance(parameters[1], bool)):
        raise _Refused(1, "Invalid value type: expected Boolean")
    return bool(parameters[-1])


def _is_id(value: object) -> bool:
    """A 64-bit signed integer, up to 36 letters and digits, or null."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return value is None or (isinstance(value, str) and _TEXT_ID.fullmatch(value) is not None)


def _error(code: int, message: str, request_id: object = None) -> str:
    answer: dict[str, object] = {"error": {"code": code, "msg": message}}
    if request_id is not None:
        answer["id"] = request_id
    return _encode(answer)


def _encode(answer: dict[str, object]) -> str:
    return msgspec.json.encode(answer).decode()
