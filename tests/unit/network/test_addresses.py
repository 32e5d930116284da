import struct
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from phaul.network.addresses import interface_address, local_addresses, messages


def local(*addresses: str) -> set[str]:
    return {str(found) for found in local_addresses(ip_address(one) for one in addresses)}


def test_addresses_of_this_host() -> None:
    # 192.0.2.0/24 and 2001:db8::/32 are for documentation, 127.0.0.0/8 is every host's own.
    assert local("127.0.0.1", "127.254.3.2", "203.0.113.77") == {"127.0.0.1", "127.254.3.2"}
    assert local("2001:db8::77", "255.255.255.255", "224.0.0.1") == {"255.255.255.255", "224.0.0.1"}
    assert local() == set()


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def test_of_a_point_to_point_link_the_own_address() -> None:
    own, peer = ip_address("10.0.0.1"), ip_address("10.0.0.2")
    head = struct.pack("=BBBBI", 2, 32, 0, 0, 3)
    both = head + attribute(1, peer.packed) + attribute(2, own.packed)
    assert interface_address(both) == own
    assert interface_address(head + attribute(1, peer.packed)) == peer
    assert interface_address(head + attribute(3, b"eth0\0")) is None


@given(data=st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    for _kind, _sequence, payload in messages(data):
        interface_address(payload)
    interface_address(data)


def test_messages_in_a_packet() -> None:
    def message(kind: int, payload: bytes) -> bytes:
        head = struct.pack("=IHHII", 16 + len(payload), kind, 0, 7, 0)
        return head + payload + bytes(-len(payload) % 4)

    packet = message(20, b"abc") + message(3, b"") + message(20, b"cut")[:-4]
    assert list(messages(packet)) == [(20, 7, b"abc"), (3, 7, b"")]
