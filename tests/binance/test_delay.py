from __future__ import annotations

import time

import pytest

from candlesync.binance.delay import AGREEMENT, EventDelay


@pytest.mark.parametrize("skew", [-1.0, AGREEMENT + 1, 1e9, -1e9])
def test_where_the_clocks_do_not_agree_nothing_is_said_of_the_way(skew: float) -> None:
    delay = EventDelay()
    delay.observe(round((time.time() - skew) * 1000))
    assert (delay.delays.count, delay.disagreements) == (0, 1)


def test_an_event_that_was_a_second_on_its_way() -> None:
    delay = EventDelay()
    delay.observe(round((time.time() - 1.0) * 1000))
    assert (delay.delays.count, delay.disagreements) == (1, 0)
    assert 0.99 <= delay.delays.sum < 2.0
