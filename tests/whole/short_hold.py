"""The ``candlesync`` command with a node that lets go after five seconds without its store, not after fifteen.

A test waits for that in real time; how long it is by itself, the tests in virtual time say.
"""

from __future__ import annotations

from typing import Any

import msgspec

from candlesync import cli
from candlesync.config import Settings
from candlesync.leases import LeaseSettings
from candlesync.options import settings_from

HOLD = 5.0
"""Seconds."""


def with_short_hold(values: dict[str, Any]) -> Settings:
    """The settings of the command line, but for the hold."""
    return msgspec.structs.replace(settings_from(values), leases=LeaseSettings(hold=HOLD))


if __name__ == "__main__":
    vars(cli)["settings_from"] = with_short_hold
    cli.main()
