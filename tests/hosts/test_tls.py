"""Over TLS instead of ssh: two hosts meet by a token, and a process moves."""

import subprocess

from tests.hosts.command import LIMIT, Command
from tests.hosts.machine import Hosts
from tests.hosts.subject import StartSubject

KEYS = ("identity.key", "identity.pem", "hosts", "trusted", "keyring.lock", "token.lock")


def test_a_token_and_a_migration(hosts: Hosts, victim: StartSubject, phaul: Command) -> None:
    subject = victim("dirtier", "--size-mb", 64)
    counter = subject.whole(hosts.source).counter
    pids = subject.pids()
    for host in hosts.both:
        host.remember()
    with hosts.destination.popen(
        ["phaul", "serve", "--token", "--once", "--address", hosts.destination.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as server:
        try:
            assert server.stdout
            token = server.stdout.readline().strip()
            added = phaul("hosts", "add", "second", token)
            assert added.status == 0, added
            outcome = phaul("migrate", subject.pid, "phaul://second", "--json")
            assert outcome.status == 0, outcome
            assert outcome.json["process"] == "destination"
            _, said = server.communicate(timeout=LIMIT)
            assert server.returncode == 0, said
        finally:
            server.kill()
    assert subject.only_on(hosts.destination, hosts.source).counter > counter
    for host in hosts.both:
        kept = {name for name in KEYS if host.path(f"/var/lib/phaul/{name}").exists()}
        assert kept >= {"identity.key", "identity.pem"}
        host.run(["rm", "-rf", *(f"/var/lib/phaul/{name}" for name in KEYS)], check=True)
    assert hosts.destination.leftovers(but=pids) == []
    # CRIU's own traces on the source do not depend on the transport: test_command looks for them.
    assert [one for one in hosts.source.leftovers() if not one.startswith("nft ")] == []
