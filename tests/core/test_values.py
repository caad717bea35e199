"""What the core hands around is shared by many, so that nobody may change it."""

from __future__ import annotations

import msgspec
import pytest

from candlesync.core.absorb import Evidence
from candlesync.core.candle import Candle, Series
from candlesync.core.entry import Entry
from candlesync.core.gap import Gap
from candlesync.core.page import Page
from candlesync.core.placement import Member
from candlesync.core.position import Position
from candlesync.core.replica import Commit, Snapshot
from candlesync.core.report import Release, Report, SeriesReport
from candlesync.core.succession import _Outlook
from candlesync.core.sync import Ask, Idle, Rules, Wait
from tests.builders import candle

VALUES: list[type[msgspec.Struct]] = [
    Ask, Candle, Commit, Evidence, Gap, Idle, Member, Page, Position, Release, Report, Rules, Series, SeriesReport,
    Snapshot, Wait, _Outlook,
]  # fmt: skip


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_a_value_never_changes(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen


def test_what_there_are_hundreds_of_thousands_of_is_no_matter_of_the_garbage_collector() -> None:
    assert not Candle.__struct_config__.gc
    assert not Entry.__struct_config__.gc


def test_an_entry_is_itself_alone() -> None:
    assert Entry(candle(), 1) != Entry(candle(), 1)


def test_each_wait_is_one_of_its_own() -> None:
    """Which one has passed is told by identity: another of as many seconds is another."""
    one = Wait(5.0)
    assert one != Wait(5.0)
    assert not one.outage


def test_series_have_an_order() -> None:
    assert Series("BTCUSDT", "1m") < Series("ETHUSDT", "1m")  # type: ignore[arg-type]  # any two texts do


def test_a_release_names_no_successor_unless_it_is_told() -> None:
    assert Release("node").successor == ""
