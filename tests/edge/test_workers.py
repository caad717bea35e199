"""Workers of the ``hypercorn`` command: who is replaced, and who ends the server."""

from __future__ import annotations

import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

import hypercorn.run
import pytest
from hypercorn.config import Config

from candlesync.edge import workers
from candlesync.edge.workers import Workers, replace_dead


class Process:
    """A worker as Hypercorn sees it."""

    numbers = iter(range(1, 1000))

    def __init__(self) -> None:
        self.pid = next(self.numbers)
        self.exitcode: int | None = None
        self.ends_when_joined: int | None = None
        self.joined: list[float | None] = []

    def join(self, timeout: float | None = None) -> None:
        self.joined.append(timeout)
        if self.exitcode is None:
            self.exitcode = self.ends_when_joined


class Server:
    """The first process of a server with three workers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.slept = 0.0
        self.reports: list[tuple[int, float]] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self._sleep)
        self.processes: list[Any] = []
        self.shutdown = get_context("spawn").Event()
        self.workers = Workers(self._start, hypercorn.run._join_exited, lambda *told: self.reports.append(told))
        self.populate()

    def populate(self) -> None:
        self.workers.populate(self.processes, Config(), None, None, self.shutdown, None)

    def join_exited(self) -> int:
        return self.workers.join_exited(self.processes)

    def _sleep(self, seconds: float) -> None:
        self.slept += seconds

    def _start(self, processes: list[Any], *_: object) -> None:
        processes += [Process() for _ in range(3 - len(processes))]


@pytest.fixture(name="server")
def _server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


def test_a_worker_that_was_killed_is_replaced_and_the_others_stay(server: Server) -> None:
    first, second, third = server.processes
    server.now += 3
    second.exitcode = -9
    assert server.join_exited() == 0
    assert server.processes == [first, third]
    assert server.reports == [(-9, 3.0)]
    server.populate()
    assert len(server.processes) == 3


def test_a_worker_that_fails_as_soon_as_it_starts_ends_the_server(server: Server) -> None:
    server.now += workers.SOON - 1
    server.processes[0].exitcode = 3
    assert server.join_exited() == 3
    assert server.reports == []


def test_a_worker_that_fails_after_a_while_is_replaced(server: Server) -> None:
    server.now += workers.SOON + 1
    server.processes[0].exitcode = 1
    assert server.join_exited() == 0
    assert len(server.processes) == 2


def test_the_age_of_a_replacement_is_its_own(server: Server) -> None:
    server.now += 100
    server.processes[0].exitcode = -9
    assert server.join_exited() == 0
    server.populate()
    server.now += 1
    server.processes[-1].exitcode = 2
    assert server.join_exited() == 2


def test_one_that_is_killed_at_once_is_not_replaced_in_a_tight_loop(server: Server) -> None:
    server.processes[0].exitcode = -11
    assert server.join_exited() == 0
    assert server.slept > 0


def test_a_worker_that_ends_by_itself_is_no_failure(server: Server) -> None:
    server.processes[0].exitcode = 0
    assert server.join_exited() == 0
    assert len(server.processes) == 2
    assert server.reports == []


def test_going_down_every_worker_is_waited_for(server: Server) -> None:
    """Hypercorn would kill the others as soon as the first has ended."""
    first, second, third = server.processes
    first.exitcode = 0
    second.ends_when_joined = 0
    server.shutdown.set()
    assert server.join_exited() == 0
    assert server.processes == [third]
    assert third.joined == [Config().graceful_timeout + 5]


def test_without_a_shutdown_nobody_is_waited_for(server: Server) -> None:
    server.processes[0].exitcode = -9
    server.join_exited()
    assert [process.joined for process in server.processes] == [[], []]


def test_hypercorn_still_has_the_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new Hypercorn that names these otherwise would end with its first dead worker, without a word."""
    for name in ("_populate", "_join_exited", "files_to_watch", "check_for_updates"):
        assert name in hypercorn.run.run.__code__.co_names
        monkeypatch.setattr(hypercorn.run, name, vars(hypercorn.run)[name])
    replace_dead(lambda *_: None)
    replaced = hypercorn.run._populate
    replace_dead(lambda *_: None)
    assert hypercorn.run._populate is replaced, "once is enough"
    seam = vars(hypercorn.run)
    assert seam["check_for_updates"](seam["files_to_watch"]()) is False
    processes: list[BaseProcess] = []
    assert hypercorn.run._join_exited(processes) == 0
