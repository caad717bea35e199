"""Redis goes away, forgets, refuses, or is another one: what two nodes and their charts make of it, in real time."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from tests.store.redis_server import run_server
from tests.whole.announced import hearing
from tests.whole.nodes import Deployment, Viewer, deploy
from tests.whole.proxy import run_proxy
from tests.whole.test_nodes import report, viewers_of, watching

RECOVERY = 10.0
"""Seconds after the end of a trouble until all nodes serve live again."""
NOTICED = 0.5
"""Seconds after which nothing more is shown that was committed before."""


@asynccontextmanager
async def asking(deployment: Deployment) -> AsyncIterator[dict[str, str]]:
    """Ask all nodes over REST again and again, which always answer; the last state of each."""
    states: dict[str, str] = {}

    async def ask(name: str) -> None:
        while True:
            answer = await deployment.rest(name)
            assert answer.status_code == 200, answer.text
            states[name] = answer.headers["Candlesync-State"]
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        for name in deployment.nodes:
            nursery.start_soon(ask, name)
        yield states
        nursery.cancel_scope.cancel()


class Scene:
    """Two nodes with charts on both, and a Redis to which things are done."""

    def __init__(self, deployment: Deployment, staying: list[Viewer], wandering: list[Viewer]) -> None:
        self.deployment = deployment
        self.staying = staying
        self.wandering = wandering

    @property
    def codes(self) -> set[int]:
        return {code for viewer in (*self.staying, *self.wandering) for code in viewer.codes}

    async def go_through(self, what: str, trouble: Callable[[], Awaitable[None]], *, is_outage: bool = True) -> None:
        """Cause a trouble, which ends when it returns. In an outage nothing is committed, and so nothing is shown."""
        deployment = self.deployment
        async with asking(deployment) as seen:
            began = time.monotonic()
            await trouble()
            ended = time.monotonic()
            last = dict(seen)
        if is_outage:
            for name in deployment.nodes:
                assert last[name] in ("syncing", "stale"), f"{what}: {name} says {last[name]}"
            for viewer in self.staying:
                shown = [at - began for at in viewer.chart.news if began + NOTICED < at < ended]
                assert shown == [], f"{what}: shown, and not committed"
        with trio.move_on_after(RECOVERY) as patience:
            await deployment.until_live()
            report(f"{what}: live", [time.monotonic() - ended])
            while not all(viewer.chart.first_news(ended) < time.monotonic() for viewer in self.staying):  # noqa: ASYNC110 - as an outsider
                await trio.sleep(0.05)
        waits = [viewer.chart.first_news(ended) - ended for viewer in self.staying]
        report(f"{what}: news", waits)
        assert not patience.cancelled_caught, f"{what}: charts stand still"
        await deployment.owner()
        await deployment.check_stored()
        for viewer in self.staying:
            assert viewer.chart.wrong == [], what


@asynccontextmanager
async def scene(deployment: Deployment, stores: Sequence[str] = ()) -> AsyncIterator[Scene]:
    """Start two nodes and let people look at them; in the end all charts are true."""
    await deployment.start_all("a", "b", stores=stores)
    made = Scene(deployment, viewers_of(deployment, 2), viewers_of(deployment, 1))
    async with watching(made.staying, made.wandering):
        await trio.sleep(0.5)
        yield made
        await trio.sleep(1)
    async with trio.open_nursery() as nursery:
        for viewer in made.wandering:
            nursery.start_soon(viewer.catch_up, viewer.hosts[0])
    await deployment.check([*made.staying, *made.wandering])
    assert made.codes <= {0, 4410}


async def test_a_redis_that_goes_away_and_keeps_everything() -> None:
    options = ["--appendonly", "yes", "--appendfsync", "always"]
    async with deploy(redis_options=options) as deployment, scene(deployment) as here:
        redis = deployment.redis

        async def restart() -> None:
            redis.kill()
            await trio.sleep(2.5)
            redis.start()

        async def stop() -> None:
            redis.signal(signal.SIGSTOP)
            await trio.sleep(5)
            redis.signal(signal.SIGCONT)

        async def pause() -> None:
            redis.client().execute_command("CLIENT", "PAUSE", 3500, "ALL")
            await trio.sleep(3.5)

        with hearing(redis) as announced:
            await here.go_through("restarted", restart)
            await here.go_through("stopped", stop)
            await here.go_through("paused", pause)
        assert here.codes <= {0}, "nobody had to load again"
        assert len({made.life for made in announced.commits}) == 1


async def test_a_redis_that_forgets() -> None:
    async with deploy() as deployment, scene(deployment) as here:
        redis = deployment.redis

        async def restart() -> None:
            redis.kill()
            await trio.sleep(2.5)
            redis.start()

        async def restart_at_once() -> None:
            redis.kill()
            redis.start()

        async def flush() -> None:
            redis.client().flushall()

        async def forget_series() -> None:
            for key in redis.client().keys("candlesync:{BTCUSDT}:1m:*"):
                redis.client().delete(key)

        await here.go_through("emptied by a restart", restart)
        await here.go_through("emptied by a short restart", restart_at_once, is_outage=False)
        await here.go_through("flushed", flush, is_outage=False)
        await here.go_through("a series deleted", forget_series, is_outage=False)


async def test_a_failover_to_a_redis_that_knows_less() -> None:
    async with deploy() as deployment, run_proxy(deployment.redis.port) as line:
        with run_server() as replica, run_server() as empty:
            async with scene(deployment, (line.url, line.url)) as here:
                primary = deployment.redis
                replica.client().execute_command("REPLICAOF", "127.0.0.1", primary.port)
                while replica.client().info("replication")["master_link_status"] != "up":  # noqa: ASYNC110
                    await trio.sleep(0.05)
                await trio.sleep(1)

                async def to_an_old_one() -> None:
                    replica.client().execute_command("REPLICAOF", "NO", "ONE")
                    await trio.sleep(3)  # and the primary goes on
                    deployment.redis = replica
                    line.lead_to(replica.port)

                async def to_an_empty_one() -> None:
                    deployment.redis = empty
                    line.lead_to(empty.port)

                async def back() -> None:
                    """To the first one, where another life stands, much older."""
                    deployment.redis = primary
                    line.lead_to(primary.port)

                await here.go_through("an old replica promoted", to_an_old_one, is_outage=False)
                await here.go_through("an empty replica promoted", to_an_empty_one, is_outage=False)
                await here.go_through("back to the first one", back, is_outage=False)


async def test_a_redis_whose_memory_is_full() -> None:
    async with deploy() as deployment, scene(deployment) as here:
        client = deployment.redis.client()

        async def fill() -> None:
            client.config_set("maxmemory", 1)
            await trio.sleep(3)
            client.config_set("maxmemory", 0)

        await here.go_through("memory full", fill)
        assert here.codes <= {0}, "nobody had to load again"


FOREIGN = ("{BTCUSDT}:fence", "{BTCUSDT}:lease", "{BTCUSDT}:1m:meta", "{BTCUSDT}:1m:candles", "{nodes}:until")


async def test_what_is_not_ours_under_our_names() -> None:
    """Other people's keys are left alone, and waited for; what makes no sense in ours is so, too, or is made anew."""
    async with deploy() as deployment, scene(deployment) as here:
        client = deployment.redis.client()
        for name in FOREIGN:
            key = f"candlesync:{name}"

            async def put(key: str = key) -> None:
                with client.pipeline(transaction=True) as pipeline:
                    pipeline.delete(key)
                    pipeline.xadd(key, {"somebody": "else's"})
                    pipeline.execute()
                await trio.sleep(1)
                assert client.type(key) == b"stream", "it is not ours to delete"
                client.delete(key)

            await here.go_through(f"a stream at {name}", put, is_outage=False)

        prefix = "candlesync:{BTCUSDT}"

        async def bad_candle() -> None:
            client.lset(f"{prefix}:1m:candles", -1, "garbage")
            await trio.sleep(1)
            client.delete(f"{prefix}:1m:candles")

        async def bad_old_candle() -> None:
            client.lset(f"{prefix}:1m:candles", 500, "garbage")
            await trio.sleep(1)
            client.delete(f"{prefix}:1m:candles")

        async def bad_meta() -> None:
            client.hset(f"{prefix}:1m:meta", "revision", "many")
            await trio.sleep(1)
            client.delete(f"{prefix}:1m:meta")

        async def bad_token() -> None:
            client.hset(f"{prefix}:fence", "token", "token")
            await trio.sleep(1)

        async def bad_claims() -> None:
            client.hset(f"{prefix}:fence", "claims", "claims")
            client.hset(f"{prefix}:fence", "token", "token")
            await trio.sleep(1)
            client.delete(f"{prefix}:fence")

        async def bad_lease() -> None:
            client.set(f"{prefix}:lease", "somebody")
            await trio.sleep(1)
            client.delete(f"{prefix}:lease")

        async def bad_members() -> None:
            client.hset("candlesync:{nodes}:members", "somebody", "nonsense")
            client.hset("candlesync:{nodes}:versions", "somebody", "1")
            client.zadd("candlesync:{nodes}:until", {"somebody": 2**52})
            await trio.sleep(1)

        for trouble in (
            bad_candle,
            bad_old_candle,
            bad_meta,
            bad_token,
            bad_claims,
            bad_lease,
            bad_members,
        ):
            await here.go_through(trouble.__name__, trouble, is_outage=False)


async def test_a_password_that_is_wrong_at_the_start_and_later() -> None:
    async with deploy() as deployment:
        client = deployment.redis.client()
        client.config_set("requirepass", "other")
        store = f"redis://:right@127.0.0.1:{deployment.redis.port}/0"
        for name in "ab":
            await deployment.start(name, "BTCUSDT", store=store)
        await trio.sleep(1)
        for name in "ab":
            assert (await deployment.ready(name))["status"] == "not ready"
        client.config_set("requirepass", "right")
        report("right password to live", [await deployment.until_live()])
        staying = viewers_of(deployment, 2)
        async with watching(staying):
            await trio.sleep(0.5)
            client.config_set("requirepass", "other")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await trio.sleep(3)
            for name in "ab":
                answer = await deployment.rest(name)
                assert answer.status_code == 200
                assert answer.headers["Candlesync-State"] in ("syncing", "stale")
            client.config_set("requirepass", "right")
            report("right password again to live", [await deployment.until_live()])
            await trio.sleep(1)
        await deployment.check(staying)
