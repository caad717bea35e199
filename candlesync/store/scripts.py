"""The scripts that run on the server, and the calls of them."""

from __future__ import annotations

from hashlib import sha1
from pathlib import Path

import msgspec

Argument = str | bytes | int


class Script(msgspec.Struct, frozen=True):
    """A script: its text, and the name by which a server knows it once it has seen the text."""

    text: str
    sha: str


class Call(msgspec.Struct, frozen=True):
    """One call of a script. All of its keys are in one slot of a cluster."""

    script: Script
    keys: tuple[str, ...]
    arguments: tuple[Argument, ...] = ()

    @property
    def size(self) -> int:
        """About how many bytes it sends."""
        parts = (*self.keys[3:], *self.arguments)  # the first keys are within the hundred
        return 100 + sum(len(part) for part in parts if not isinstance(part, int))


def _load(name: str) -> Script:
    text = Path(__file__).with_name(name).read_text("utf-8")
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


ATTEND = _load("attend.lua")
CLAIM = _load("claim.lua")
COMMIT = _load("commit.lua")
DEPARTURES_KEEP = _load("departures_keep.lua")
DEPARTURES_TAKE = _load("departures_take.lua")
DESCRIBE = _load("describe.lua")
LEAVE = _load("leave.lua")
MEMBERS = _load("members.lua")
READ = _load("read.lua")
RELEASE = _load("release.lua")
RENEW = _load("renew.lua")
VERIFY = _load("verify.lua")
