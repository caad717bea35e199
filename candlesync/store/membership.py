"""Who is there: what the nodes say of themselves, of which only what has changed is fetched.

With 500 symbols a node's description has some 10 KB, and each of eight nodes asks for all of them twice a second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from candlesync.core.placement import Member
from candlesync.store import scripts
from candlesync.store.announcing import ASSEMBLED, decode_member, encode_member
from candlesync.store.codec import Keys
from candlesync.store.reasons import unexpected
from candlesync.store.scripts import Call

_log = structlog.get_logger(__name__)


class Membership:
    """One node among the others."""

    def __init__(self, keys: Keys, node: str, lease: int, call: Callable[[Call], Awaitable[object]]) -> None:
        """``lease`` in milliseconds; ``call`` runs a script and raises `StoreUnavailable`."""
        self._keys = keys
        self._node = node
        self._lease = lease
        self._call = call
        self._known: dict[str, tuple[str, Member | None]] = {}
        """What each node said last, with its version; `None` for what cannot be read."""

    async def attend(self, member: Member) -> tuple[dict[str, Member], bytes]:
        """Every node that is there; and why it could not be announced that this one is, if so."""
        version, said = encode_member(member)
        arguments = (self._node, self._lease, version, said, self._keys.assembly, ASSEMBLED)
        match await self._call(Call(scripts.ATTEND, self._keys.members, arguments)):
            case [bytes(untold), list(parts)] if all(isinstance(part, bytes) for part in parts):
                words = [part.decode(errors="replace") for part in parts]
            case reply:
                raise unexpected(reply)
        versions = dict(zip(words[::2], words[1::2], strict=True))
        self._known = {node: known for node, known in self._known.items() if known[0] == versions.get(node)}
        self._known[self._node] = (version, member)
        await self._ask_for({node: version for node, version in versions.items() if node not in self._known})
        known = {node: self._known[node][1] for node in versions if node in self._known}
        return {node: one for node, one in known.items() if one is not None}, untold

    async def leave(self) -> bytes:
        """This node is not there any more; why that could not be announced, if so."""
        arguments = (self._node, self._keys.assembly, ASSEMBLED)
        reply = await self._call(Call(scripts.LEAVE, self._keys.members, arguments))
        if not isinstance(reply, bytes):
            raise unexpected(reply)
        return reply

    async def look(self) -> dict[str, Member]:
        """Every node that is there, without being one of them."""
        reply = await self._call(Call(scripts.MEMBERS, (self._keys.members[0], self._keys.members[2])))
        if not isinstance(reply, list) or not all(isinstance(part, bytes) for part in reply):
            raise unexpected(reply)
        nodes = [node.decode(errors="replace") for node in reply[::2]]
        members = {node: _read(node, said) for node, said in zip(nodes, reply[1::2], strict=True)}
        return {node: member for node, member in members.items() if member is not None}

    async def _ask_for(self, versions: dict[str, str]) -> None:
        if not versions:
            return
        reply = await self._call(Call(scripts.DESCRIBE, self._keys.members[1:], tuple(versions)))
        if not isinstance(reply, list) or len(reply) != 2 * len(versions):
            raise unexpected(reply)
        for node, version, said in zip(versions, reply[::2], reply[1::2], strict=True):
            # `None` has just left. What was said may be newer than the version that was told: it is kept by its own,
            # or a node that says again what it said before would be taken for what it was in between, for ever.
            if isinstance(said, bytes) and isinstance(version, bytes):
                self._known[node] = (version.decode(errors="replace"), _read(node, said))


def _read(node: str, said: bytes) -> Member | None:
    try:
        return decode_member(said)
    except ValueError as error:
        # Once for each thing that it says: then it is known.
        _log.warning("a node says what cannot be read, and is left out", node=node, reason=str(error))
        return None
