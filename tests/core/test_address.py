"""The client's address behind proxies."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.core.address import LOOPBACK, Address, Callers, Networks, client_of, key_of, read_address

PROXIES = Networks(["10.0.0.0/8", "2001:db8:ffff::/48", "unix"])
PROXY = IPv4Address("10.0.0.1")
CLIENT = IPv4Address("192.0.2.7")


def is_its_own(address: Address) -> bool:
    return not (isinstance(address, IPv6Address) and address.ipv4_mapped)


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).filter(is_its_own)
TRUSTED = st.sampled_from([ip_address("10.0.0.1"), ip_address("10.255.0.9"), ip_address("2001:db8:ffff::1")])
UNTRUSTED = ADDRESSES.filter(lambda address: address not in PROXIES)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:443", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[::ffff:192.0.2.7]:80", "192.0.2.7"),
    ],
)
def test_an_address_is_read_however_a_proxy_writes_it(text: str, address: str) -> None:
    assert read_address(text) == ip_address(address)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "unknown",
            "_hidden",
            "192.0.2",
            "192.0.2.7.8",
            "192.0.2.07",
            "192.0.2.7:",
            "192.0.2.7:x",
            "192.0.2.7:\u0663",
            "[]",
            "[",
        ),
        *("[192.0.2", "2001:db8::1]:80", "1" * 10_000, "192.0.2.7\n", "\u0661.2.3.4", "for=192.0.2.7", "2130706433"),
    ],
)
def test_what_is_no_address_is_none(text: str) -> None:
    assert read_address(text) is None


def test_as_long_as_an_address_may_be() -> None:
    zoned = "fe80::1%" + "z" * 56
    assert read_address(zoned) is not None
    assert read_address(zoned + "z") is None


def test_one_customer_of_ipv6_has_one_key() -> None:
    assert key_of(IPv6Address("2001:db8::1")) == key_of(IPv6Address("2001:db8::ffff:ffff:ffff:ffff")) == "2001:db8::/64"
    assert key_of(IPv6Address("2001:db8:0:1::1")) != key_of(IPv6Address("2001:db8::1"))
    assert key_of(CLIENT) == "192.0.2.7"
    assert key_of(None) == "unix"


@given(ADDRESSES)
def test_a_zone_is_no_other_address(address: Address) -> None:
    if isinstance(address, IPv6Address):
        assert key_of(read_address(f"{address}%eth0")) == key_of(address)


# --- X-Forwarded-For


@given(UNTRUSTED, st.text(max_size=200))
def test_who_is_not_trusted_is_the_client_whatever_it_says(peer: Address, forwarded: str) -> None:
    assert client_of(peer, forwarded, PROXIES) == peer


@given(st.one_of(TRUSTED, st.none()), UNTRUSTED, st.lists(TRUSTED, max_size=5), st.text(max_size=200))
def test_what_stands_left_of_the_client_does_not_matter(
    peer: Address | None, client: Address, proxies: list[Address], said: str
) -> None:
    seen = ", ".join(map(str, [client, *proxies]))
    assert client_of(peer, seen, PROXIES) == client
    assert client_of(peer, f"{said},{seen}", PROXIES) == client


@given(TRUSTED, st.text(max_size=300))
def test_any_text_gives_the_peer_or_what_stands_in_it(peer: Address, forwarded: str) -> None:
    client = client_of(peer, forwarded, PROXIES)
    named = {read_address(hop.strip(" \t")) for hop in forwarded.split(",")} - {None}
    assert client == peer or client in named


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("", PROXY),
        ("192.0.2.7", CLIENT),
        (" 192.0.2.7\t", CLIENT),
        ("192.0.2.7:5000", CLIENT),
        ("1.1.1.1, 192.0.2.7, 10.0.0.2", CLIENT),
        ("10.0.0.3, 10.0.0.2", IPv4Address("10.0.0.3")),
        ("nonsense, 192.0.2.7", CLIENT),
        ("192.0.2.7, nonsense", PROXY),
        ("192.0.2.7,", PROXY),
        (",", PROXY),
        ("192.0.2.7 1.1.1.1", PROXY),
        ("nonsense," * 40 + "192.0.2.7", CLIENT),
        ("\u00a0192.0.2.7", PROXY),
        ("X192.0.2.7", PROXY),
        ("1.1.1.1," + "10.0.0.2," * 40 + "10.0.0.2", PROXY),
    ],
)
def test_who_the_client_of_a_trusted_proxy_is(forwarded: str, client: Address) -> None:
    assert client_of(PROXY, forwarded, PROXIES) == client


def test_a_chain_of_proxies_is_followed_so_far_and_no_farther() -> None:
    assert client_of(PROXY, "192.0.2.7" + ",10.0.0.2" * 31, PROXIES) == CLIENT
    assert client_of(PROXY, "192.0.2.7" + ",10.0.0.2" * 32, PROXIES) == PROXY


def test_a_proxy_behind_a_unix_socket() -> None:
    assert client_of(None, "192.0.2.7", PROXIES) == CLIENT
    assert client_of(None, "192.0.2.7", Networks(["10.0.0.0/8"])) is None


# --- networks, and keys


@pytest.mark.parametrize("name", ["nginx", "", "10.0.0.1/8", "10.0.0.0/33", "::1/129", "10.0.0.0/8 ", "*"])
def test_what_is_no_network_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Networks([name])


def test_networks() -> None:
    assert not Networks([])
    assert PROXIES
    assert Networks(["unix"])
    assert None in PROXIES
    assert None not in Networks(["0.0.0.0/0", "::/0"])
    assert CLIENT not in PROXIES


def test_whose_connections_and_requests_are_counted_under_what() -> None:
    callers = Callers(Networks(["10.0.0.0/8"]), Networks(LOOPBACK))
    assert callers.of_connection("192.0.2.7") == callers.of_peer("192.0.2.7") == "192.0.2.7"
    assert callers.of_connection("10.0.0.1") == "", "many clients come over it"
    assert callers.of_forwarded("10.0.0.1", "192.0.2.7") == "192.0.2.7"
    assert callers.of_forwarded("10.0.0.1", "") == "10.0.0.1"
    assert callers.of_forwarded("10.0.0.1", "127.0.0.1") == ""
    for local in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", None):
        assert callers.of_connection(local) == callers.of_peer(local) == ""
    assert callers.is_trusted("10.9.9.9")
    assert callers.is_trusted("::ffff:10.9.9.9")
    assert not callers.is_trusted("192.0.2.7")
    assert not callers.is_trusted(None)
    assert not Callers(Networks([]), Networks(LOOPBACK)).is_trusted("127.0.0.1")


def test_so_much_is_remembered_and_no_long_header() -> None:
    callers = Callers(Networks(["10.0.0.0/8"]), Networks(LOOPBACK))
    for remembered in (callers.is_trusted, callers.of_peer, callers._of_short):
        assert remembered.cache_info().maxsize == 4096
    for spaces, known in ((91, 1), (92, 1)):
        assert callers.of_forwarded("10.0.0.1", " " * spaces + "192.0.2.7") == "192.0.2.7"
        assert callers._of_short.cache_info().currsize == known, "a hundred characters are short, and no more"
