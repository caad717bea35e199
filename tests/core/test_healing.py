from __future__ import annotations

import pytest

from candlesync.core.healing import Healing, SeriesHealing


@pytest.fixture
def healing() -> Healing:
    return Healing()


def test_a_gap_is_open_from_when_it_is_found_to_when_it_is_healed(healing: Healing) -> None:
    series = SeriesHealing(healing)
    series.sight(10.0, 3)
    assert (healing.found, healing.open) == (0, 0)
    series.find()
    series.find()
    series.sight(12.0, 3)
    assert (healing.found, healing.open) == (1, 1)
    series.heal(14.5, 8)
    assert (healing.found, healing.open, healing.abandoned) == (1, 0, 0)
    assert (healing.lengths.count, healing.lengths.sum) == (1, 5)
    assert (healing.times.count, healing.times.sum) == (1, 4.5)


def test_a_reconnect_after_which_nothing_is_missing_is_no_gap(healing: Healing) -> None:
    series = SeriesHealing(healing)
    series.sight(10.0, 3)
    series.heal(11.0, 3)
    series.heal(12.0, 9)
    assert (healing.found, healing.times.count) == (0, 0)


def test_a_gap_that_only_rest_showed_counts_from_the_reconnect(healing: Healing) -> None:
    series = SeriesHealing(healing)
    series.sight(10.0, 0)
    series.heal(11.0, 2)
    assert (healing.found, healing.open, healing.lengths.sum, healing.times.sum) == (1, 0, 2, 1.0)


def test_without_a_stream_the_time_of_what_was_not_found_does_not_go_on(healing: Healing) -> None:
    series = SeriesHealing(healing)
    series.sight(10.0, 0)
    series.lose_sight()
    series.sight(100.0, 0)
    series.find()
    series.lose_sight()
    series.sight(200.0, 0)
    series.heal(203.0, 1)
    assert healing.times.sum == 103.0


def test_a_gap_that_goes_to_another_node_is_open_here_no_more(healing: Healing) -> None:
    series = SeriesHealing(healing)
    series.sight(1.0, 0)
    series.find()
    series.abandon()
    series.abandon()
    assert (healing.found, healing.open, healing.abandoned, healing.times.count) == (1, 0, 1, 0)


def test_the_gaps_of_all_series_are_counted_together(healing: Healing) -> None:
    healed, first, second = (SeriesHealing(healing) for _ in range(3))
    for series in (healed, first, second):
        series.sight(1.0, 0)
        series.find()
    assert (healing.found, healing.open) == (3, 3)
    healed.heal(2.0, 4)
    first.abandon()
    second.abandon()
    assert (healing.found, healing.open, healing.abandoned, healing.times.count) == (3, 0, 2, 1)
