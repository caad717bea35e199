"""How far the place of a stream may be trusted whose client says nothing any more."""

from __future__ import annotations

from candlesync.doors.binance.receipt import Receipt


def test_of_a_client_that_is_there_all_counts_that_it_was_sent() -> None:
    receipt = Receipt(10, 0)
    receipt.move(10, heard_at=0, now=60)
    assert receipt.place(11, 60.1, None) == 11


def test_a_connection_that_has_hardly_begun_counts_as_none() -> None:
    receipt = Receipt(10, 0)
    receipt.move(10, heard_at=0, now=0.1)
    assert receipt.place(11, 0.2, None) == 10
    assert receipt.place(11, 0.3, None) == 11


def test_of_a_silent_client_what_it_had_when_it_was_last_heard_of() -> None:
    receipt = Receipt(10, 0)
    receipt.move(10, heard_at=20, now=60)
    assert receipt.place(11, 200, 20) == 10, "nothing was heard since it was sent"
    assert receipt.place(11, 200, 60.4) == 10, "it may have been under way"
    assert receipt.place(11, 200, 61) == 11
    receipt.move(11, heard_at=80, now=120)
    receipt.move(12, heard_at=80, now=180)
    receipt.move(13, heard_at=80, now=180)
    assert receipt.place(14, 200, 80) == 11
    assert receipt.place(14, 200, 190) == 14
    receipt.move(14, heard_at=190, now=240)
    assert receipt.place(15, 250, 190) == 14
