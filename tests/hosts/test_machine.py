"""The test bed itself: two hosts apart, and a CRIU that moves processes between them."""

from pathlib import Path

import pytest

from tests.hosts.machine import Hosts
from tests.hosts.subject import StartSubject

DUMP = ("criu", "dump", "-o", "dump.log", "--network-lock", "nftables")
RESTORE = ("criu", "restore", "-d", "-o", "restore.log", "--network-lock", "nftables")


def copy(hosts: Hosts, folder: str) -> None:
    """Copy a directory to host2 by ssh."""
    there = f"mkdir -p {folder} && tar -C {folder} -x"
    words = f"tar -C {folder} -c . | ssh root@host2 '{there}'"
    hosts.source.run(["sh", "-ec", words], check=True)


def test_ssh_asks_nothing_and_lands_on_the_other_host(hosts: Hosts) -> None:
    words = "hostname; echo $$; cat /proc/1/comm; command -v phaul"
    said = hosts.source.run(["ssh", "-o", "BatchMode=yes", "root@host2", words], check=True).stdout
    name, pid, _, phaul = said.splitlines()
    assert (name, phaul) == ("host2", "/usr/local/bin/phaul")
    assert int(pid) < 10_000
    assert hosts.source.run(["hostname"], check=True).stdout != "host2\n"


def test_phaul_is_compiled_beforehand(hosts: Hosts) -> None:
    for host in hosts.both:
        said = host.run(["phaul", "--version"], env={"PYTHONVERBOSE": "1"}, check=True)
        assert said.stdout.startswith("phaul ")
        fresh = [line for line in said.stderr.splitlines() if "code object from '/phaul" in line]
        assert fresh == []


def test_each_host_has_its_own_places(hosts: Hosts) -> None:
    for folder in ("/tmp", "/run", "/root", "/srv", "/var/lib", "/dev/shm"):
        hosts.source.write(f"{folder}/only-here", "x")
        assert not hosts.destination.path(f"{folder}/only-here").exists()
    Path("/var/tmp/on-both").write_text("x")
    assert hosts.destination.path("/var/tmp/on-both").read_text() == "x"
    Path("/var/tmp/on-both").unlink()


def test_what_is_left_is_seen(hosts: Hosts) -> None:
    there = hosts.destination
    there.remember()
    assert there.leftovers(timeout=0) == []
    there.write("/var/lib/phaul/agent/1/pages-1.img", "x")
    there.run(["mount", "-t", "tmpfs", "left", "/mnt"], check=True)
    there.run(["nft", "add", "table", "inet", "left"], check=True)
    there.take_pid(9999)
    left = there.leftovers(timeout=0)
    assert [line for line in left if line.startswith("process 9999 ")]
    assert "file /var/lib/phaul/agent/1/pages-1.img" in left
    assert "mount /mnt" in left
    assert "nft table inet left" in left


def test_a_file_is_replaced_on_one_host(hosts: Hosts) -> None:
    with hosts.destination.replaced("/usr/bin/true", "#!/bin/sh\nexit 7\n", 0o755):
        assert hosts.destination.run(["true"]).returncode == 7
        assert hosts.source.run(["true"]).returncode == 0
    assert hosts.destination.run(["true"]).returncode == 0


@pytest.mark.parametrize("name", ["piggie", "dirtier", "tree", "pyheap.py"])
def test_criu_moves_a_process_by_hand(
    hosts: Hosts, victim: StartSubject, shared: Path, name: str
) -> None:
    options = {"piggie": ("--file", shared / "counted"), "tree": ("--dir", shared)}
    subject = victim(name, *options.get(name, ()))
    subject.whole(hosts.source)
    folder = "/srv/images"
    hosts.source.path(folder).mkdir()
    hosts.source.run([*DUMP, "-t", subject.pid, "-D", folder], check=True)
    copy(hosts, folder)
    hosts.destination.run([*RESTORE, "-D", folder], check=True)
    subject.only_on(hosts.destination, hosts.source)
