import os
import socket
import struct
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.destination.checks import addresses
from phaul.destination.checks.addresses import overlap
from phaul.destination.checks.sockets import bound, owners, parse
from phaul.protocol.preflight import AddressNeed, Finding, Level
from tests.unit.destination.checks.conftest import FakeHost, only

LISTEN, ESTABLISHED, TIME_WAIT, UNCONNECTED = 10, 1, 6, 7
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid inode\n"


def need(address: str = "10.0.0.1", port: int = 80, **changes: Any) -> AddressNeed:  # noqa: ANN401
    values = {"protocol": "tcp", "listening": True, "pid": 4242, "address": address, "port": port}
    return AddressNeed(**{**values, **changes})


def look(host: FakeHost, *needs: AddressNeed) -> list[Finding]:
    return addresses.look(needs, host.context())


def have(host: FakeHost, *here: str) -> None:
    host.local |= {ip_address(one) for one in here}


def line(address: str, port: int, state: int, inode: int = 77) -> str:
    packed = ip_address(address).packed
    words = "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))
    return (
        f"   0: {words}:{port:04X} 00000000:0000 {state:02X} 00000000:00000000 00:00000000 "
        f"00000000     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
    )


def taken(host: FakeHost, table: str, address: str, port: int = 80, state: int = LISTEN) -> None:
    path = host.proc / "net" / table
    path.write_text((path.read_text() if path.exists() else HEAD) + line(address, port, state))


def test_there_and_free(host: FakeHost) -> None:
    have(host, "10.0.0.1", "fd00::1")
    taken(host, "tcp", "10.0.0.1", 81)
    found = look(host, need(), need("fd00::1"), need("0.0.0.0"), need("::"))
    assert only(found, Level.OK, "listen").what == "4 addresses are there and free"
    found = look(host, need(listening=False))
    assert only(found, Level.OK, "tcp").what == "1 address of connections is there"


def test_not_there(host: FakeHost) -> None:
    found = only(look(host, need()), Level.NO, "listen")
    assert found.what == "tcp 10.0.0.1:80 of PID 4242: no interface has that address there"
    assert "ip address add 10.0.0.1/32" in found.remedy
    found = only(look(host, need("fd00::1", listening=False)), Level.NO, "tcp")
    assert found.what.startswith("tcp [fd00::1]:80 of PID 4242: no interface")
    assert "fd00::1/128" in found.remedy
    assert "--tcp close" in found.remedy
    only(look(host, need(protocol="udp", listening=False)), Level.NO, "listen")
    only(look(host, need(protocol="raw", port=0)), Level.NO, "listen")


def test_where_any_address_may_be_bound(host: FakeHost) -> None:
    host.put_proc("sys/net/ipv4/ip_nonlocal_bind", "1\n")
    assert "nobody reaches it" in only(look(host, need()), Level.WARNING, "listen").what
    only(look(host, need("fd00::1")), Level.NO, "listen")
    only(look(host, need(listening=False)), Level.NO, "tcp")


def test_without_ipv6(host: FakeHost) -> None:
    (host.proc / "net/if_inet6").unlink()
    assert "IPv6 is off there" in only(look(host, need("::")), Level.NO, "listen").what


def test_multicast_needs_no_interface(host: FakeHost) -> None:
    only(look(host, need("239.1.2.3", protocol="udp")), Level.OK, "listen")


def test_ipv4_in_ipv6(host: FakeHost) -> None:
    have(host, "10.0.0.1")
    taken(host, "tcp6", "::ffff:10.0.0.1")
    only(look(host, need("::ffff:10.0.0.1", port=81)), Level.OK, "listen")
    only(look(host, need()), Level.NO, "listen")


@pytest.mark.parametrize("text", ["1:2", "1.2.3", ":::", "999.1.1.1", "ff"])
def test_what_is_no_address(host: FakeHost, text: str) -> None:
    assert only(look(host, need(text)), Level.NO, "listen").what == f"{text} is no address"


def test_a_port_that_is_listened_on(host: FakeHost) -> None:
    have(host, "10.0.0.1")
    taken(host, "tcp", "0.0.0.0")
    host.process(812, "nginx")
    (host.proc / "812/fd").mkdir()
    (host.proc / "812/fd/3").symlink_to("socket:[77]")
    found = only(look(host, need()), Level.NO, "listen")
    assert found.what == "tcp 10.0.0.1:80 of PID 4242 is taken there by nginx (PID 812)"
    only(look(host, need(listening=False)), Level.OK, "tcp")
    only(look(host, need(port=0)), Level.OK, "listen")


def test_a_port_of_someone_who_is_not_seen(host: FakeHost) -> None:
    taken(host, "tcp6", "::")
    assert "by another process" in only(look(host, need("::")), Level.NO, "listen").what


def test_a_port_that_a_connection_has(host: FakeHost) -> None:
    taken(host, "tcp", "10.0.0.9", state=ESTABLISHED)
    assert "has a connection" in only(look(host, need("0.0.0.0")), Level.WARNING, "listen").what
    taken(host, "tcp", "10.0.0.9")
    only(look(host, need("0.0.0.0")), Level.NO, "listen")


def test_connections_that_are_over_keep_nobody_out(host: FakeHost) -> None:
    taken(host, "tcp", "10.0.0.9", state=TIME_WAIT)
    only(look(host, need("0.0.0.0")), Level.OK, "listen")


def test_udp(host: FakeHost) -> None:
    taken(host, "udp", "0.0.0.0", state=UNCONNECTED)
    only(look(host, need("0.0.0.0")), Level.OK, "listen")
    found = only(look(host, need("0.0.0.0", protocol="udp", listening=False)), Level.NO, "listen")
    assert "is bound there by" in found.what


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "0.0.0.0", True),
        ("10.0.0.1", "::", True),
        ("0.0.0.0", "::", True),
        ("0.0.0.0", "fd00::1", False),
        ("fd00::1", "fd00::1", True),
        ("fd00::1", "::", True),
    ],
)
def test_which_addresses_meet(one: str, other: str, meet: bool) -> None:
    assert overlap(ip_address(one), ip_address(other)) is meet
    assert overlap(ip_address(other), ip_address(one)) is meet


@given(text=st.text(max_size=120))
def test_any_line(text: str) -> None:
    parse(text)
    parse(f"0: {text}:0050 0:0 0A 0 0 0 0 0 77")


def test_a_listener_of_this_host_is_seen_with_its_owner() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        (found,) = bound(Path("/proc"), "tcp", {port})
        assert (str(found.address), found.port, found.listens) == ("127.0.0.1", port, True)
        names = owners(Path("/proc"), {found.inode})
    assert names[found.inode].endswith(f"(PID {os.getpid()})")


def test_a_listener_on_ipv6_of_this_host() -> None:
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        (found,) = bound(Path("/proc"), "tcp", {port})
    assert str(found.address) == "::1"
