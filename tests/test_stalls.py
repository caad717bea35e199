"""That a bound is extended by what the machine lost, and by nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.stalls import Stalls, stalls

BUSY = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


def measured(*late: float) -> Stalls:
    """What was measured when the thread woke each second, so much too late in all; nobody else waited."""
    found = Stalls()
    found._times = [float(second) for second in range(len(late))]
    found._late = list(late)
    found._waits = [{}]
    return found


def test_what_takes_too_long_on_a_machine_that_lost_nothing_fails() -> None:
    with pytest.raises(AssertionError, match=r"it: 2\.10 s, not 2\.0 s and the 0\.00 s"):
        measured(0, 0, 0, 0, 0).check("it", 1.0, 2.1, 2.0)
    measured(0, 0, 0, 0, 0).check("it", 1.0, 1.9, 2.0)


def test_what_was_lost_meanwhile_does_not_count_and_what_was_lost_at_other_times_does() -> None:
    found = measured(0, 5, 5, 6, 6, 9)
    assert found.lost(1.0, 4.0) == 1
    found.check("it", 1.0, 2.9, 2.0)
    with pytest.raises(AssertionError, match=r"the 1\.00 s that were lost"):
        found.check("it", 1.0, 3.0, 1.9)


def test_a_thread_that_sleeps_still_has_lost_what_it_is_late() -> None:
    found = Stalls()
    time.sleep(0.1)
    assert found.lost(found._times[0], time.monotonic()) > 0.05


def test_of_two_processes_on_one_processor_each_waits_for_the_other() -> None:
    processor = str(min(os.sched_getaffinity(0)))
    busy = [subprocess.Popen([sys.executable, "-c", BUSY, processor]) for _ in range(2)]
    try:
        with stalls() as found:
            began = time.monotonic()
            while found.lost(began, time.monotonic()) < 0.2:
                assert time.monotonic() < began + 20, "nothing was lost"
                time.sleep(0.05)
    finally:
        for process in busy:
            process.kill()
            process.wait()
