"""Redis goes away, forgets, refuses, or is another one: what two nodes and their charts make of it, in real time."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from tests.store.redis_server import run_server
from tests.whole.announced import hearing
from tests.whole.nodes import LEASE, Deployment, Viewer, deploy
from tests.whole.programs import PATIENCE
from tests.whole.proxy import run_proxy
from tests.whole.test_nodes import catch_up, viewers_of, watching

Trouble = Callable[[], AbstractAsyncContextManager[None]]
"""What begins before the block, has its effects in the block, and ends after it."""
RECOVERY = 10.0
"""Seconds after the end of a trouble until all nodes serve live again."""
NOTICED = 0.5
"""Seconds after which nothing more is shown that was committed before."""
NOT_LIVE = ("syncing", "stale")
UNANSWERED = 3.0
"""Seconds of an outage after which each node says that it is not live: a store that answers nothing is given two."""


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

    async def go_through(self, what: str, trouble: Trouble, *, is_outage: bool = True) -> None:
        """Cause a trouble, and end it. As long as an outage lasts nothing is committed, and so nothing is shown."""
        deployment = self.deployment
        async with asking(deployment) as seen:
            began = time.monotonic()
            async with trouble():
                if is_outage:
                    await self._until_noticed(what, seen, began)
                over, last = time.monotonic(), dict(seen)
            ended = time.monotonic()
        if is_outage:
            for name in deployment.nodes:
                assert last[name] in NOT_LIVE, f"{what}: {name} says {last[name]}"
            late = deployment.stalls.extended(began, NOTICED)
            for viewer in self.staying:
                shown = [at - began for at in viewer.chart.news if began + late < at < over]
                assert shown == [], f"{what}: shown, and not committed"

        async def all_live() -> bool:
            await deployment.until_live()
            return all(viewer.chart.first_news(ended) < math.inf for viewer in self.staying)

        await deployment.stalls.until(f"{what}: live again", all_live, RECOVERY, since=ended)
        await deployment.owner()
        await deployment.check_stored()
        for viewer in self.staying:
            assert viewer.chart.wrong == [], what

    async def _until_noticed(self, what: str, seen: dict[str, str], began: float) -> None:
        """Until all nodes say that they are not live, and a second more, in which each is asked again."""

        async def all_say_so() -> bool:
            return all(seen.get(name) in NOT_LIVE for name in self.deployment.nodes)

        await self.deployment.stalls.until(f"{what}: noticed", all_say_so, UNANSWERED, since=began)
        await trio.sleep(1)


@asynccontextmanager
async def scene(deployment: Deployment, stores: Sequence[str] = ()) -> AsyncIterator[Scene]:
    """Start two nodes and let people look at them; in the end all charts are true."""
    await deployment.start_all("a", "b", stores=stores)
    made = Scene(deployment, viewers_of(deployment, 2), viewers_of(deployment, 1))
    async with watching(deployment, made.staying, made.wandering):
        await trio.sleep(0.5)
        yield made
        await trio.sleep(0.5)
    await catch_up(deployment, made.wandering)
    await deployment.check([*made.staying, *made.wandering])
    assert made.codes <= {0, 4410}


async def test_a_redis_that_goes_away_and_keeps_everything() -> None:
    options = ["--appendonly", "yes", "--appendfsync", "always"]
    async with deploy(redis_options=options) as deployment, scene(deployment) as here:
        redis = deployment.redis

        @asynccontextmanager
        async def restart() -> AsyncIterator[None]:
            redis.kill()
            yield
            redis.start()

        @asynccontextmanager
        async def stop() -> AsyncIterator[None]:
            redis.signal(signal.SIGSTOP)
            stopped = trio.current_time()
            yield
            await trio.sleep_until(stopped + 4.5)  # longer than any deadline
            redis.signal(signal.SIGCONT)

        @asynccontextmanager
        async def pause() -> AsyncIterator[None]:
            redis.client().execute_command("CLIENT", "PAUSE", 6000, "ALL")
            paused = trio.current_time()
            yield
            await trio.sleep_until(paused + 6)  # nothing ends it sooner

        with hearing(redis) as announced:
            await here.go_through("restarted", restart)
            await here.go_through("stopped", stop)
            await here.go_through("paused", pause)
        assert here.codes <= {0}, "nobody had to load again"
        assert len({made.life for made in announced.commits}) == 1


async def test_a_redis_that_forgets() -> None:
    async with deploy() as deployment, scene(deployment) as here:
        redis = deployment.redis

        @asynccontextmanager
        async def restart() -> AsyncIterator[None]:
            redis.kill()
            yield
            redis.start()

        @asynccontextmanager
        async def restart_at_once() -> AsyncIterator[None]:
            redis.kill()
            yield
            redis.start()

        @asynccontextmanager
        async def flush() -> AsyncIterator[None]:
            redis.client().flushall()
            yield

        @asynccontextmanager
        async def forget_series() -> AsyncIterator[None]:
            for key in redis.client().keys("candlesync:{BTCUSDT}:1m:*"):
                redis.client().delete(key)
            yield

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
                with trio.fail_after(PATIENCE):
                    while replica.client().info("replication")["master_link_status"] != "up":  # noqa: ASYNC110
                        await trio.sleep(0.05)
                await trio.sleep(0.5)

                @asynccontextmanager
                async def to_an_old_one() -> AsyncIterator[None]:
                    replica.client().execute_command("REPLICAOF", "NO", "ONE")
                    await trio.sleep(2)  # and the primary goes on
                    yield
                    deployment.redis = replica
                    line.lead_to(replica.port)

                @asynccontextmanager
                async def to_an_empty_one() -> AsyncIterator[None]:
                    yield
                    deployment.redis = empty
                    line.lead_to(empty.port)

                @asynccontextmanager
                async def back() -> AsyncIterator[None]:
                    """To the first one, where another life stands, much older."""
                    yield
                    deployment.redis = primary
                    line.lead_to(primary.port)

                await here.go_through("an old replica promoted", to_an_old_one, is_outage=False)
                await here.go_through("an empty replica promoted", to_an_empty_one, is_outage=False)
                await here.go_through("back to the first one", back, is_outage=False)


async def test_a_redis_whose_memory_is_full() -> None:
    async with deploy() as deployment, scene(deployment) as here:
        client = deployment.redis.client()

        @asynccontextmanager
        async def fill() -> AsyncIterator[None]:
            client.config_set("maxmemory", 1)
            await trio.sleep(LEASE + 0.5)
            yield
            client.config_set("maxmemory", 0)

        await here.go_through("memory full", fill)
        assert here.codes <= {0}, "nobody had to load again"


NEXT = LEASE / 4 + 0.2
"""Seconds in which each node has renewed or attended, and the owner has committed."""
FOREIGN = ("{BTCUSDT}:fence", "{BTCUSDT}:lease", "{BTCUSDT}:1m:meta", "{BTCUSDT}:1m:candles", "{nodes}:until")


async def test_what_is_not_ours_under_our_names() -> None:
    """Other people's keys are left alone, and waited for; what makes no sense in ours is so, too, or is made anew."""
    async with deploy() as deployment, scene(deployment) as here:
        client = deployment.redis.client()
        for name in FOREIGN:
            key = f"candlesync:{name}"

            @asynccontextmanager
            async def put(key: str = key) -> AsyncIterator[None]:
                with client.pipeline(transaction=True) as pipeline:
                    pipeline.delete(key)
                    pipeline.xadd(key, {"somebody": "else's"})
                    pipeline.execute()
                await trio.sleep(NEXT)
                assert client.type(key) == b"stream", "it is not ours to delete"
                yield
                client.delete(key)

            await here.go_through(f"a stream at {name}", put, is_outage=False)

        prefix = "candlesync:{BTCUSDT}"

        @asynccontextmanager
        async def bad_candle() -> AsyncIterator[None]:
            client.lset(f"{prefix}:1m:candles", -1, "garbage")
            await trio.sleep(NEXT)
            yield
            client.delete(f"{prefix}:1m:candles")

        @asynccontextmanager
        async def bad_old_candle() -> AsyncIterator[None]:
            client.lset(f"{prefix}:1m:candles", 500, "garbage")
            await trio.sleep(NEXT)
            yield
            client.delete(f"{prefix}:1m:candles")

        @asynccontextmanager
        async def bad_meta() -> AsyncIterator[None]:
            client.hset(f"{prefix}:1m:meta", "revision", "many")
            await trio.sleep(NEXT)
            yield
            client.delete(f"{prefix}:1m:meta")

        @asynccontextmanager
        async def bad_token() -> AsyncIterator[None]:
            client.hset(f"{prefix}:fence", "token", "token")
            await trio.sleep(NEXT)
            yield

        @asynccontextmanager
        async def bad_claims() -> AsyncIterator[None]:
            client.hset(f"{prefix}:fence", "claims", "claims")
            client.hset(f"{prefix}:fence", "token", "token")
            await trio.sleep(NEXT)
            yield
            client.delete(f"{prefix}:fence")

        @asynccontextmanager
        async def bad_lease() -> AsyncIterator[None]:
            client.set(f"{prefix}:lease", "somebody")
            await trio.sleep(NEXT)
            yield
            client.delete(f"{prefix}:lease")

        @asynccontextmanager
        async def bad_members() -> AsyncIterator[None]:
            client.hset("candlesync:{nodes}:members", "somebody", "nonsense")
            client.hset("candlesync:{nodes}:versions", "somebody", "1")
            client.zadd("candlesync:{nodes}:until", {"somebody": 2**52})
            await trio.sleep(NEXT)
            yield

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
        await trio.sleep(0.5)
        for name in "ab":
            assert (await deployment.ready(name))["status"] == "not ready"
        client.config_set("requirepass", "right")
        await deployment.until_live()
        staying = viewers_of(deployment, 2)
        async with watching(deployment, staying):
            await trio.sleep(0.5)
            client.config_set("requirepass", "other")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            changed = time.monotonic()
            for name in "ab":
                await deployment.until_state(name, *NOT_LIVE)
            deployment.stalls.check("the new password noticed", changed, time.monotonic() - changed, LEASE)
            await trio.sleep(LEASE)
            for name in "ab":
                answer = await deployment.rest(name)
                assert answer.status_code == 200
                assert answer.headers["Candlesync-State"] in NOT_LIVE
            client.config_set("requirepass", "right")
            await deployment.until_live()
        await deployment.check(staying)
