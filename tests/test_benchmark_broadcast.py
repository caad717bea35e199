"""The broadcasts of ``scripts/bench``: what its clients read, what is said about it, and a small one of each kind."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.benchmark import market, node
from scripts.benchmark.delivery import judge
from scripts.benchmark.findings import Findings, Settings
from scripts.benchmark.measure import measure
from scripts.benchmark.peer_candle import candle_in, message_of
from scripts.benchmark.servers import CANDLESYNC, RAW, Contender
from scripts.benchmark.upstream import Sent
from scripts.benchmark.websocket import PING, TEXT, Frames, Inflater, agreed_deflate, frame

_MESSAGES = [b'{"volume":1.5}', b"", b'{"volume":2.5}' * 40, b'{"volume":2.5}']


def _compressed(message: bytes, stream: zlib._Compress) -> bytes:
    data = stream.compress(message) + stream.flush(zlib.Z_SYNC_FLUSH)
    whole = frame(TEXT, data.removesuffix(b"\x00\x00\xff\xff"))
    return bytes([whole[0] | 0x40]) + whole[1:]


def _deflater(bits: int = 15) -> zlib._Compress:
    return zlib.compressobj(wbits=-bits)


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("bits", [9, 12, 15])
def test_a_client_inflates_messages_that_refer_to_those_before_them(size: int, bits: int) -> None:
    stream = _deflater(bits)
    data = b"".join(_compressed(message, stream) for message in _MESSAGES)
    frames, found = Frames(Inflater()), list[tuple[int, bytes]]()
    for at in range(0, len(data), size):
        found += frames.feed(data[at : at + size])
    assert found == [(TEXT, message) for message in _MESSAGES]


def test_a_message_is_inflated_by_itself_where_the_server_has_said_so() -> None:
    frames = Frames(agreed_deflate(_answer(b"permessage-deflate; server_no_context_takeover")))
    data = b"".join(_compressed(message, _deflater()) for message in _MESSAGES)
    assert [payload for _, payload in frames.feed(data)] == _MESSAGES


def test_what_is_not_compressed_may_stand_between_what_is() -> None:
    stream, frames = _deflater(), Frames(agreed_deflate(_answer(b"permessage-deflate; server_max_window_bits=12")))
    data = [_compressed(b"one", stream), frame(PING, b"x"), frame(TEXT, b"two"), _compressed(b"one", stream)]
    assert frames.feed(b"".join(data)) == [(TEXT, b"one"), (PING, b"x"), (TEXT, b"two"), (TEXT, b"one")]


def test_nobody_may_compress_who_has_not_agreed_on_it() -> None:
    assert agreed_deflate(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket") is None
    with pytest.raises(ValueError, match="0xc1"):
        Frames().feed(_compressed(b"one", _deflater()))


@pytest.mark.parametrize("value", [b"x-webkit-deflate-frame", b"permessage-deflate; unheard_of"])
def test_a_server_cannot_agree_on_what_was_not_offered(value: bytes) -> None:
    with pytest.raises(RuntimeError, match="not offered"):
        agreed_deflate(_answer(value))


def _answer(extensions: bytes) -> bytes:
    return b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-extensions: " + extensions


_SENT = Sent(first=5, last=6, sent_at=[1_000_000_000, 2_000_000_000], late=0.0, connections=1)


def _got(*messages: tuple[str, int]) -> list[tuple[int, bytes]]:
    return [(3_000_000_000, b'{"symbol":"%b","volume":%d.5}' % (name.encode(), update)) for name, update in messages]


def test_each_series_of_a_socket_is_judged_by_itself() -> None:
    whole = _got(("A", 5), ("B", 5), ("B", 6), ("A", 6))
    skipped = _got(("B", 6), ("A", 5), ("A", 6))
    delivery = judge(_SENT, [whole, skipped], ["A", "B"])
    assert delivery.faults == []
    assert delivery.messages == 7
    assert delivery.delays == [1.0] * 4 + [2.0] * 4  # what was skipped counts, too


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([("A", 5), ("A", 6), ("B", 5)], "no last update (1 times)"),
        ([("A", 5), ("A", 6)], "no last update (1 times)"),
        ([("A", 5), ("A", 6), ("B", 6), ("B", 5)], "an update that was out of order (1 times)"),
        ([("A", 5), ("A", 6), ("B", 6), ("A", 6)], "an update that was out of order (1 times)"),
        ([("A", 6), ("B", 6), ("C", 6)], "a candle of something else (1 times)"),
    ],
)
def test_what_one_series_lacks_no_other_makes_good(messages: Sequence[tuple[str, int]], fault: str) -> None:
    assert judge(_SENT, [_got(*messages)], ["A", "B"]).faults == [fault]


def test_a_client_of_one_series_may_follow_any() -> None:
    assert judge(_SENT, [_got(("A", 6)), _got(("B", 5), ("B", 6))]).faults == []
    assert judge(_SENT, [_got(("A", 5))]).faults == ["no last update (1 times)"]


@pytest.mark.parametrize("update", [1, 99, 100_000])
def test_every_symbol_shows_the_same_market_in_messages_of_one_size(update: int) -> None:
    names = market.symbols(50)
    assert len(set(names)) == 50
    for name in names:
        shown = market.kline_frame(update, name)
        assert json.loads(shown)["stream"] == market.stream_of(name)
        message = message_of(candle_in(shown)).encode()
        assert json.loads(message)["symbol"] == market.symbol_of(message) == name
        assert market.update_of(message) == update
        assert len(message) == market.MESSAGE_SIZE


def test_a_peer_without_its_program_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = node.missing()
    assert missing is not None
    assert "node" in missing
    assert node.version() is None


_SETTINGS = Settings(
    runs=1,
    clients=20,
    seconds=0.4,
    rate=20.0,
    commit_rate=1.0,
    commit_seconds=1.0,
    measurements=("broadcast", "deflate", "many", "series"),
    many_clients=120,
    many_rate=5.0,
    series=3,
    series_rate=5.0,
)


def _measured(contender: Contender, settings: Settings, folder: Path) -> tuple[Findings, dict[str, float]]:
    findings = Findings()
    measure(contender, settings, 1, folder, findings)
    assert findings.faults == []
    assert not [remark for remark in findings.remarks if "bytes" in remark.text]
    return findings, {sample.figure: sample.value for sample in findings.samples}


def test_every_broadcast_reaches_all(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    findings, found = _measured(RAW, _SETTINGS, tmp_path)
    assert os.sched_getaffinity(0) == cores
    for figures in ("", "deflate_", "many_", "series_"):
        assert found[f"{figures}delivered"] == 100
        assert 0.5 < found[f"{figures}cpu"] < 5000
    # 8 updates to 20 clients, twice; 2 updates to 120; 2 updates of 3 series to 20.
    assert findings.messages == 8 * 20 * 2 + 2 * 120 + 2 * 3 * 20


def test_candlesync_has_many_series_on_one_socket_and_is_heard_to_the_last_update(tmp_path: Path) -> None:
    settings = replace(_SETTINGS, measurements=("series",))
    findings, found = _measured(CANDLESYNC, settings, tmp_path)
    assert found["series_delivered"] == 100
    assert findings.messages == 2 * 3 * 20
