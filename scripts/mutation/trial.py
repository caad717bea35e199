"""Runs the tests against each mutant, in forks of a process that has imported them.

A mutant in the body of a function is tried in a fork of the process that has collected the tests: the function gets the
code of its changed self, and the tests that reach the changed lines run, the fastest first, until one fails. What runs
when the module is imported, or while tests are collected, has left its results everywhere by then; such a mutant is
tried in a fork that has imported nothing of ours yet, and imports the changed module.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.abc
import importlib.util
import math
import os
import pickle
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType
from typing import NoReturn

import coverage
import hypothesis
import msgspec  # noqa: F401 - each of these takes long to import: here once, and in no fork
import pytest
import pytest_trio.plugin  # noqa: F401
import structlog  # noqa: F401
import trio.testing  # noqa: F401

from .mutants import Mutant

EXAMPLES = 25
"""Of each hypothesis test, always the same ones; of a state machine as many runs. It is less than in the suite."""
STEPS = 25
SEQUENCES = 10
"""Of each kind of market in ``tests/core/test_sync.py``."""
_MEMORY = 2 << 30
_STILL = 3
"""Seconds without the use of CPU after which a trial counts as hanging: tests wait in virtual time."""

_OPTIONS = ["-o", "addopts=", "--import-mode=importlib", "--strict-markers", "-p", "no:cacheprovider"]
_OPTIONS += ["-p", "no:terminal", "--capture=no", "-p", "pytest_trio.plugin", "-p", "_hypothesis_pytestplugin"]
# No assertion in what is imported before them needs to be told in detail.
_OPTIONS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]

_OPTIONS += [
    "--deselect",
    "tests/core/test_placement.py::test_five_hundred_symbols_on_sixteen_nodes_take_no_time_worth_mentioning",
]

KILLED, TIMED_OUT, SURVIVED = "killed", "timed out", "survived"


@dataclass
class Survey:
    """What the tests reach when nothing is changed."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Of each test."""
    reached: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    """By file and line the tests."""
    at_import: dict[str, set[int]] = field(default_factory=dict)
    """By file the lines that run before the first test."""
    failed: list[str] = field(default_factory=list)
    most: float = math.inf
    """Seconds that the tests of one mutant may take together; those that take longest are left out."""

    def tests(self, mutant: Mutant) -> list[str]:
        """The tests to run, the fastest first; for what runs at import those of the file's own test file go first."""
        if self.runs_at_import(mutant):
            twin = f"test_{Path(mutant.file).stem}."
            near = {name for names in self.reached[mutant.file].values() for name in names}
            order = sorted(self.seconds, key=lambda name: (twin not in name, name not in near, self.seconds[name]))
            return self._first(order)
        reached = self.reached[mutant.file]
        names = {name for line in mutant.lines for name in reached.get(line, ())}
        return self._first(sorted(names, key=self.seconds.__getitem__))

    def _first(self, names: list[str]) -> list[str]:
        total = 0.0
        for place, name in enumerate(names):
            total += self.seconds[name]
            if total > self.most:
                return names[: place or 1]
        return names

    def runs_at_import(self, mutant: Mutant) -> bool:
        """Whether a fork of a process that has imported the module comes too late."""
        return not mutant.is_in_body or any(line in self.at_import[mutant.file] for line in mutant.lines)


