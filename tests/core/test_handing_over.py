"""How long a symbol is kept before it is handed over."""

from __future__ import annotations

from candlesync.core.handing_over import MOST_DOUBLINGS, HandingOver

BTC, ETH = "BTCUSDT", "ETHUSDT"


def patience(handing_over: HandingOver, symbol: str = BTC) -> int:
    """The beats after which it is due."""
    return next(beats for beats in range(100_000) if handing_over.is_due(symbol, beats))


def comes_back(handing_over: HandingOver, symbol: str = BTC) -> None:
    handing_over.offered(symbol)
    handing_over.claimed(symbol)


def test_at_first_it_is_due_after_the_beats() -> None:
    assert patience(HandingOver(4)) == 5


def test_each_time_that_it_comes_back_untaken_it_is_kept_for_twice_as_long() -> None:
    handing_over = HandingOver(4)
    for beats in (9, 17, 33):
        comes_back(handing_over)
        assert patience(handing_over) == beats
        assert patience(handing_over, ETH) == 5, "each for itself"
    for _ in range(20):
        comes_back(handing_over)
    assert patience(handing_over) == 4 * 2**MOST_DOUBLINGS + 1 == 1025, "each eight and a half minutes"


def test_what_was_taken_is_handed_over_as_at_first() -> None:
    handing_over = HandingOver(4)
    comes_back(handing_over)
    handing_over.offered(BTC)
    handing_over.taken(BTC)
    handing_over.claimed(BTC)
    assert patience(handing_over) == 5


def test_what_was_claimed_without_having_been_offered_tells_nothing() -> None:
    handing_over = HandingOver(4)
    handing_over.claimed(BTC)
    comes_back(handing_over, ETH)
    handing_over.claimed(ETH)
    assert patience(handing_over) == 5
    assert patience(handing_over, ETH) == 9, "once"


def test_what_was_never_handed_over_may_be_seen_with_another_node() -> None:
    handing_over = HandingOver(4)
    handing_over.taken(BTC)
    assert patience(handing_over) == 5
