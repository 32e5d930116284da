"""A third host behind host1, and the address of a service that moves, with its connections.

client 10.88.2.2 --- host1 --- host2        10.88.1.1 is on host1, then routed to host2
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.hosts.machine import Hosts
from tests.hosts.subject import FIRST_PID, VICTIMS
from tests.victims.harness import Victim, VictimError, start

__all__ = ["LISTEN", "Service", "cable"]

_SERVICE: Final = "10.88.1.1"
LISTEN: Final = f"{_SERVICE}:7000"
_CABLE: Final = f"""
ip netns add client
ip link add client0 type veth peer name client1 netns client
ip addr add 10.88.2.1/24 dev client0
ip link set client0 up
ip -n client link set lo up
ip -n client addr add 10.88.2.2/24 dev client1
ip -n client link set client1 up
ip -n client route add default via 10.88.2.1
ip addr add {_SERVICE}/32 dev lo
echo 1 >/proc/sys/net/ipv4/ip_forward
"""
_MOVE: Final = f"ip addr del {_SERVICE}/32 dev lo; ip route add {_SERVICE}/32 via 10.88.0.2"
_BACK: Final = f"ip route del {_SERVICE}/32 via 10.88.0.2; ip addr add {_SERVICE}/32 dev lo"
_CLIENT_PID: Final = FIRST_PID + 20_000
_COUNTS_S: Final = 20.0
"""TCP tries again ever more seldom while nobody answers."""


def cable(hosts: Hosts) -> None:
    """Make the third host, and the address on the other two."""
    hosts.source.run(["sh", "-ec", _CABLE], check=True)
    hosts.destination.run(["ip", "addr", "add", f"{_SERVICE}/32", "dev", "lo"], check=True)


class Service:
    """The client of the service, and where the service's address is."""

    def __init__(self, hosts: Hosts, client: Victim) -> None:
        self._hosts = hosts
        self._client = client
        self.pid = client.pid
        self._moved = False

    @classmethod
    @contextmanager
    def begin(cls, hosts: Hosts, folder: Path) -> Iterator["Service"]:
        """Start a client of the server that listens already; end it at the end."""
        report = folder / "client.json"
        words = [VICTIMS / "echo_client", "--connect", LISTEN, "--report", report]
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(_CLIENT_PID))
        client = Victim(
            start(["nsenter", "--net=/run/netns/client", *(str(word) for word in words)]), report
        )
        service = cls(hosts, client)
        try:
            service.require_counting()
            yield service
        finally:
            if client.alive():
                client.kill(9)
            if service._moved:
                hosts.source.run(["sh", "-c", _BACK], check=True)

    def move(self) -> None:
        """The service is on host2 from now on: its address, too."""
        if not self._moved:
            self._moved = True
            self._hosts.source.run(["sh", "-c", _MOVE], check=True)

    def require_counting(self) -> None:
        """Raise VictimError unless records come back on the connections that it has."""
        before = self._client.check()
        until = time.monotonic() + _COUNTS_S
        while (report := self._client.check()).counter <= before.counter + 2:
            if time.monotonic() > until:
                raise VictimError("the client gets no answer")
            time.sleep(0.02)
        if not report.ok or report.data["open_connections"] != 1:
            raise VictimError(f"the client is not served: {report.problems}")
