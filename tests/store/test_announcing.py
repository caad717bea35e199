"""What nodes tell each other, byte by byte."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.core.interval import Interval
from candlesync.core.placement import Member
from candlesync.core.position import LAST_REVISION, LIFE, Position
from candlesync.core.replica import Commit
from candlesync.core.report import Release, Report, SeriesReport
from candlesync.core.sync import State
from candlesync.store.announcing import (
    ASSEMBLED,
    decode_announced,
    decode_member,
    encode_member,
    encode_release,
    encode_report,
)
from candlesync.store.codec import Keys, encode_commit
from tests.builders import BTC, candle, flat, forming, minute, minutes
from tests.store.contract import begin, follow
from tests.store.shared_contract import Ear

KEYS = Keys("p", 3)
CHANNEL = b"p@3:{BTCUSDT}"
NODES = b"p@3:{nodes}"


def told(channel: bytes, announced: bytes) -> tuple[object, ...]:
    ear = Ear()
    decode_announced(KEYS, channel, announced)(ear)
    (heard,) = ear.heard
    return heard


@pytest.mark.parametrize(
    "commit",
    [follow(2, candle(), flat(minute(1)), forming(minute(2))), begin(candle(), life="life1", replaces="life0")],
    ids=["follows", "begins"],
)
def test_a_small_commit(commit: Commit) -> None:
    assert told(CHANNEL, encode_commit(BTC, commit, "id")[1]) == ("committed", BTC, commit)


def test_a_large_commit() -> None:
    announcement = encode_commit(BTC, begin(*minutes(0, 500)), "id")[1]
    assert told(CHANNEL, announcement) == ("moved", BTC, Position("life0", 1))
    assert len(announcement) < 100


reports = st.builds(
    Report,
    owner=st.text(),
    series=st.dictionaries(
        st.sampled_from(Interval),
        st.builds(
            SeriesReport,
            st.sampled_from(State),
            st.builds(Position, st.just("") | st.from_regex(LIFE, fullmatch=True), st.integers(0, LAST_REVISION)),
        ),
    ),
)


@given(reports)
def test_a_report(report: Report) -> None:
    assert told(CHANNEL, encode_report(report)) == ("reported", "BTCUSDT", report)


@given(st.builds(Release, st.text(), st.text()))
def test_a_release(release: Release) -> None:
    assert told(CHANNEL, encode_release(release)) == ("released", "BTCUSDT", release)


def test_an_assembly() -> None:
    assert told(NODES, ASSEMBLED) == ("assembled",)


COMMIT = encode_commit(BTC, follow(2, candle()), "id")[1]
RELEASE = encode_release(Release("a"))


@pytest.mark.parametrize(
    ("channel", "announced"),
    [
        (CHANNEL, b""),
        (CHANNEL, b"junk"),
        (CHANNEL, COMMIT[:-1]),
        (CHANNEL, msgspec.msgpack.encode([99, 1])),
        (CHANNEL, msgspec.msgpack.encode([1, "2m", "life", 2, False, "", "id", []])),
        (CHANNEL, msgspec.msgpack.encode([1, "1m", "life", 2, False, "", "id", [b"junk"]])),
        (CHANNEL, msgspec.msgpack.encode([2, "a", [["1m", "asleep", "life", 2]]])),
        (CHANNEL, msgspec.msgpack.encode([2, "a", [["2m", "live", "life", 2]]])),
        (CHANNEL, b"\x94\x03" + b"\x91" * 100_000),
        (CHANNEL, b"\x94\x03\xa1a\xa1b" + b"\x91" * 100_000),
        (CHANNEL, ASSEMBLED),
        (NODES, COMMIT),
        (NODES, RELEASE),
        (b"p@3:{\xff\xff}", RELEASE),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_what_is_not_ours_to_read_is_said_to_be_so(channel: bytes, announced: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        decode_announced(KEYS, channel, announced)


members = st.builds(
    Member,
    name=st.text(),
    wants=st.dictionaries(st.text(max_size=5), st.lists(st.sampled_from(Interval)).map(tuple)),
    owns=st.lists(st.text(max_size=5)).map(tuple),
)


@given(members)
def test_a_member(member: Member) -> None:
    assert decode_member(encode_member(member)[1]) == member


@given(members, members)
def test_a_description_has_one_version_and_another_has_another(one: Member, other: Member) -> None:
    turned = Member(one.name, dict(reversed(one.wants.items())), one.owns)
    assert encode_member(one)[0] == encode_member(turned)[0]
    assert (encode_member(one)[0] == encode_member(other)[0]) is (one == other)


@pytest.mark.parametrize(
    "said",
    [b"", b"junk", msgspec.msgpack.encode([2, "a", {}, []]), msgspec.msgpack.encode([1, "a", {"B": ["2m"]}, []])],
)
def test_a_member_that_is_not_ours_to_read(said: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        decode_member(said)
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        decode_member(b"\x95\x01\xa1a\x80\x90" + b"\x91" * 100_000)
