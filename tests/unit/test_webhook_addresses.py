"""What a URL names, which addresses are refused, and what an operator may allow."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrasms_base.networks import networks
from hydrasms_core.webhooks.addresses import (
    REFUSED,
    Guard,
    RefusedTarget,
    meant,
    refused_range,
    target_of,
)
from hydrasms_core.webhooks.failures import retry_after_s

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "99.255.255.255",
    "100.128.0.0",
    "172.32.0.1",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "2a00:1450::1",
    "64:ff9b::8.8.8.8",
    "::ffff:8.8.8.8",
]


@pytest.mark.parametrize("each", REFUSED, ids=lambda each: str(each.network))
def test_a_refused_range_is_refused_from_its_first_address_to_its_last(each):
    for address in (each.network[0], each.network[-1]):
        assert refused_range(address) is not None
        with pytest.raises(RefusedTarget):
            Guard().require(str(address), 443)
    assert each.what
    assert each.source


def test_all_of_ipv6_but_global_unicast_is_refused():
    for first in range(0x0000, 0x10000, 0x100):
        address = ipaddress.IPv6Address(first << 112 | 0x1234_0000_0000)
        if not 0x2000 <= first < 0x4000:
            assert refused_range(address) is not None, address


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_permitted(address):
    Guard().require(address, 443)
    assert refused_range(ipaddress.ip_address(address)) is None


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_within_ipv6_is_judged_as_itself(address):
    expected = refused_range(address)
    assert refused_range(ipaddress.IPv6Address(f"::ffff:{address}")) == expected
    assert refused_range(ipaddress.IPv6Address(f"64:ff9b::{address}")) == expected


@given(st.ip_addresses())
def test_what_the_standard_library_calls_private_is_never_permitted(address):
    if meant(address) == address and (address.is_private or address.is_multicast):
        assert refused_range(address) is not None


# ---- URLs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://example.com/hook", "example.com", 443),
        ("http://EXAMPLE.com", "example.com", 80),
        ("HTTPS://example.com.:8443/a?b=c#d", "example.com.", 8443),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443),
        ("https://a_b.example.com/", "a_b.example.com", 443),
        ("http://localhost:9000/", "localhost", 9000),
        ("http://8.8.8.8:8080/", "8.8.8.8", 8080),
        ("http://[2606:4700:4700:0::1111]/", "2606:4700:4700::1111", 80),
        ("https://4chan.example.com/%20?x=%2F+y", "4chan.example.com", 443),
    ],
)
def test_a_plain_url_names_its_host_and_port(url, host, port):
    assert target_of(url)[1:3] == (host, port)


def test_what_follows_the_host_is_left_as_it_is():
    assert str(target_of("https://example.com/a%2Fb/%7e/..;c?x=%2F+y&x=1%26#d").url) == (
        "https://example.com/a%2Fb/%7e/..;c?x=%2F+y&x=1%26"
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "https://",
        "https:///hook",
        "https://exa mple.com/",
        "https://example.com/a b",
        "https://example.com/\n",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://büch.example/",
        "https://example..com/",
        "https://-example.com/",
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://example.com:25/",
        "https://example.com:443x/",
        "https://[::1/",
        "https://[1.2.3.4]/",
        "https://1.2.3/",
        "https://1.2.3.4.5/",
        "https://01.2.3.4/",
        "https://a.0x1/",
        "https://example.com/" + "x" * 2_000,
    ],
)
def test_any_other_url_is_refused_in_words(url):
    with pytest.raises(RefusedTarget) as refused:
        target_of(url)
    assert 20 < len(str(refused.value)) <= 200


@given(
    st.text(max_size=60), st.sampled_from(["http://", "https://", "http://[", "", "http://1", "http://0x"])
)
def test_no_text_does_more_than_be_refused(text, start):
    try:
        target = target_of(start + text)
    except RefusedTarget:
        return
    assert target.url.raw_host is not None
    assert target.url.port == target.port


# ---- what the operator allows --------------------------------------------------------------------------------


def test_an_allowed_network_is_permitted_and_its_neighbours_are_not():
    guard = Guard(networks("10.1.0.0/16, 127.0.0.1,fd00:1::/32"))
    for address in ("10.1.2.3", "127.0.0.1", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd00:1::1"):
        guard.require(address, 80)
    for address in ("10.2.0.1", "127.0.0.2", "fd00:2::1", "::1"):
        with pytest.raises(RefusedTarget):
            guard.require(address, 80)


def test_some_addresses_are_never_permitted():
    guard = Guard(networks("0.0.0.0/0, ::/0"))
    guard.require("10.0.0.1", 80)
    for address in ("0.0.0.0", "::", "224.0.0.1", "ff02::1", "fe80::1%eth0", "127.1", "", "example.com"):  # noqa: S104
        with pytest.raises(RefusedTarget):
            guard.require(address, 80)


def test_our_own_ports_are_refused_on_this_host_alone():
    guard = Guard(networks("0.0.0.0/0, ::/0"), {8080})
    for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.1"):
        with pytest.raises(RefusedTarget):
            guard.require(address, 8080)
        guard.require(address, 8081)
    guard.require("10.0.0.1", 8080)


def test_a_port_that_becomes_ours_is_refused_though_it_was_permitted_before():
    own_ports: set[int] = set()
    guard = Guard(networks("127.0.0.0/8"), own_ports)
    guard.require("127.0.0.1", 8080)
    own_ports.add(8080)
    with pytest.raises(RefusedTarget):
        guard.require("127.0.0.1", 8080)


def test_one_bad_address_of_a_name_refuses_it():
    Guard().require_all(["8.8.8.8", "1.1.1.1"], 80)
    for addresses in (["8.8.8.8", "10.0.0.1"], ["::1"], []):
        with pytest.raises(RefusedTarget):
            Guard().require_all(addresses, 80)


def test_a_name_that_leads_inside_is_told_from_one_that_leads_nowhere_by_nobody():
    def words(addresses):
        with pytest.raises(RefusedTarget) as refused:
            Guard().require_all(addresses, 80)
        return str(refused.value)

    assert words([]) == words(["10.0.0.1"]) == words(["127.0.0.1"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.0.0.1/8", "'10.0.0.1/8' is no network: did you mean 10.0.0.0/8?"),
        (
            "10.0.0.0/8, intranet",
            "'intranet' is no network; write 10.1.0.0/16, fd00:1::/32 or a single address",
        ),
    ],
)
def test_a_network_that_is_none_is_named(text, said):
    with pytest.raises(ValueError) as error:
        networks(text)
    assert str(error.value) == said


# ---- Retry-After ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        ("0", 0.0),
        (" 5 ", 5.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("9" * 40, None),
        ("", None),
        ("Thu, 28 May 2026 20:27:50 GMT", 70.0),
        ("Thu, 28 May 2020 20:27:50 GMT", 0.0),
        ("Thu, 28 May 99999 20:27:50 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after_s(value, 1_780_000_000_000) == seconds
