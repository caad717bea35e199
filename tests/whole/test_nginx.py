"""The README's recipe for nginx, tried with Debian's nginx before real nodes."""

from __future__ import annotations

import time
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Request

from candlesync.server import PING_INTERVAL
from tests.stalls import stalls
from tests.web.builders import upgrade
from tests.whole.nginx import SITE, needs_nginx, run_nginx
from tests.whole.nodes import Viewer, deploy
from tests.whole.programs import PATIENCE, REPOSITORY, free_host, open_client, run_program, server, simulator
from tests.whole.readme import recipe
from tests.whole.test_nodes import check, until_news, watching

pytestmark = needs_nginx

NGINX_TIMEOUT = 60
"""Seconds of silence after which nginx closes a WebSocket, by default (``proxy_read_timeout``)."""
OF_THE_HOP = {"connection", "date", "server", "keep-alive"}
"""Headers that each server writes for itself."""


async def fetch(host: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """An answer: its status, headers, and the body as it came over the wire."""
    async with open_client() as client, client.stream("GET", f"http://{host}{path}", headers=headers) as answer:
        body = b"".join([chunk async for chunk in answer.aiter_raw()])
    return answer.status_code, {k: v for k, v in answer.headers.items() if k not in OF_THE_HOP}, body


async def test_rest_comes_through_as_the_nodes_say_it() -> None:
    async with deploy(minute=120) as deployment:  # a commit each four seconds: most questions fall between two
        await deployment.start("a", "BTCUSDT")
        await deployment.until_live()
        node, nobody = deployment.nodes["a"].host, free_host()
        async with run_nginx([nobody, node]) as nginx:
            for encoding in ("identity", "gzip"):
                for path in ("/candles/BTCUSDT/1m", "/candles/BTCUSDT/1m?limit=3", "/candles/NONESUCH/1m", "/nothing"):
                    headers = {"Accept-Encoding": encoding}
                    with trio.fail_after(PATIENCE):
                        while True:
                            first = await fetch(node, path, **headers)
                            passed = await fetch(nginx.host, path, **headers)
                            if first == await fetch(node, path, **headers):
                                break  # nothing was committed meanwhile
                    assert passed == first
                    etag = first[1].get("etag")
                    assert (etag is not None) == path.startswith("/candles/BTCUSDT")
            path = "/candles/BTCUSDT/1m"
            with trio.fail_after(PATIENCE):
                while True:
                    status, answer, _ = await fetch(nginx.host, path)
                    assert status == 200
                    known = await fetch(nginx.host, path, **{"If-None-Match": answer["etag"]})
                    if known[0] == 304:
                        break  # nothing was committed meanwhile
            assert known[2] == b""
            assert known[1]["etag"] == answer["etag"]
            assert known[1]["candlesync-state"] == "live"
            assert known[1]["candlesync-position"] == answer["candlesync-position"]
            # What is true of one node alone is not to be asked of whichever.
            for path in ("/ready", "/metrics"):
                assert (await fetch(nginx.host, path))[0] == 404
                assert (await fetch(node, path))[0] == 200
            assert (await fetch(nginx.host, "/health?token=secret"))[0] == 200
            assert " /health 200 " in nginx.logged()
            assert "secret" not in nginx.logged()


@asynccontextmanager
async def stand_in() -> AsyncIterator[tuple[str, list[str]]]:
    """What stands in for a node: its address, and the heads of the requests that it got. At ``/away`` it says 503."""
    heads: list[str] = []

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            received = b""
            while b"\r\n\r\n" not in received:
                received += await stream.receive_some()
            heads.append(received.decode().lower())
            status = b"503 Service Unavailable" if received.startswith(b"GET /away ") else b"200 OK"
            await stream.send_all(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}", heads
        nursery.cancel_scope.cancel()


async def test_a_node_is_told_the_clients_own_address_and_nothing_that_the_client_claims() -> None:
    claims = {"X-Forwarded-For": "203.0.113.9", "Origin": "https://charts.example.com", "Authorization": "Bearer x"}
    transport = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
    async with stand_in() as (host, heads), run_nginx([host, free_host()]) as nginx:
        heads.clear()
        async with httpx.AsyncClient(transport=transport, headers=claims) as client:
            await client.get(f"http://{nginx.host}/")
            await client.get(f"http://{nginx.host}/", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    for head in heads:
        assert "\r\nx-forwarded-for: 127.0.0.2\r\n" in head
        assert "203.0.113.9" not in head
        assert "\r\norigin: https://charts.example.com\r\n" in head
        assert "\r\nauthorization: bearer x\r\n" in head
    rest, upgrade = heads
    assert "\r\nconnection:" not in rest, "it is kept for the next request"
    assert "\r\nconnection: upgrade\r\n" in upgrade
    assert "\r\nupgrade: websocket\r\n" in upgrade


async def test_an_answer_of_503_does_not_make_nginx_give_a_node_up() -> None:
    async with stand_in() as (first, _), stand_in() as (second, _), run_nginx([first, second]) as nginx:
        for _ in range(3):
            assert (await fetch(nginx.host, "/away"))[0] == 503
            assert (await fetch(nginx.host, "/"))[0] == 200


async def lasts(host: str, seconds: float) -> bool:
    """Whether a WebSocket on which nothing is said but pings is open for so long, and has got one then."""
    name, _, port = host.partition(":")
    protocol = WSConnection(ConnectionType.CLIENT)
    began = time.monotonic()
    async with await trio.open_tcp_stream(name, int(port)) as stream:
        await stream.send_all(protocol.send(Request(host=host, target="/ws/candles")))
        while data := await stream.receive_some():
            protocol.receive_data(data)
            for event in protocol.events():
                if isinstance(event, Ping):
                    if time.monotonic() - began > seconds:
                        return True
                    await stream.send_all(protocol.send(event.response()))
                else:
                    assert isinstance(event, AcceptConnection | CloseConnection), event
    return False


async def test_pings_keep_a_silent_websocket_open_beyond_the_time_that_nginx_allows() -> None:
    # Twenty times as fast as it is: a ping each second, not each twentieth, and 3 s of silence allowed, not 60.
    quick = {"proxy_connect_timeout 1s;": f"proxy_connect_timeout 1s; proxy_read_timeout {NGINX_TIMEOUT // 20}s;"}
    settled = tomllib.loads((REPOSITORY / "hypercorn.toml").read_text())
    assert settled["websocket_ping_interval"] == PING_INTERVAL == 20
    assert PING_INTERVAL <= NGINX_TIMEOUT / 3, "two pings may be lost"
    assert "proxy_read_timeout " not in "".join(line.partition("#")[0] for line in recipe(SITE).splitlines())
    host = free_host()
    command = ["hypercorn", "-c", "hypercorn.toml", "--websocket-ping-interval", "1", "-b", host, "candlesync.asgi:app"]
    async with simulator(1) as binance:
        environment = {
            "CANDLESYNC_SYMBOLS": "BTCUSDT",
            "CANDLESYNC_REST_URL": f"http://{binance.host}",
            "CANDLESYNC_STREAM_URL": f"ws://{binance.host}",
        }
        async with run_program(command, host=host, **environment), run_nginx([host, free_host()], quick) as nginx:
            with stalls() as measured, trio.fail_after(PATIENCE):
                while True:
                    began = time.monotonic()
                    if await lasts(nginx.host, NGINX_TIMEOUT / 20 + 0.5):
                        break
                    # Not for want of pings: a machine that stood still for a second or two may have sent none in time.
                    assert measured.lost(began, time.monotonic()) > 1


async def test_a_node_that_is_stopped_sends_its_charts_through_nginx_to_the_other() -> None:
    async with deploy() as deployment:
        await deployment.start_all("a", "b")
        async with run_nginx(deployment.hosts) as nginx:
            viewers = [Viewer([nginx.host], number, "BTCUSDT") for number in range(10)]
            statuses: set[int] = set()
            async with watching(deployment, viewers), trio.open_nursery() as nursery:
                nursery.start_soon(poll, nginx.host, statuses)
                owner = await deployment.owner()
                stopped = time.monotonic()
                status, _ = await deployment.nodes[owner].end()
                assert status == 0
                await until_news(deployment, "a node stopped", viewers, stopped, 1.5, still=0.2)
                nursery.cancel_scope.cancel()
            assert statuses == {200}
            told = [viewer.codes[1012] for viewer in viewers]
            assert set(told) == {0, 1}, "each node has some of them"
            await check(deployment, viewers)


async def poll(host: str, statuses: set[int]) -> None:
    """Ask over REST for ever, as a page that was just opened does; nginx itself is always there."""
    async with open_client() as client:
        while True:
            statuses.add((await client.get(f"http://{host}/candles/BTCUSDT/1m?limit=2")).status_code)
            await trio.sleep(0.01)


async def open_as(streams: AsyncExitStack, host: str, client: str, *claims: str) -> int:
    """Open a WebSocket as a client with this address would; 101, or the status that refused it."""
    name, _, port = host.partition(":")
    stream = await streams.enter_async_context(await trio.open_tcp_stream(name, int(port)))
    await stream.send_all(upgrade("/ws/candles", f"Test-Client: {client}", *claims))
    return int((await stream.receive_some()).split()[1])


async def test_a_client_is_limited_by_its_own_address_and_not_by_that_of_nginx() -> None:
    # Here nginx takes a client's word for its address: all clients of a test have that of this machine.
    told = {"server_name ": "set_real_ip_from 127.0.0.1; real_ip_header Test-Client; server_name "}
    limits = ("--max-connections-per-address", "2", "--trusted-proxy", "127.0.0.1")
    async with (
        simulator(1) as binance,
        server(binance, "BTCUSDT", *limits) as node,
        run_nginx([node.host, node.host], told) as nginx,
        AsyncExitStack() as streams,
    ):
        one, other = "203.0.113.1", "203.0.113.2"
        assert [await open_as(streams, nginx.host, one) for _ in range(3)] == [101, 101, 429]
        assert await open_as(streams, nginx.host, one, f"X-Forwarded-For: {other}") == 429
        assert [await open_as(streams, nginx.host, other) for _ in range(3)] == [101, 101, 429]
