"""A server moves with its connections, and its address after it; a third host is the client."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.command import Command
from tests.hosts.machine import Hosts
from tests.hosts.subject import VICTIMS, StartSubject, Subject
from tests.victims.harness import Victim, start

SERVICE = "10.88.1.1"
PORT = 7000
# The client's host is behind host1, which routes: to itself at first, then to host2.
_CLIENT = f"""
ip netns add client
ip link add client0 type veth peer name client1 netns client
ip addr add 10.88.2.1/24 dev client0
ip link set client0 up
ip -n client link set lo up
ip -n client addr add 10.88.2.2/24 dev client1
ip -n client link set client1 up
ip -n client route add default via 10.88.2.1
ip addr add {SERVICE}/32 dev lo
echo 1 >/proc/sys/net/ipv4/ip_forward
"""
_MOVE_ADDRESS = f"ip addr del {SERVICE}/32 dev lo && ip route add {SERVICE}/32 via 10.88.0.2"


@pytest.fixture
def network(hosts: Hosts) -> Iterator[None]:
    """A third host, and an address of the service, on host1 and prepared on host2."""
    hosts.source.run(["sh", "-ec", _CLIENT], check=True)
    hosts.destination.run(["ip", "addr", "add", f"{SERVICE}/32", "dev", "lo"], check=True)
    yield
    hosts.source.run(["ip", "link", "del", "client0"], check=True)
    hosts.source.run(["ip", "netns", "del", "client"], check=True)
    hosts.source.run(["ip", "route", "flush", f"{SERVICE}/32"])
    for host in hosts.both:
        host.run(["ip", "addr", "del", f"{SERVICE}/32", "dev", "lo"])


@pytest.fixture
def server(victim: StartSubject, network: None) -> Subject:
    """The server that is going to move."""
    return victim("echo_server", "--listen", f"{SERVICE}:{PORT}")


@pytest.fixture
def client(server: Subject, shared: Path) -> Iterator[Victim]:
    """A client that never connects again, and checks each byte."""
    report = shared / "client.json"
    words = [VICTIMS / "echo_client", "--connect", f"{SERVICE}:{PORT}", "--report", report]
    Path("/proc/sys/kernel/ns_last_pid").write_text("30000")
    pid = start(["nsenter", "--net=/run/netns/client", *(str(word) for word in words)])
    client = Victim(pid, report)
    yield client
    if client.alive():
        client.terminate()


def counts_on(client: Victim) -> None:
    """Records come back, on the connections that it had."""
    before = client.check()
    assert before.ok, before.problems
    while (report := client.check()).counter <= before.counter:
        assert report.data["open_connections"] > 0
    assert report.ok, report.problems


def test_connections_go_with_the_server(
    hosts: Hosts, phaul: Command, server: Subject, client: Victim
) -> None:
    counts_on(client)
    running = phaul.follow("migrate", server.pid, "root@host2", "--tcp", "keep")
    assert running.until("source-gone"), running.end()
    hosts.source.run(["sh", "-ec", _MOVE_ADDRESS], check=True)
    outcome = running.end()
    assert outcome.status == 0, outcome
    counts_on(client)
    assert server.only_on(hosts.destination, hosts.source).data["open_connections"] == 1


def test_connections_stand_when_it_is_refused(
    hosts: Hosts, phaul: Command, server: Subject, client: Victim
) -> None:
    """Refused for want of an option: the client notices nothing."""
    counts_on(client)
    outcome = phaul.migrate(server)
    assert outcome.status == 3, outcome
    counts_on(client)
    server.only_on(hosts.source, hosts.destination)


def test_connections_stand_after_a_rollback(
    hosts: Hosts, phaul: Command, server: Subject, client: Victim
) -> None:
    """The address is taken away over there after preflight: the restore fails, the source goes on.

    The locks of CRIU are gone from both hosts, or the client would wait for ever.
    """
    counts_on(client)
    for host in hosts.both:
        host.remember()
    running = phaul.follow("migrate", server.pid, "root@host2", "--tcp", "keep")
    assert running.until("started"), running.end()
    hosts.destination.run(["ip", "addr", "del", f"{SERVICE}/32", "dev", "lo"], check=True)
    outcome = running.end()
    assert outcome.status == 7, outcome
    outcome.says(f"still running here, PID {server.pid}")
    counts_on(client)
    server.only_on(hosts.source, hosts.destination)
    assert hosts.destination.leftovers() == []
    assert hosts.source.leftovers() == []
