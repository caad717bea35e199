"""Who is there: what is remembered of what the nodes say, over a server that a test moves between two calls."""

from __future__ import annotations

from collections.abc import Callable

from candlesync.core.placement import Member
from candlesync.store import scripts
from candlesync.store.announcing import encode_member
from candlesync.store.codec import Keys
from candlesync.store.membership import Membership
from candlesync.store.scripts import Call

ME = Member("me")
OWNER = Member("other", owns=("BTCUSDT",))
NO_OWNER = Member("other")


class Server:
    """Two nodes are there: this one, and another that describes itself as ``stored``."""

    def __init__(self) -> None:
        self.stored = OWNER
        self.described = 0
        self.before_describing: Callable[[], None] = lambda: None

    async def call(self, call: Call) -> object:
        if call.script is scripts.ATTEND:
            return [b"", [b"1", encode_member(ME)[0].encode(), b"2", encode_member(self.stored)[0].encode()]]
        assert call.script is scripts.DESCRIBE
        self.before_describing()
        self.described += 1
        version, said = encode_member(self.stored)
        return [version.encode(), said]


async def test_what_has_not_changed_is_not_asked_for_again() -> None:
    server = Server()
    membership = Membership(Keys("test", 0), "1", 2000, server.call)
    for _ in range(3):
        assert (await membership.attend(ME))[0] == {"1": ME, "2": OWNER}
    assert server.described == 1


async def test_a_node_that_changes_while_it_is_asked_about_and_changes_back_is_taken_for_what_it_is() -> None:
    server = Server()
    membership = Membership(Keys("test", 0), "1", 2000, server.call)

    def change() -> None:
        server.stored = NO_OWNER

    server.before_describing = change
    assert (await membership.attend(ME))[0]["2"] == NO_OWNER
    server.before_describing = lambda: None
    server.stored = OWNER
    assert (await membership.attend(ME))[0]["2"] == OWNER
