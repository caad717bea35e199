"""Where the store is: its url, and what that tells redis-py."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import RedisError
from redis.retry import Retry

_CLUSTER = "+cluster"


class Address(msgspec.Struct, frozen=True):
    """Where the store is, and how long to wait for it there. Times in seconds.

    Schemes: ``redis``, ``rediss`` (TLS), ``unix``, ``redis+cluster`` and ``rediss+cluster`` (these with one host or
    several, with commas in between). The rest is as redis-py takes it: user, password, database, query.
    """

    url: str
    connect_timeout: float = 2.0
    answer_timeout: float = 2.0
    """How long the server may be silent while we wait for it."""

    @property
    def is_cluster(self) -> bool:
        """Whether the url names a cluster."""
        return urlsplit(self.url).scheme.endswith(_CLUSTER)

    @property
    def urls(self) -> list[str]:
        """The url of each server that it names, as redis-py takes it."""
        if not self.is_cluster:
            return [self.url]
        parts = urlsplit(self.url)
        user, at, hosts = parts.netloc.rpartition("@")
        scheme = parts.scheme.removesuffix(_CLUSTER)
        return [urlunsplit(parts._replace(scheme=scheme, netloc=f"{user}{at}{name}")) for name in hosts.split(",")]

    @property
    def name(self) -> str:
        """How to call it in messages: without the password."""
        parts = urlsplit(self.url)
        return parts.path if parts.scheme == "unix" else parts.netloc.rpartition("@")[2] + parts.path.rstrip("/")

    @property
    def database(self) -> int:
        """The number of the database."""
        return int(self._options(self.urls[0]).get("db", 0))

    def options(self) -> list[dict[str, Any]]:
        """What to tell redis-py of each server that the url names; raises `ValueError` when that makes no sense."""
        made = []
        for url in self.urls:
            options = self._options(url)
            made.append(options)
            connection_class = options.get("connection_class", redis.Connection)
            try:
                connection_class(**{name: value for name, value in options.items() if name != "connection_class"})
            except (TypeError, RedisError) as error:
                raise ValueError(f"{self.name}: {error}") from error
        parts = urlsplit(self.url)
        if parts.scheme == "unix" and not parts.path:
            raise ValueError("a unix:// address names the path of a socket")
        if parts.scheme != "unix" and not re.fullmatch(r"(/\d*)?", parts.path):
            raise ValueError(f"{self.name}: {parts.path[1:]} is not the number of a database")  # redis-py would take 0
        if self.is_cluster and self.database != 0:
            raise ValueError(f"{self.name}: a cluster has no database but 0")
        return made

    def _options(self, url: str) -> dict[str, Any]:
        times = {"socket_connect_timeout": self.connect_timeout, "socket_timeout": self.answer_timeout}
        ours = {
            "retry": Retry(NoBackoff(), 0),
            "decode_responses": False,
            "protocol": 2,  # nothing of the later one is needed, and its handshake is longer
        }
        given: dict[str, Any] = parse_url(url)
        for option in ("retry_on_error", "retry_on_timeout"):
            given.pop(option, None)
        return {"client_name": "candlesync"} | times | given | ours
