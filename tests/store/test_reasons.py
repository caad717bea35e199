"""What a person is told; most of it in ``test_redis_trouble.py`` by real servers, here the rest."""

from __future__ import annotations

import pytest
from redis import exceptions as of_redis

from candlesync.store.reasons import NoAnswer, explain


@pytest.mark.parametrize(
    ("error", "words", "is_silence"),
    [
        (of_redis.BusyLoadingError("Redis is loading", status_code="LOADING"), "still loading its data", True),
        (of_redis.ResponseError("BUSY Redis is busy running a script."), "somebody's script", False),
        (of_redis.ResponseError("NOREPLICAS Not enough good replicas to write."), "fewer replicas", False),
        (of_redis.MasterDownError("Link is down", status_code="MASTERDOWN"), "lost its primary", False),
        (of_redis.AskError("7 127.0.0.1:1", status_code="ASK"), "on its way to another server", False),
        (of_redis.TryAgainError("Multiple keys", status_code="TRYAGAIN"), "on its way to another server", False),
        (of_redis.ClusterDownError("Hash slot", status_code="CLUSTERDOWN"), "its cluster is down", False),
        (of_redis.ResponseError("ERR Error running script: -OOM command not allowed"), "its memory is full", False),
        (of_redis.AuthenticationError("invalid password", status_code="ERR"), "refuses the user name", True),
        (of_redis.ConnectionError("Error 111 connecting to h:1. Connection refused."), "Error 111 connecting", True),
        (of_redis.TimeoutError("Timeout connecting to server"), "cannot be reached", True),
        (of_redis.TimeoutError("Timeout reading from socket"), "may have happened", True),
        (of_redis.ConnectionError("Connection closed by server."), "connection was lost", True),
        (of_redis.RedisClusterException("Redis Cluster cannot be connected."), "cannot be connected", True),
        (of_redis.ResponseError("ERR something new"), "ERR something new", False),
        (OSError(), "OSError", True),
    ],
)
def test_each_error_is_said_in_words(error: Exception, words: str, is_silence: bool) -> None:
    explained = explain(error, "host:1/2")
    assert str(explained).startswith("the store at host:1/2: ")
    assert words in str(explained)
    assert explained.__cause__ is error
    assert isinstance(explained, NoAnswer) is is_silence
