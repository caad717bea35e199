"""What ``scripts/bench`` concludes from what it has measured: costs, targets, and the change between two commits."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import pytest

from scripts.benchmark.compare import Report, compare
from scripts.benchmark.figures import PARTS
from scripts.benchmark.findings import Findings, Sample, Settings, Spent
from scripts.benchmark.fit import Point, excess, far_end, fit, medians
from scripts.benchmark.machine import Commit
from scripts.benchmark.report import as_json, as_markdown
from scripts.benchmark.targets import TARGETS, Target, judge_targets

_SPENT = Spent(2.0, server=0.5, load=0.1, upstream=0.1, redis=0.0, others=0.0)
_SETTINGS = Settings(
    runs=3, clients=1, seconds=1.0, rate=1.0, commit_rate=1.0, commit_seconds=1.0, measurements=("cost",)
)


def _point(series: int, clients: int, *, dearer: float = 1.0, run: int = 1) -> Point:
    """A point that costs 200 µs a commit and 10 µs a message, or so many times more."""
    commits, messages = series * 100, clients * 100
    cpu = (200e-6 * commits + 10e-6 * messages) * dearer
    return Point(series, clients, 10.0, run, commits, messages, cpu, 10.0)


_POINTS = [_point(series, clients) for series, clients in product((1, 10, 500), (10, 300, 5000))]


def test_the_fit_finds_what_a_commit_and_a_message_cost() -> None:
    model = fit(_POINTS)
    assert model.a == pytest.approx(200e-6)
    assert model.b == pytest.approx(10e-6)
    assert [model.residual(point) for point in _POINTS] == pytest.approx([0.0] * 9, abs=1e-9)
    assert excess(_POINTS) == pytest.approx(0.0, abs=1e-9)


def test_a_small_point_counts_as_much_as_a_large_one() -> None:
    small, *others = _POINTS
    least, most = (
        fit([replace(small, cpu=small.cpu * 0.8), *others]),
        fit([replace(small, cpu=small.cpu * 1.2), *others]),
    )
    assert most.a - least.a > 1e-6


def test_no_cost_is_below_nothing() -> None:
    dear = [Point(1, 1, 1.0, 1, commits, messages, 1e-3 * messages, 1.0) for commits, messages in ((900, 10), (90, 20))]
    cheap = [replace(dear[0], cpu=0.001), dear[1]]
    assert fit(cheap).a == 0.0
    swapped = [replace(point, commits=point.messages, messages=point.commits) for point in cheap]
    assert fit(swapped).b == 0.0
    assert fit(swapped).a == pytest.approx(fit(cheap).b)


def test_points_in_one_proportion_tell_nothing_apart() -> None:
    with pytest.raises(ValueError, match="multiple"):
        fit([Point(1, 1, 1.0, 1, n, 3 * n, n * 1e-3, 1.0) for n in (1, 10, 100)])


def test_what_grows_faster_shows_as_excess_at_the_far_end() -> None:
    assert {(point.series, point.clients) for point in far_end(_POINTS)} == {
        *((500, clients) for clients in (10, 300, 5000)),
        *((series, 5000) for series in (1, 10)),
    }
    grown = [replace(point, cpu=point.cpu * (1.5 if point.clients == 5000 else 1.0)) for point in _POINTS]
    assert excess(grown) == pytest.approx(0.5)
    cheaper = [replace(point, cpu=point.cpu * (0.7 if point in far_end(_POINTS) else 1.0)) for point in _POINTS]
    assert excess(cheaper) == pytest.approx(-0.3)


def test_of_several_runs_each_size_has_the_one_in_the_middle() -> None:
    runs = [
        _point(one.series, one.clients, dearer=by, run=run) for one in _POINTS for run, by in ((1, 3), (2, 1), (3, 0.9))
    ]
    assert {(point.series, point.clients): point.run for point in medians(runs)} == {
        (point.series, point.clients): 2 for point in _POINTS
    }


def _samples(figure: str, server: str, *values: float) -> list[Sample]:
    return [Sample(figure, server, run, value, _SPENT) for run, value in enumerate(values, 1)]


_THIRD = Target("a third of the peer's", "cpu", at_most=1 / 3, peer="peer", noise=0.15)
_TEN = Target("ten at least", "cpu", at_least=10, unit="1/s")


def test_a_ratio_is_taken_run_by_run_and_judged_by_the_median() -> None:
    samples = [*_samples("cpu", "candlesync", 10, 90, 30), *_samples("cpu", "peer", 100, 100, 90)]
    (verdict,) = judge_targets(samples, [_THIRD])
    assert verdict.values == pytest.approx((0.1, 0.9, 1 / 3))
    assert verdict.measured == pytest.approx(1 / 3)
    assert verdict.word == "met"


@pytest.mark.parametrize(
    ("ours", "word"), [(33.0, "met"), (34.0, "within noise"), (38.0, "within noise"), (39.0, "missed")]
)
def test_noise_is_said_and_not_hidden(ours: float, word: str) -> None:
    samples = [*_samples("cpu", "candlesync", ours), *_samples("cpu", "peer", 100)]
    assert judge_targets(samples, [_THIRD])[0].word == word


@pytest.mark.parametrize(("ours", "word"), [(10.0, "met"), (9.99, "missed"), (11.0, "met")])
def test_a_target_without_noise_has_none(ours: float, word: str) -> None:
    assert judge_targets(_samples("cpu", "candlesync", ours), [_TEN])[0].word == word


def test_what_was_not_measured_is_not_met() -> None:
    only_ours, only_theirs = _samples("cpu", "candlesync", 1), _samples("cpu", "peer", 100)
    other_run = [replace(only_theirs[0], run=2)]
    for samples in (only_ours, only_theirs, [*only_ours, *other_run], []):
        assert judge_targets(samples, [_THIRD])[0].word == "not measured"


def test_each_target_has_one_bound_and_a_row_of_its_own() -> None:
    assert all((target.at_most is None) != (target.at_least is None) for target in TARGETS)
    assert all(bool(target.peer) != bool(target.unit) for target in TARGETS)
    assert len({(target.figure, target.peer, target.bound) for target in TARGETS}) == len(TARGETS)
    assert {target.figure for target in TARGETS} <= {figure.name for part in PARTS for figure in part.figures}


def _report(*samples: Sample, sha: str = "1" * 40) -> Report:
    commit = Commit(sha, sha[:7], dirty=False)
    report: Report = json.loads(as_json(_SETTINGS, {"processor": "one"}, commit, Findings(list(samples))))
    return report


def _row(text: str, server: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if f"| {server} " in line]
    return [cell.strip() for cell in line.split("|")[1:-1]]


@pytest.mark.parametrize(
    ("old", "new", "change", "verdict"),
    [
        ((10, 11, 12), (20, 21, 22), "+90.9 %", "worse"),
        ((10, 11, 12), (5, 6, 7), "-45.5 %", "better"),
        ((10, 11, 12), (12, 13, 14), "+18.2 %", ""),  # they touch
        ((10, 11, 40), (20, 21, 22), "+90.9 %", ""),
        ((10,), (20, 21), "+105.0 %", ""),  # one run has no spread
    ],
)
def test_a_change_is_marked_when_all_runs_of_one_commit_are_beyond_those_of_the_other(
    old: tuple[float, ...], new: tuple[float, ...], change: str, verdict: str
) -> None:
    text = compare(*(_report(*_samples("cpu", "candlesync", *values)) for values in (old, new)))
    assert _row(text, "candlesync")[-2:] == [change, verdict]


def test_more_is_better_of_some_figures_and_of_others_neither() -> None:
    old, new = (
        [*_samples("rest", "candlesync", *values), *_samples("rest_size", "peer", *values)]
        for values in ((10, 11), (20, 21))
    )
    text = compare(_report(*old), _report(*new))
    assert _row(text, "candlesync")[-1] == "better"
    assert _row(text, "peer")[-1] == "changed"


def test_a_comparison_names_both_commits_and_what_else_is_not_the_same() -> None:
    old, new = _report(*_samples("cpu", "candlesync", 1)), _report(*_samples("cpu", "peer", 1), sha="2" * 40)
    changed = {**new, "machine": {"processor": "two"}, "settings": {**new["settings"], "clients": 300}}
    text = compare(old, changed)
    for part in ("1111111", "2222222", "processor: one / two", "clients: 1 / 300", "no figure in common"):
        assert part in text


def test_the_report_says_of_each_target_whether_it_is_met() -> None:
    samples = [*_samples("memory_client", "candlesync", 50, 51, 52), *_samples("memory_series", "candlesync", 700)]
    text = as_markdown(_SETTINGS, {}, Findings(samples))
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert "51 (50 to 52) KiB" in rows["Memory of a client, in all"]
    assert rows["Memory of a client, in all"].endswith("| met          |")
    assert "missed" in rows["Memory of a series of 1000 candles, all told"]
    verdicts = {target["what"]: target["verdict"] for target in _report(*samples)["targets"]}
    assert verdicts["Memory of a series of 1000 candles, all told"] == "missed"
    assert "not measured" in verdicts.values()


@pytest.mark.parametrize(
    ("settings", "is_warned"),
    [
        (replace(_SETTINGS, clients=300, runs=3), False),
        (replace(_SETTINGS, clients=300, runs=3, quick=True), True),
        (replace(_SETTINGS, clients=50, runs=3), True),
        (replace(_SETTINGS, clients=300, runs=2), True),
    ],
)
def test_a_run_of_other_sizes_is_not_to_be_judged_by(settings: Settings, is_warned: bool) -> None:
    text = as_markdown(settings, {}, Findings(_samples("memory_client", "candlesync", 50)))
    assert ("Not to be judged by" in text) is is_warned


def test_the_report_shows_each_size_beside_the_fit() -> None:
    samples = _samples("cost_commit", "candlesync", 200)
    text = as_markdown(_SETTINGS, {}, Findings(samples, points=_POINTS))
    assert "a = 200.0 µs and b = 10.00 µs" in text
    assert sum("+0.0 %" in line or "-0.0 %" in line for line in text.splitlines() if line.startswith("| ")) == 9
