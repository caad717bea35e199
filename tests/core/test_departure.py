"""What the nodes of a shared store agree on for streams that stopped."""

from __future__ import annotations

from candlesync.core.departure import ALIVE, KEPT, NOTICED, TOGETHER, Found


def test_the_numbers_are_those_that_were_decided_on() -> None:
    """Seconds; nodes of different versions before one store must not differ in them."""
    assert (KEPT, TOGETHER, ALIVE, NOTICED) == (300.0, 5.0, 2.0, 0.1)


def test_what_is_found_is_sure_unless_it_is_said_otherwise() -> None:
    assert Found(None) == (None, False)
