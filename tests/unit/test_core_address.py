"""What HYDRASMS_CORE may say."""

import pytest

from hydrasms_app.core_address import parse_core_address
from hydrasms_app.problems import Problem


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051"),
        ("localhost:1", "localhost:1"),
        ("[::1]:65535", "[::1]:65535"),
        ("unix:run/core.sock", "unix:run/core.sock"),
        ("unix:/run/core.sock", "unix:/run/core.sock"),
        ("unix:///run/core.sock", "unix:/run/core.sock"),
        ("unix:/run/a.sock,unix:///run/b.sock", "unix:/run/a.sock,/run/b.sock"),
        ("127.0.0.1:1,localhost:2, 127.0.0.9:3", "ipv4:127.0.0.1:1,127.0.0.1:2,127.0.0.9:3"),
        ("[::1]:1,[::1]:2", "ipv6:[::1]:1,[::1]:2"),
        ("dns:///localhost:1", "dns:///localhost:1"),
    ],
)
def test_an_address_on_this_host_is_taken(text, target):
    address = parse_core_address(text)
    assert (address.text, address.target, address.on_this_host) == (text, target, True)
    address.require_secrecy()


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1:1",
        "core.example.com:1",
        "127.0.0.1:1,10.0.0.1:1",
        "dns:///cores.example.com:1",
        "[2001:db8::1]:1",
    ],
)
def test_an_address_elsewhere_needs_secrecy(text):
    address = parse_core_address(text)
    assert not address.on_this_host
    with pytest.raises(Problem, match="in the clear"):
        address.require_secrecy()


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "localhost",
        ":1",
        "localhost:0",
        "localhost:65536",
        "localhost:x",
        "localhost:١",
        "localhost:1,",
        "::1:50051",
        "[localhost]:1",
        "unix:",
        "unix://host/core.sock",
        "unix:/a,127.0.0.1:1",
        "dns:///localhost:1,dns:///localhost:2",
        "dns://8.8.8.8/localhost:1",
        "http://localhost:1",
    ],
)
def test_anything_else_is_refused_with_the_forms_that_there_are(text):
    with pytest.raises(Problem, match=r"HYDRASMS_CORE must be HOST:PORT, unix:PATH, dns:///NAME:PORT"):
        parse_core_address(text)


def test_a_name_is_no_part_of_a_list():
    with pytest.raises(Problem, match="may list addresses, not names"):
        parse_core_address("core-1:1,core-2:1")


def test_a_list_is_of_one_family():
    with pytest.raises(Problem, match="not both"):
        parse_core_address("127.0.0.1:1,[::1]:1")
