"""Who may ask, and how much, over the whole application: REST and WebSockets, in virtual time."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import structlog.testing
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from candlesync.web.access import OPEN, AccessSettings, Token, read_origin
from candlesync.web.connections import PROBES
from tests.web.builders import Socket, Web

A, B = "192.0.2.1", "192.0.2.2"
DATA = "/candles/BTCUSDT/1m"
PATHS = [DATA, "/symbols", "/metrics", "/nope", "/ws/candles"]
CHART = "https://chart.example"


def web_with(**settings: object) -> Web:
    web = Web(access=AccessSettings(**settings))  # type: ignore[arg-type] # named by the tests
    web.topic()
    return web


@asynccontextmanager
async def sockets_of(web: Web, count: int, client: str) -> AsyncIterator[list[Socket]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(web.socket("/ws/candles", client=client)) for _ in range(count)]


# --- how often


async def test_requests_over_the_rate_are_refused_and_come_again_later(autojump_clock: MockClock) -> None:
    web = web_with(request_rate=2.0)
    for _ in range(20):
        assert (await web.asked(DATA, client=A)).status == 200
    answer = await web.asked(DATA, ("Origin", CHART), client=A)
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (429, "too_many", "1")
    assert "2 requests a second" in answer.json["error"]["message"]
    assert answer.headers["Access-Control-Allow-Origin"] == "*", "the page may read why"
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    assert (await web.asked(DATA, client=B)).status == 200, "another address has its own"
    await trio.sleep(1)
    assert [(await web.asked(DATA, client=A)).status for _ in range(3)] == [200, 200, 429]
    assert web.access.refused == {"request_rate": 2}


async def test_an_upgrade_is_a_request_and_is_refused_before_it() -> None:
    web = web_with(request_rate=1.0)
    for _ in range(10):
        assert (await web.asked(DATA, client=A)).status == 200
    async with web.socket("/ws/candles/BTCUSDT", client=A) as socket:
        answer = await socket.until_refused()
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (429, "too_many", "1")
        assert answer.headers["Content-Length"] == str(len(answer.body))
    assert web.supervisor.asked == [web.supervisor.asked[0]] * 10, "nothing was asked for it"


async def test_a_server_that_cannot_answer_an_upgrade_is_told_to_close() -> None:
    web = web_with(tokens=(Token("sesame"),))
    async with web.socket("/ws/candles") as socket:
        pass
    assert socket.refusal is not None
    plain = Socket("/ws/candles", 10)
    plain.scope["extensions"] = {}
    await web.app(plain.scope, plain.asgi_receive, plain.asgi_send)  # type: ignore[arg-type] # see `Socket`
    assert plain.close == (4401, "unauthorized")


@pytest.mark.parametrize("path", sorted(PROBES))
async def test_probes_are_answered_whatever_else_their_address_asks(path: str) -> None:
    web = web_with(request_rate=10.0, connections=1)
    for _ in range(300):
        await web.asked(DATA, client=A)
    async with web.socket("/ws/candles", client=B):
        for client in (A, B):
            await wait_all_tasks_blocked()
            assert (await web.asked(path, client=client)).status in {200, 503}
            assert {(await web.asked(path, client=client)).status for _ in range(100)} == {200, 429}
    assert (await web.asked(DATA, client=B)).status == 200, "what probes ask is no other request"


async def test_addresses_of_one_customer_are_one() -> None:
    web = web_with(request_rate=0.1)
    assert (await web.asked(DATA, client="2001:db8::1")).status == 200
    assert (await web.asked(DATA, client="2001:db8::2")).status == 429
    assert (await web.asked(DATA, client="2001:db8:0:1::1")).status == 200


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", None])
async def test_this_machine_is_not_limited(client: str | None) -> None:
    web = web_with(request_rate=0.1, connections=1)
    assert {(await web.asked(DATA, client=client)).status for _ in range(50)} == {200}


async def test_without_a_rate_there_is_no_limit() -> None:
    web = web_with(request_rate=0.0)
    assert {(await web.asked(path, client=A)).status for path in (DATA, "/metrics") for _ in range(50)} == {200}


# --- how many


async def test_sockets_and_requests_under_way_count_and_those_that_end_do_not(autojump_clock: MockClock) -> None:
    web = web_with(connections=3)
    async with sockets_of(web, 2, A) as sockets, trio.open_nursery() as nursery:
        await wait_all_tasks_blocked()
        web.supervisor.delay = 1.0
        nursery.start_soon(web.asked, DATA)
        await wait_all_tasks_blocked()
        answer = await web.asked(DATA, client=A)
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (429, "too_many", "5")
        async with web.socket("/ws/candles", client=A) as socket:
            assert (await socket.until_refused()).code == "too_many"
        assert (await web.asked(DATA, client=B)).status == 200
        await trio.sleep(2)
        assert (await web.asked(DATA, client=A)).status == 200, "the request has ended"
        async with sockets_of(web, 1, A) as (one,), AsyncExitStack() as stack:
            await one.accepted.wait()
            other = await stack.enter_async_context(web.socket("/ws/candles", client=A))
            assert (await other.until_refused()).status == 429
            await one.leave()
            await one.ended.wait()
            async with web.socket("/ws/candles", client=A) as socket:
                await socket.accepted.wait()
        assert not sockets[0].closed.is_set()
    assert web.access.refused == {"connections_per_address": 3}
    assert web.access._places.taken == 0
    assert not web.access._places._by_key


async def test_a_request_that_fails_or_is_cancelled_gives_its_place_back(autojump_clock: MockClock) -> None:
    web = web_with(connections=1)
    web.supervisor.delay = 10.0
    for _ in range(5):
        with trio.move_on_after(1):
            await web.asked(DATA, client=A)
    assert (await web.asked("/nope", client=A)).status == 404


async def test_without_a_limit_there_may_be_any_number() -> None:
    web = web_with(connections=0, request_rate=0)
    async with sockets_of(web, 100, A) as sockets:
        await wait_all_tasks_blocked()
        assert all(socket.accepted.is_set() for socket in sockets)


# --- proxies


async def test_the_client_of_a_trusted_proxy_is_the_one_that_is_limited() -> None:
    web = web_with(request_rate=0.1, trusted_proxies=("10.0.0.0/8", "127.0.0.1"))
    for proxy in ("10.0.0.1", "127.0.0.1"):
        for number in range(20):
            client = f"198.51.100.{number}" if proxy == "127.0.0.1" else f"203.0.113.{number}"
            forwarded = ("X-Forwarded-For", f"1.2.3.4, {client}")
            assert (await web.asked(DATA, forwarded, client=proxy)).status == 200
            forwarded = ("X-Forwarded-For", f"5.6.7.8, {client}")
            assert (await web.asked(DATA, forwarded, client=proxy)).status == 429, "whatever stands before it"


async def test_several_headers_are_one() -> None:
    web = web_with(request_rate=0.1, trusted_proxies=("10.0.0.0/8",))
    split = ("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", A), ("X-Forwarded-For", "10.0.0.2")
    assert (await web.asked(DATA, *split, client="10.0.0.1")).status == 200
    assert (await web.asked(DATA, client=A)).status == 429


async def test_what_others_say_is_not_believed() -> None:
    web = web_with(request_rate=0.1, trusted_proxies=("10.0.0.0/8",))
    statuses = [
        (await web.asked(DATA, ("X-Forwarded-For", f"203.0.113.{number}"), client=A)).status for number in range(3)
    ]
    assert statuses == [200, 429, 429]


async def test_a_proxy_on_this_machine_that_is_not_trusted_is_told_of_once() -> None:
    forwarded = ("X-Forwarded-For", A)
    with structlog.testing.capture_logs() as events:
        web = web_with()
        for client in ("127.0.0.1", None, A):
            await web.asked(DATA, forwarded, client=client)
        trusting = web_with(trusted_proxies=("127.0.0.1",))
        await trusting.asked(DATA, forwarded, client="127.0.0.1")
    told = [event for event in events if "--trusted-proxy" in event["event"]]
    assert [(event["log_level"], event["proxy"]) for event in told] == [("warning", "127.0.0.1")]


# --- origins


@pytest.mark.parametrize("origin", ["https://other.example", "http://chart.example", f"{CHART}:444", "null", ""])
async def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    web = web_with(origins=(CHART,))
    answer = await web.asked(DATA, ("Origin", origin))
    assert (answer.status, answer.code) == (403, "forbidden")
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Vary"] == "Origin"
    async with web.socket("/ws/candles/BTCUSDT", ("Origin", origin)) as socket:
        assert (await socket.until_refused()).code == "forbidden"
    preflight = await web.asked(DATA, ("Origin", origin), method="OPTIONS")
    assert preflight.status == 403
    assert web.access.refused == {"origin": 3}
    assert web.supervisor.asked == []


async def test_a_page_that_is_allowed_is_answered_by_name() -> None:
    web = web_with(origins=("https://first.example", CHART))
    for path in (DATA, "/nope", "/health"):
        for method in ("GET", "OPTIONS"):
            answer = await web.asked(path, ("Origin", CHART), method=method)
            assert answer.status != 403
            assert answer.headers.get_list("Access-Control-Allow-Origin") == [CHART]
            assert "Origin" in answer.headers["Vary"]
            assert "Candlesync-Position" in answer.headers["Access-Control-Expose-Headers"]
    async with web.socket("/ws/candles/BTCUSDT?replay=1", ("Origin", CHART)) as socket:
        await socket.receive()
    assert (await web.asked(DATA, ("Origin", CHART), ("Origin", "https://evil.example"))).status == 403


async def test_who_is_no_browser_has_no_origin() -> None:
    web = web_with(origins=(CHART,))
    answer = await web.asked(DATA)
    assert answer.status == 200
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Origin" in answer.headers["Vary"], "a cache must not give it to a page"
    async with web.socket("/ws/candles/BTCUSDT?replay=1") as socket:
        await socket.receive()


async def test_by_default_every_page_may_ask() -> None:
    web = web_with()
    answer = await web.asked(DATA, ("Origin", CHART))
    assert answer.headers.get_list("Access-Control-Allow-Origin") == ["*"]
    assert "Origin" not in answer.headers["Vary"]


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        (CHART, CHART),
        ("HTTPS://Chart.Example", CHART),
        ("https://chart.example:443", CHART),
        ("http://chart.example:443", "http://chart.example:443"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("null", "null"),
    ],
)
def test_an_origin_is_read_as_browsers_send_it(text: str, origin: str) -> None:
    assert read_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    ["", "chart.example", f"{CHART}/", f"{CHART}?a", "https://", "https://a@b", "https://ä.example", "https://a:x"],
)
def test_what_is_no_origin_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_origin(text)


# --- tokens

SESAME = ("Authorization", "Bearer sesame")
TOKENS = (Token("other"), Token("sesame"), Token("a+b/c=="))


@pytest.mark.parametrize("path", PATHS)
async def test_without_a_token_nothing_is_had(path: str) -> None:
    web = web_with(tokens=TOKENS)
    for query, headers in {
        "": [],
        "?token=": [],
        "?token=nonsense": [],
        "?token=sesame&token=sesame": [],
        "?token=sesam": [],
        "?token=sesame%20": [],
        "?TOKEN=sesame": [],
        "?x=token=sesame": [],
        "?a": [("Authorization", "Bearer nonsense")],
        "?b": [("Authorization", "Basic sesame")],
        "?c": [("Authorization", "sesame")],
        "?d": [("Authorization", "Bearer ")],
        "?token=sesame&e": [("Authorization", "Bearer nonsense")],
    }.items():
        for method in ("GET", "HEAD", "POST"):
            answer = await web.asked(path + query, *headers, method=method)
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), (query, headers)
            assert answer.code == "unauthorized"
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert web.supervisor.asked == []


async def test_a_socket_without_a_token_is_refused_before_the_upgrade() -> None:
    web = web_with(tokens=TOKENS)
    for path in ("/ws/candles", "/ws/candles/BTCUSDT?token=nonsense", "/ws/nope"):
        async with web.socket(path) as socket:
            answer = await socket.until_refused()
            assert (answer.status, answer.code) == (401, "unauthorized")
    assert web.supervisor.asked == []
    assert web.access.refused == {"token": 3}


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", [SESAME]),
        ("", [("Authorization", "bearer  other")]),
        ("", [("Authorization", "Bearer a+b/c==")]),
        ("?token=sesame", []),
        ("?limit=3&token=a%2Bb%2Fc%3D%3D", []),
        ("?token=a+b/c==&limit=3", []),
        ("?token=nonsense", [SESAME]),
    ],
)
async def test_with_one_of_the_tokens_all_is_as_without(query: str, headers: list[tuple[str, str]]) -> None:
    web = web_with(tokens=TOKENS)
    answer = await web.asked(DATA + query, *headers)
    assert answer.status == 200
    assert len(answer.json) == (3 if "limit=3" in query else 10)
    separator = "&" if query else "?"
    async with web.socket(f"/ws/candles/BTCUSDT{query}{separator}replay=1", *headers) as socket:
        await socket.receive()
        assert await socket.rest() == []


@pytest.mark.parametrize("path", sorted(OPEN))
async def test_what_holds_no_data_needs_no_token(path: str) -> None:
    web = web_with(tokens=TOKENS)
    assert (await web.asked(path)).status == 200
    assert (await web.asked(f"{path}?token=nonsense")).status == 200


async def test_a_preflight_needs_no_token_and_allows_to_send_one() -> None:
    web = web_with(tokens=TOKENS)
    answer = await web.asked(
        DATA,
        ("Origin", CHART),
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "authorization"),
        method="OPTIONS",
    )
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization"
    assert web.supervisor.asked == []


async def test_without_tokens_one_that_is_shown_does_not_matter() -> None:
    web = web_with()
    assert (await web.asked(f"{DATA}?token=sesame&limit=2", SESAME)).json[0]["symbol"] == "BTCUSDT"


@pytest.mark.parametrize("tokens", [(), TOKENS])
async def test_a_token_is_not_left_where_a_log_would_find_it(tokens: tuple[Token, ...]) -> None:
    web = web_with(tokens=tokens)
    headers = [SESAME] if tokens else []
    await web.asked(f"{DATA}?limit=1&token=sesame&replay=1", *headers)
    # The scope is what Hypercorn writes its access log from.
    assert "sesame" not in repr(web.last_scope)
    assert web.last_scope["query_string"] == b"limit=1&replay=1"


async def test_a_token_does_not_show_when_the_application_fails() -> None:
    web = web_with(tokens=TOKENS)
    seen: list[str] = []

    async def fail(scope: object, _receive: object, _send: object) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(repr(scope))
        raise RuntimeError("broken")

    try:
        await web.access.before(fail)(
            {"type": "http", "path": DATA, "query_string": b"token=sesame", "headers": [], "client": (A, 1)}, None, None
        )
    except RuntimeError as error:
        # As structlog shows it in a log that machines read: with what each frame knew.
        shown = repr(structlog.tracebacks.ExceptionDictTransformer()((type(error), error, error.__traceback__)))
    assert seen
    assert "broken" in shown
    assert not re.search("sesame", shown + seen[0])


# --- whose request it is


async def test_what_is_asked_for_is_asked_for_the_client_s_address() -> None:
    web = web_with(trusted_proxies=("10.0.0.1",))
    # By the framework's way: what can be answered at once asks for nothing.
    slow = f"{DATA}?x="
    await web.asked(slow, client=A)
    await web.asked(slow, client="127.0.0.1")
    await web.asked(slow, ("X-Forwarded-For", B), client="10.0.0.1")
    async with web.socket("/ws/candles/BTCUSDT?replay=1", client=A) as one, web.socket("/ws/candles", client=B) as many:
        await one.receive()
        await many.send({"op": "subscribe", "symbol": "BTCUSDT", "replay": 0})
        await many.receive()
    assert web.supervisor.asked_by == [A, "", B, A, B]
