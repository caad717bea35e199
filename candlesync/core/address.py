"""Whose request it is: the client's address behind proxies, and under which key the limits count it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from re import ASCII
from re import compile as compile_pattern

UNIX = "unix"
"""Names, among addresses and networks, the peers that have no address: those of a UNIX socket."""
LOOPBACK = ("127.0.0.0/8", "::1/128", UNIX)
"""Whoever is on this machine."""

_HOPS = 32
"""Entries of ``X-Forwarded-For`` that are looked at; no chain of proxies is that long."""
_LONGEST = 64
"""Characters of an address; IPv6 with a zone, brackets and a port has fewer."""
_REMEMBERED = 4096
"""Peers and clients of which it is remembered what they are."""
_SHORT = 100
"""Characters of a header that is remembered with them."""
_WITH_PORT = compile_pattern(r"\[([^\[\]]*)\](?::\d{1,5})?|([0-9.]+):\d{1,5}", ASCII)
"""As some proxies write an address: ``[2001:db8::1]:443``, ``192.0.2.1:80``."""

Address = IPv4Address | IPv6Address


def read_address(text: str) -> Address | None:
    """An IP address, with or without a port; `None` when it is none. IPv4 within IPv6 is IPv4."""
    if len(text) > _LONGEST:
        return None
    match = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address(text if match is None else match[1] or match[2] or "")
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def key_of(address: Address | None) -> str:
    """Under what an address is counted: IPv6 by its /64, which is what one customer has at least."""
    if address is None:
        return UNIX
    if isinstance(address, IPv4Address):
        return str(address)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


class Networks:
    """Addresses, networks and ``unix``, given as texts."""

    def __init__(self, names: Iterable[str]) -> None:
        """Raises `ValueError` for a name that is none of them, or a network with bits set beyond its prefix."""
        names = list(names)
        self._unix = UNIX in names
        self._networks = [ip_network(name) for name in names if name != UNIX]

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def __contains__(self, address: Address | None) -> bool:
        """Whether an address is among them; `None` is that of a UNIX socket."""
        if address is None:
            return self._unix
        return any(address in network for network in self._networks)


def client_of(peer: Address | None, forwarded: str, trusted: Networks) -> Address | None:
    """The client's address: the right-most one of ``X-Forwarded-For`` that is not trusted, when the peer is.

    ``peer`` is who is connected to us, `None` over a UNIX socket; ``forwarded`` is the header's value, several joined
    by commas. Who is not trusted is the client, whatever it says. When all are trusted, the left-most is the client.
    What cannot be read says nothing: then the peer is the client.
    """
    if peer not in trusted or not forwarded:
        return peer
    client = peer
    for hop in reversed(forwarded.rsplit(",", _HOPS - 1)):
        address = read_address(hop.strip(" \t"))
        if address is None:
            return peer
        client = address
        if address not in trusted:
            break
    return client


class Callers:
    """Gives each connection and request the key under which it is limited; ``""`` for who is not limited.

    A peer is given as the server knows it: its address, or `None` when it has none.
    """

    def __init__(self, trusted: Networks, unlimited: Networks) -> None:
        self._trusted = trusted
        self._unlimited = unlimited
        # Asked at each request, mostly for the same ones.
        self.is_trusted = lru_cache(_REMEMBERED)(self._is_trusted)
        self.of_peer = lru_cache(_REMEMBERED)(self._of_peer)
        self._of_short = lru_cache(_REMEMBERED)(self._of_client)

    def of_connection(self, peer: str | None) -> str:
        """The key of a connection; none for a trusted proxy, which brings many clients."""
        return "" if self.is_trusted(peer) else self.of_peer(peer)

    def of_forwarded(self, peer: str | None, forwarded: str) -> str:
        """The key of a request that a peer sent, with its ``X-Forwarded-For``."""
        find = self._of_short if len(forwarded) <= _SHORT else self._of_client
        return find(peer, forwarded)

    def _is_trusted(self, peer: str | None) -> bool:
        """Whether a peer may say whom it speaks for."""
        return bool(self._trusted) and _peer(peer) in self._trusted

    def _of_peer(self, peer: str | None) -> str:
        """The key of a request of the peer's own."""
        return self._key(_peer(peer))

    def _of_client(self, peer: str | None, forwarded: str) -> str:
        return self._key(client_of(_peer(peer), forwarded, self._trusted))

    def _key(self, address: Address | None) -> str:
        return "" if address in self._unlimited else key_of(address)


def _peer(host: str | None) -> Address | None:
    return None if host is None else read_address(host)
