"""Preflight: one thing is wrong with the sockets of the process, or with their addresses there."""

import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.hosts.machine import Hosts
from tests.hosts.refusal import Refusal
from tests.hosts.subject import StartSubject

SERVICE = "10.88.1.1"
"""An address that is on both hosts, as one that moves is prepared on the other."""
PORT = 7009
_LISTEN = """
import socket, sys, time
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def service(hosts: Hosts) -> Iterator[str]:
    """The address SERVICE, on both hosts."""
    for host in hosts.both:
        host.run(["ip", "addr", "add", f"{SERVICE}/32", "dev", "lo"], check=True)
    yield SERVICE
    for host in hosts.both:
        host.run(["ip", "addr", "del", f"{SERVICE}/32", "dev", "lo"], check=True)


@pytest.fixture
def server(service: str) -> Iterator[socket.socket]:
    """Somebody who is connected to, at SERVICE and PORT."""
    with socket.create_server((service, PORT)) as listener:
        yield listener


def test_connection_without_the_option(
    victim: StartSubject, refused: Refusal, server: socket.socket
) -> None:
    subject = victim("holder", f"connect={SERVICE}:{PORT}")
    refused(subject, f"{SERVICE}:{PORT}", "--tcp", check="tcp")


def test_connection_kept_without_its_address(
    hosts: Hosts, victim: StartSubject, refused: Refusal
) -> None:
    with socket.create_server((hosts.source.address, PORT)):
        subject = victim("holder", f"connect={hosts.source.address}:{PORT}")
        refused(subject, hosts.source.address, check="tcp", options=("--tcp", "keep"))


@pytest.mark.parametrize("kind", ["listen", "udp"])
def test_bound_to_an_address_that_is_not_there(
    hosts: Hosts, victim: StartSubject, refused: Refusal, kind: str
) -> None:
    subject = victim("holder", f"{kind}={hosts.source.address}:8000")
    refused(subject, hosts.source.address, check="listen")


def test_listening_port_taken(hosts: Hosts, victim: StartSubject, refused: Refusal) -> None:
    subject = victim("holder", "listen=0.0.0.0:8000")
    words = ["python3", "-I", "-S", "-c", _LISTEN, "0.0.0.0", 8000]
    with hosts.destination.popen(words, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        refused(subject, "8000", check="listen")
        other.kill()


def test_unix_socket_to_outside(hosts: Hosts, victim: StartSubject, refused: Refusal) -> None:
    hosts.source.path("/srv/outside").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("/srv/outside/socket")
        listener.listen()
        subject = victim("holder", "unix=/srv/outside/socket")
        accepted, _ = listener.accept()
        with accepted:
            refused(subject, "/srv/outside/socket", check="unix")


def test_netlink_with_an_answer_not_read(victim: StartSubject, refused: Refusal) -> None:
    refused(victim("holder", "netlink"), "netlink", check="sockets")


@pytest.mark.parametrize("family", ["40,1,0", "2,1,262"], ids=["vsock", "mptcp"])
def test_socket_of_a_family_without_an_image(
    victim: StartSubject, refused: Refusal, family: str
) -> None:
    refused(victim("holder", f"family={family}"), check="sockets")


@pytest.mark.parametrize("how", ["keep", "close"])
def test_a_connection_is_no_obstacle_with_the_option(
    hosts: Hosts, victim: StartSubject, refused: Refusal, server: socket.socket, how: str
) -> None:
    subject = victim("holder", f"connect={SERVICE}:{PORT}")
    outcome = refused.phaul.migrate(subject, "--dry-run", "--tcp", how)
    assert outcome.status in (0, 1), outcome
    subject.only_on(hosts.source, hosts.destination)


def test_the_program_nft_is_not_needed(
    hosts: Hosts, victim: StartSubject, refused: Refusal, server: socket.socket
) -> None:
    """This CRIU has its library."""
    subject = victim("holder", f"connect={SERVICE}:{PORT}")
    with hosts.destination.without("/usr/sbin/nft"):
        outcome = refused.phaul.migrate(subject, "--dry-run", "--tcp", "keep")
    assert outcome.status in (0, 1), outcome
    subject.only_on(hosts.source, hosts.destination)


def test_an_address_that_is_there_is_no_obstacle(
    hosts: Hosts, victim: StartSubject, refused: Refusal, service: str
) -> None:
    subject = victim("holder", f"listen={service}:8000", f"udp={service}:8001")
    outcome = refused.phaul.migrate(subject, "--dry-run")
    assert outcome.status in (0, 1), outcome
    subject.only_on(hosts.source, hosts.destination)