def prepare() -> None:
    """What holds in every process of the run."""
    hypothesis.settings.register_profile(
        "mutation",
        derandomize=True,
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.settings.load_profile("mutation")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"


def survey(root: Path, files: Sequence[str], tests: Sequence[str]) -> Survey:
    """Run all tests once, with nothing changed, in a fork."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            _be_silent()
            found = _survey(root, files, tests)
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(found, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    if not told:
        raise SystemExit("the tests could not be run without a change")
    return pickle.loads(told)  # type: ignore[no-any-return]  # noqa: S301 - from our own child


def _survey(root: Path, files: Sequence[str], tests: Sequence[str]) -> Survey:
    found = Survey()
    cover = coverage.Coverage(data_file=None, include=[str(root / file) for file in files], config_file=False)
    cover.start()
    _pytest(tests, _Surveyor(cover, found))
    cover.stop()
    data = cover.get_data()
    for file in files:
        lines = data.contexts_by_lineno(str(root / file))
        found.at_import[file] = {line for line, contexts in lines.items() if "" in contexts}
        found.reached[file] = {line: set(contexts) - {""} for line, contexts in lines.items()}
    return found


Tell = Callable[[Mutant, str], None]
"""Is told what became of a mutant."""


def try_imported(root: Path, mutants: Sequence[Mutant], found: Survey, tell: Tell) -> None:
    """Try mutants, each in a fork that imports it."""

    def run(share: Sequence[Mutant], tell: Tell) -> None:
        for mutant in share:
            tell(mutant, _try_imported(root, mutant, found))

    _share_out(mutants, run, tell)


def try_all(root: Path, mutants: Sequence[Mutant], found: Survey, tests: Sequence[str], tell: Tell) -> None:
    """Try mutants in forks of processes that have collected the tests."""

    def run(share: Sequence[Mutant], tell: Tell) -> None:
        _pytest(tests, _Server(root, share, found, tell))

    _share_out(mutants, run, tell)


def _share_out(mutants: Sequence[Mutant], run: Callable[[Sequence[Mutant], Tell], None], tell: Tell) -> None:
    """Try the mutants in a process for each core. Raises `SystemExit` when one of them ends too early."""
    numbers = {mutant: number for number, mutant in enumerate(mutants)}
    workers = min(len(mutants), os.cpu_count() or 1)
    reading, writing = os.pipe()

    def write(mutant: Mutant, outcome: str) -> None:
        # In one piece, as it is short: those of others do not come between.
        os.write(writing, f"{numbers[mutant]} {outcome}\n".encode())

    children = []
    for first in range(workers):
        child = os.fork()
        if not child:
            try:
                run(mutants[first::workers], write)
            finally:
                os._exit(0)
        children.append(child)
    os.close(writing)
    told = 0
    with os.fdopen(reading) as pipe:
        for line in pipe:
            number, _, outcome = line.strip().partition(" ")
            tell(mutants[int(number)], outcome)
            told += 1
    for child in children:
        os.waitpid(child, 0)
    if told < len(mutants):
        raise SystemExit("the trials ended too early")


def _try_imported(root: Path, mutant: Mutant, found: Survey) -> str:
    names = found.tests(mutant)

    def work() -> bool:
        sys.meta_path.insert(0, _Importer(root, mutant))
        runner = _Once(names)
        return _pytest(sorted({name.split("::")[0] for name in names}), runner) == 0 and not runner.failed

    return _forked(work, sum(found.seconds[name] for name in names) + 5)


def _pytest(tests: Sequence[str], plugin: object) -> int:
    return int(pytest.main([*_OPTIONS, *tests], plugins=[plugin]))


class _Collected:
    """Fewer examples than in the suite."""

    @pytest.hookimpl
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            cls = getattr(item, "cls", None)
            module = getattr(item, "module", None)
            if cls is not None and isinstance(getattr(cls, "settings", None), hypothesis.settings):
                cls.settings = hypothesis.settings(cls.settings, max_examples=EXAMPLES, stateful_step_count=STEPS)
            if hasattr(module, "SEQUENCES"):
                module.SEQUENCES = SEQUENCES  # type: ignore[union-attr]  # it has one


class _Surveyor(_Collected):
    def __init__(self, cover: coverage.Coverage, found: Survey) -> None:
        self._cover = cover
        self._found = found

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._cover.switch_context(item.nodeid)
        start = time.process_time()
        result = yield
        self._found.seconds[item.nodeid] = time.process_time() - start
        return result

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._found.failed.append(report.nodeid)

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._found.failed.append(f"{report.nodeid}: {report.longrepr}")


class _Once(_Collected):
    """Runs some tests in this order, until one fails."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self.failed = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:  # a test file that cannot be imported any more
            self.failed = True
            return True
        items = {item.nodeid: item for item in session.items}
        self.failed = any(name not in items for name in self._names) or not _pass(
            session, [items[name] for name in self._names if name in items]
        )
        return True


class _Server(_Collected):
    """Takes the place of pytest's own loop over the tests."""

    def __init__(self, root: Path, mutants: Sequence[Mutant], found: Survey, tell: Tell) -> None:
        self._root = root
        self._mutants = mutants
        self._found = found
        self._tell = tell

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        functions = _functions({str(self._root / mutant.file) for mutant in self._mutants})
        gc.collect()
        gc.freeze()
        for mutant in self._mutants:
            names = self._found.tests(mutant)
            chosen = [items[name] for name in names]

            def work(mutant: Mutant = mutant, chosen: list[pytest.Item] = chosen) -> bool:
                _exchange(functions, str(self._root / mutant.file), mutant)
                return _pass(session, chosen)

            self._tell(mutant, _forked(work, sum(self._found.seconds[name] for name in names)))
        return True


def _pass(session: pytest.Session, items: list[pytest.Item]) -> bool:
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return False
    return True


Place = tuple[str, str, int]


def _functions(files: set[str]) -> dict[Place, list[FunctionType]]:
    """The functions of some files, by file, qualified name and first line."""
    found: dict[Place, list[FunctionType]] = {}
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and each.__code__.co_filename in files:
            found.setdefault(_place(each.__code__.co_filename, each.__code__), []).append(each)
    return found


def _place(file: str, code: CodeType) -> Place:
    return file, code.co_qualname, code.co_firstlineno


def _exchange(functions: dict[Place, list[FunctionType]], file: str, mutant: Mutant) -> None:
    """Give the changed function its code. Those before and after it in the file are the same, or have moved."""
    codes = [compile(mutant.source, file, "exec", dont_inherit=True)]
    exchanged = False
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        if code.co_qualname != mutant.function or code.co_firstlineno > mutant.lines[-1]:
            continue
        for function in functions.get(_place(file, code), ()):
            function.__code__ = code
            exchanged = True
    if not exchanged:
        raise SystemExit(f"{mutant.function} was not found in {mutant.file}")


class _Importer(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Imports one module from another source than its file's."""

    def __init__(self, root: Path, mutant: Mutant) -> None:
        self._name = mutant.file.removesuffix(".py").replace("/", ".")
        self._path = str(root / mutant.file)
        self._source = mutant.source.encode()

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> object:
        del path, target
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def get_filename(self, fullname: str) -> str:
        del fullname
        return self._path

    def get_data(self, path: str) -> bytes:
        del path
        return self._source

    def path_stats(self, path: str) -> NoReturn:
        raise OSError(path)  # there is no bytecode of it


_UNKNOWN = 3
"""The exit status of a trial that could not be made."""


def _forked(work: Callable[[], bool], seconds: float) -> str:
    """What becomes of a mutant: whether the tests that should take so many seconds of CPU notice it."""
    child = os.fork()
    if not child:
        _be_trial(work, math.ceil(3 * seconds + 2))
    handle = os.pidfd_open(child)
    try:
        outcome = _watch(child, handle)
    finally:
        os.close(handle)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if outcome is None:
        return TIMED_OUT
    code = os.waitstatus_to_exitcode(status)
    if code == _UNKNOWN:
        raise SystemExit("a trial could not be made")
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return TIMED_OUT
    return KILLED if code else SURVIVED


def _be_trial(work: Callable[[], bool], seconds: int) -> NoReturn:
    code = 1
    try:
        _be_silent()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = 0 if work() else 1
    except SystemExit as exit_:
        code = _UNKNOWN if isinstance(exit_.code, str) else 1
    finally:
        os._exit(code)


def _be_silent() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


def _watch(child: int, handle: int) -> bool | None:
    """Wait for a child's end; `None` for one that does nothing any more."""
    used, still = -1.0, 0
    while not select.select([handle], [], [], 1.0)[0]:
        stat = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        now = float(stat[11]) + float(stat[12])
        still = still + 1 if now == used and stat[0] == "S" else 0
        used = now
        if still >= _STILL:
            return None
    return True
