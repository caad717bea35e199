"""What redis-py and the server say when something is wrong, in words that a person understands."""

from __future__ import annotations

import re

from redis import exceptions as of_redis

from candlesync.errors import StoreUnavailable

KNOWN = (of_redis.RedisError, of_redis.RedisClusterException, OSError)
"""All that a call through redis-py raises; anything else is a mistake in a program, and not explained away."""

_SILENCE = (of_redis.ConnectionError, of_redis.TimeoutError, of_redis.RedisClusterException, OSError)

_MAY_HAVE_HAPPENED = "what was asked of it may have happened"

_CODES = {
    "WRONGPASS": "it refuses the user name or the password",
    "NOAUTH": "it wants a password",
    "NOPERM": "its user may not do what candlesync needs",
    "OOM": "its memory is full (maxmemory), and it takes no writes",
    "MISCONF": "it cannot save to its disk, and takes no writes",
    "READONLY": "it is a read-only replica: name the primary",
    "LOADING": "it has just started and is still loading its data",
    "MASTERDOWN": "it is a replica that has lost its primary",
    "NOREPLICAS": "it has fewer replicas than it was told to have, and takes no writes",
    "BUSY": "somebody's script has been running on it for too long",
    "CLUSTERDOWN": "its cluster is down: some slots have no server",
    "ASK": "the symbol's slot is on its way to another server of the cluster",
    "TRYAGAIN": "the symbol's slot is on its way to another server of the cluster",
    "MOVED": "the symbol's slot went to another server of the cluster twice in a moment",
    "CROSSSLOT": "it is a cluster that was addressed as a single server",
    "NOSCRIPT": "it has forgotten a script that it was sent a moment ago",
}
"""What each code at the beginning of a server's error means. Before 7.0 the codes stood in the midst of it."""

_CODE = re.compile(rf"\b({'|'.join(_CODES)})\b")


class NoAnswer(StoreUnavailable):
    """The server as a whole did not answer: what stands behind this call would not be answered either."""


def explain(error: Exception, where: str, keys: tuple[str, ...] = ()) -> StoreUnavailable:
    """The error to raise for one of `KNOWN` from the server at ``where``, asked about ``keys``."""
    is_silence = isinstance(error, _SILENCE) and not isinstance(error, of_redis.ResponseError)
    unavailable = (NoAnswer if is_silence else StoreUnavailable)(f"the store at {where}: {_reason(error, keys)}")
    unavailable.__cause__ = error
    return unavailable


def unexpected(reply: object) -> StoreUnavailable:
    """The error to raise when a script gave what none of ours gives."""
    return StoreUnavailable(f"the store gave what no script of ours gives: {reply!r:.100}")


def _reason(error: Exception, keys: tuple[str, ...]) -> str:
    message = str(error) or type(error).__name__
    if "WRONGTYPE" in message:
        return f"one of the keys {', '.join(keys)} is of another type, and so not ours: give candlesync its own prefix"
    if "DB index" in message:
        return f"it has no database of that number ({message})"
    if "ACL failure" in message or "can't run this command" in message:
        return f"{_CODES['NOPERM']} ({message})"
    # redis-py takes the code off the errors that it has classes for, and keeps it beside.
    code = _CODE.search(f"{getattr(error, 'status_code', None)} {message}")
    known = _CODES[code[1]] if code else _of_class(error)
    return f"{known} ({message})" if known else message


def _of_class(error: Exception) -> str:
    if isinstance(error, of_redis.AuthenticationError):  # "ERR invalid password" of old servers
        return _CODES["WRONGPASS"]
    if isinstance(error, of_redis.InvalidResponse):
        return "what answers there is no Redis"
    if isinstance(error, of_redis.TimeoutError) and "connecting" in str(error):
        return "it cannot be reached"
    if isinstance(error, of_redis.TimeoutError):
        return f"it did not answer in time, and {_MAY_HAVE_HAPPENED}"
    if isinstance(error, of_redis.ConnectionError) and "connecting to" not in str(error):
        return f"the connection was lost, and {_MAY_HAVE_HAPPENED}"
    return ""
