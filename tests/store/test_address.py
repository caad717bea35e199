"""Where the store is, by its url."""

from __future__ import annotations

import pytest
import redis

from candlesync.store.address import Address


@pytest.mark.parametrize(
    ("url", "name", "database"),
    [
        ("redis://localhost", "localhost", 0),
        ("redis://me:secret@host:7000/3", "host:7000/3", 3),
        ("rediss://:secret@host/", "host", 0),
        ("unix:///run/redis.sock?db=2", "/run/redis.sock", 2),
        ("redis+cluster://me:secret@a:1,b:2,c", "a:1,b:2,c", 0),
    ],
)
def test_an_address_has_a_name_without_its_password(url: str, name: str, database: int) -> None:
    address = Address(url)
    assert (address.name, address.database) == (name, database)
    assert address.options()


def test_what_redis_py_is_told() -> None:
    (options,) = Address("rediss://me:s%40cret@host:7000/3?socket_timeout=9&ssl_cert_reqs=none").options()
    assert options["connection_class"] is redis.SSLConnection
    assert (options["host"], options["port"], options["db"]) == ("host", 7000, 3)
    assert (options["username"], options["password"]) == ("me", "s@cret")
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (9.0, 2.0)


def test_nothing_turns_the_retries_on() -> None:
    (options,) = Address("redis://h?retry_on_timeout=yes&decode_responses=yes&retry_on_error=x&protocol=3").options()
    assert options["retry"].get_retries() == 0
    assert options.keys().isdisjoint({"retry_on_timeout", "retry_on_error"})
    assert (options["decode_responses"], options["protocol"]) == (False, 2)


def test_a_cluster_has_several_servers() -> None:
    address = Address("rediss+cluster://me:secret@a:1,b:2")
    assert address.is_cluster
    assert [(each["host"], each["port"], each["username"]) for each in address.options()] == [
        ("a", 1, "me"),
        ("b", 2, "me"),
    ]


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "redis",
        "redis+cluster:///",
        "redis://host:port",
        "redis://host?no_such_option=1",
        "redis://host?socket_timeout=soon",
        "redis://host/candles",
        "unix://",
        "unix+cluster:///run/redis.sock",
        "redis+cluster://host/3",
    ],
)
def test_an_address_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        Address(url).options()
