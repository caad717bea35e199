from __future__ import annotations

import json
from typing import Any

import pytest

from candlesync.simulator.commands import Reply, Subscriptions

A, B = "btcusdt@kline_1m", "ethusdt@kline_1M"


def ask(subscriptions: Subscriptions, method: str, *params: Any, request_id: Any = 1) -> Reply:
    return subscriptions.answer(json.dumps({"method": method, "params": list(params), "id": request_id}))


def test_subscribing_and_unsubscribing() -> None:
    this = Subscriptions([A], combined=False, most=3)
    reply = ask(this, "SUBSCRIBE", A, B, request_id=7)
    assert reply == Reply('{"result":null,"id":7}', [B], [])
    assert list(this.names) == [A, B]
    assert ask(this, "UNSUBSCRIBE", A, "nobody@knows") == Reply('{"result":null,"id":1}', [], [A])
    assert ask(this, "LIST_SUBSCRIPTIONS").text == f'{{"result":["{B}"],"id":1}}'


@pytest.mark.parametrize("request_id", [0, -5, 2**63 - 1, "abcDEF123", None])
def test_ids_come_back(request_id: Any) -> None:
    reply = ask(Subscriptions([], combined=False, most=3), "LIST_SUBSCRIPTIONS", request_id=request_id)
    assert json.loads(reply.text) == {"result": [], "id": request_id}


def test_the_combined_property() -> None:
    this = Subscriptions([], combined=True, most=3)
    assert json.loads(ask(this, "GET_PROPERTY", "combined").text)["result"] is True
    assert json.loads(ask(this, "SET_PROPERTY", "combined", False).text) == {"result": None, "id": 1}
    assert this.combined is False


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        ("{", 3, "Invalid JSON: expected value at line 1 column 1"),
        (b"\xff\xfe", 3, "Invalid JSON: expected value at line 1 column 2"),
        ("[]", 2, "Invalid request: missing field `method` at line 1 column 2"),
        ('{"id":1}', 2, "Invalid request: missing field `method` at line 1 column 8"),
        ('{"method":"SUBSCRIBE","params":[]}', 2, "Invalid request: request ID must be an unsigned integer"),
        ('{"method":"SUBSCRIBE","params":[],"id":1.5}', 2, "Invalid request: request ID must be an unsigned integer"),
        ('{"method":"SUBSCRIBE","params":[],"id":true}', 2, "Invalid request: request ID must be an unsigned integer"),
        ('{"method":"SUBSCRIBE","params":["not asdfads"],"id":1}', 2, "Invalid request: invalid stream"),
        ('{"method":"SUBSCRIBE","params":[5],"id":1}', 2, "Invalid request: invalid stream"),
        ('{"method":"SUBSCRIBE","id":1}', 2, "Invalid request: missing field `params` at line 1 column 29"),
        ('{"method":"SUBSCRIBE","params":["a@b","c@d","e@f","g@h"],"id":1}', 4, "Too many subscriptions"),
        ('{"method":"LIST_SUBSCRIPTIONS","params":["a@b"],"id":1}', 2, "Invalid request: too many parameters"),
        ('{"method":"GET_PROPERTY","params":[],"id":1}', 2, "Invalid request: property name must be a string"),
        ('{"method":"GET_PROPERTY","params":["speed"],"id":1}', 0, "Unknown property"),
        ('{"method":"GET_PROPERTY","params":["combined",1],"id":1}', 2, "Invalid request: too many parameters"),
        ('{"method":"SET_PROPERTY","params":["combined",1],"id":1}', 1, "Invalid value type: expected Boolean"),
        ('{"method":"SET_PROPERTY","params":["combined"],"id":1}', 1, "Invalid value type: expected Boolean"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(message: str | bytes, code: int, text: str) -> None:
    this = Subscriptions([A], combined=False, most=3)
    reply = this.answer(message)
    assert json.loads(reply.text)["error"] == {"code": code, "msg": text}
    assert (reply.joined, reply.left, list(this.names), this.combined) == ([], [], [A], False)


def test_an_unknown_method_is_named() -> None:
    reply = ask(Subscriptions([], combined=False, most=3), "SUBCRIBE", A)
    assert "unknown variant `SUBCRIBE`, expected one of `SUBSCRIBE`, `UNSUBSCRIBE`" in reply.text
    assert json.loads(reply.text)["id"] == 1
