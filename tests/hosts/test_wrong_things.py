"""Preflight: one thing is wrong on the destination, or unfit on the source, and is found.

Each test has a victim that could be moved but for that one thing.
"""

import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.machine import AGENT_DIRECTORY, Hosts
from tests.hosts.refusal import INCOMPATIBLE, Refusal
from tests.hosts.subject import VICTIMS, StartSubject

PROGRAM = Path("/srv/bin/piggie")
LIBRARY = "/srv/lib/library.so"
DATA = "/srv/data/file"
TEXT = "what is read\n"
BUILD_ID = struct.pack("<III", 4, 20, 3) + b"GNU\0"


@pytest.fixture
def program(hosts: Hosts) -> bytes:
    """A victim's program, on both hosts' own disks; its content."""
    data = (VICTIMS / "piggie").read_bytes()
    for host in hosts.both:
        host.write(PROGRAM, data, 0o755)
    return data


@pytest.fixture
def library(hosts: Hosts) -> bytes:
    """A library on both hosts' own disks; its content."""
    data = next(Path("/usr/lib").glob("*/libm.so.6")).read_bytes()
    for host in hosts.both:
        host.write(LIBRARY, data)
    return data


@pytest.fixture
def data(hosts: Hosts) -> Path:
    """A file of data, on both hosts' own disks; where it is on host2."""
    for host in hosts.both:
        host.write(DATA, TEXT)
    return hosts.destination.path(DATA)


def other_build(elf: bytes) -> bytes:
    """The same program or library of another build: as long, with another build-id."""
    at = elf.index(BUILD_ID) + len(BUILD_ID)
    return elf[:at] + bytes(byte ^ 0xFF for byte in elf[at : at + 20]) + elf[at + 20 :]


# -- files


def test_program_missing(
    hosts: Hosts, victim: StartSubject, refused: Refusal, program: bytes, shared: Path
) -> None:
    subject = victim("piggie", "--file", shared / "counted", "--reopen", program=PROGRAM)
    hosts.destination.path(PROGRAM).unlink()
    refused(subject, PROGRAM, check="files")


@pytest.mark.parametrize("wrong", ["size", "build", "mode"])
def test_program_other(
    hosts: Hosts, victim: StartSubject, refused: Refusal, program: bytes, shared: Path, wrong: str
) -> None:
    subject = victim("piggie", "--file", shared / "counted", "--reopen", program=PROGRAM)
    content = {"size": program + b"more", "build": other_build(program), "mode": program}[wrong]
    hosts.destination.write(PROGRAM, content, 0o700 if wrong == "mode" else 0o755)
    refused(subject, PROGRAM, check="files")


def test_library_missing(
    hosts: Hosts, victim: StartSubject, refused: Refusal, library: bytes
) -> None:
    subject = victim("holder", f"map={LIBRARY}")
    hosts.destination.path(LIBRARY).unlink()
    refused(subject, LIBRARY, check="files")


@pytest.mark.parametrize("wrong", ["size", "build", "mode"])
def test_library_other(
    hosts: Hosts, victim: StartSubject, refused: Refusal, library: bytes, wrong: str
) -> None:
    subject = victim("holder", f"map={LIBRARY}")
    content = {"size": library[:-8], "build": other_build(library), "mode": library}[wrong]
    hosts.destination.write(LIBRARY, content, 0o600 if wrong == "mode" else 0o644)
    refused(subject, LIBRARY, check="files")


def test_open_file_missing(victim: StartSubject, refused: Refusal, data: Path) -> None:
    subject = victim("holder", f"open={DATA}")
    data.unlink()
    refused(subject, DATA, check="files")


@pytest.mark.parametrize("content", [TEXT[:-1], f"{TEXT}more"], ids=["shorter", "longer"])
def test_open_file_of_another_size(
    victim: StartSubject, refused: Refusal, data: Path, content: str
) -> None:
    subject = victim("holder", f"open={DATA}")
    data.write_text(content)
    refused(subject, DATA, check="files")


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_open_file_of_another_type(
    victim: StartSubject, refused: Refusal, data: Path, kind: str
) -> None:
    subject = victim("holder", f"open={DATA}")
    data.unlink()
    os.mkfifo(data, 0o644) if kind == "fifo" else data.mkdir()
    refused(subject, DATA, check="files")


def test_working_directory_missing(victim: StartSubject, refused: Refusal, data: Path) -> None:
    subject = victim("holder", f"cwd={Path(DATA).parent}")
    shutil.rmtree(data.parent)
    refused(subject, Path(DATA).parent, check="directories")


def test_root_missing(hosts: Hosts, victim: StartSubject, refused: Refusal) -> None:
    hosts.source.path("/srv/jail").mkdir()
    subject = victim("holder", "root=/srv/jail", report="/srv/jail/report.json")
    refused(subject, "/srv/jail", check="directories")


def test_device_missing(hosts: Hosts, victim: StartSubject, refused: Refusal) -> None:
    hosts.source.run(["mknod", "/srv/own-null", "c", "1", "3"], check=True)
    subject = victim("holder", "open=/srv/own-null")
    refused(subject, "/srv/own-null", check=("files", "devices"))


def test_watched_file_missing(victim: StartSubject, refused: Refusal, data: Path) -> None:
    subject = victim("holder", f"inotify={DATA}")
    data.unlink()
    refused(subject, DATA, check="inotify")


def test_unlinked_file_over_the_ghost_limit(
    victim: StartSubject, refused: Refusal, data: Path
) -> None:
    subject = victim("holder", f"unlinked={DATA}.gone,3000000")
    refused(subject, f"{DATA}.gone", check="unlinked")


# -- PIDs


@pytest.mark.parametrize("how", ["process", "session"])
def test_pid_taken(hosts: Hosts, victim: StartSubject, refused: Refusal, how: str) -> None:
    subject = victim("holder")
    hosts.destination.take_pid(subject.pid, how)
    refused(subject, subject.pid, check="pids")


def test_thread_id_taken(hosts: Hosts, victim: StartSubject, refused: Refusal) -> None:
    subject = victim("holder", "thread")
    (thread,) = {int(entry.name) for entry in Path(f"/proc/{subject.pid}/task").iterdir()} - {
        subject.pid
    }
    hosts.destination.take_pid(thread)
    refused(subject, thread, check="pids")


def test_process_group_of_a_child_taken(
    hosts: Hosts, victim: StartSubject, refused: Refusal
) -> None:
    subject = victim("holder", "child")
    children = Path(f"/proc/{subject.pid}/task/{subject.pid}/children").read_text().split()
    hosts.destination.take_pid(int(children[0]), "session")
    refused(subject, children[0], check="pids")


# -- what has no image


@pytest.mark.parametrize("thing", ["io_uring", "userfaultfd"])
def test_descriptor_without_an_image(victim: StartSubject, refused: Refusal, thing: str) -> None:
    refused(victim("holder", thing), thing, check="descriptors")


@pytest.fixture
def terminal() -> Iterator[str]:
    """A terminal of this process, as a user's shell has it."""
    ours, theirs = os.openpty()
    yield os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


def test_terminal_from_outside(victim: StartSubject, refused: Refusal, terminal: str) -> None:
    refused(victim("holder", f"terminal={terminal}"), terminal, check="terminal")


# -- resources


@pytest.mark.parametrize("size", ["1m", "24m"])
def test_no_space_for_the_images(
    hosts: Hosts, victim: StartSubject, refused: Refusal, size: str
) -> None:
    subject = victim("dirtier", "--size-mb", 32)
    with hosts.destination.mounted(AGENT_DIRECTORY, size):
        refused(subject, AGENT_DIRECTORY, check="space")


def test_not_enough_memory(hosts: Hosts, victim: StartSubject, refused: Refusal) -> None:
    """The destination says that little is left, as a container's lxcfs says it."""
    subject = victim("dirtier", "--size-mb", 32)
    lines = []
    for line in Path("/proc/meminfo").read_text().splitlines():
        name = line.partition(":")[0]
        small = name in {"MemFree", "MemAvailable", "Cached", "SwapFree", "SwapTotal"}
        lines.append(f"{name}:  8192 kB" if small else line)
    with hosts.destination.replaced("/proc/meminfo", "\n".join(lines) + "\n"):
        refused(subject, "MiB", check="memory")


def test_locked_memory_is_a_warning(hosts: Hosts, victim: StartSubject, refused: Refusal) -> None:
    subject = victim("holder", f"locked={4 << 20}")
    outcome = refused.phaul.migrate(subject, "--dry-run")
    assert outcome.status in (0, 1), outcome
    found = [f for f in outcome.event("checked")["findings"] if f["check"] == "locked"]
    assert [finding["level"] for finding in found] == ["warning"]
    subject.only_on(hosts.source, hosts.destination)


# -- CRIU over there

ODD = """#!/bin/sh
PYTHONPATH=/phaul/src:/site PYTHONPYCACHEPREFIX=/pycache \
exec python3 -S -P /phaul/tests/hosts/odd_criu.py {mode} "$@"
"""


@pytest.mark.parametrize(
    ("mode", "check", "name"),
    [("version", "page-server", "4.1.1"), ("cpu", "cpu", "CPU")],
)
def test_another_criu_there(
    hosts: Hosts, victim: StartSubject, refused: Refusal, mode: str, check: str, name: str
) -> None:
    hosts.destination.write("/usr/local/bin/criu", ODD.format(mode=mode), 0o755)
    refused(victim("holder"), name, check=check, status=INCOMPATIBLE)


def test_criu_there_fails_its_own_check(
    hosts: Hosts, victim: StartSubject, refused: Refusal
) -> None:
    hosts.destination.write("/usr/local/bin/criu", ODD.format(mode="check"), 0o755)
    refused.ends(victim("holder"), "check is wrong here", "host2", status=INCOMPATIBLE)


def test_no_criu_there(hosts: Hosts, victim: StartSubject, refused: Refusal) -> None:
    with hosts.destination.without("/usr/sbin/criu"):
        refused.ends(victim("holder"), "criu", "host2", "install", status=INCOMPATIBLE)


def test_allowed_by_name(hosts: Hosts, victim: StartSubject, refused: Refusal) -> None:
    """What the user allows is only a warning, and the migration goes on."""
    hosts.destination.write("/usr/local/bin/criu", ODD.format(mode="cpu"), 0o755)
    subject = victim("holder")
    outcome = refused.phaul.migrate(subject, "--dry-run", "--allow", "cpu")
    assert outcome.status in (0, 1), outcome
    found = [f for f in outcome.event("checked")["findings"] if f["check"] == "cpu"]
    assert [finding["level"] for finding in found] == ["warning"]


# -- what is no obstacle


@pytest.mark.parametrize(
    "thing",
    ["packet", "raw", "family=16,3,15", "thread", "child", "unlinked=/var/tmp/shared/gone,4096"],
)
def test_what_can_be_moved_is_not_refused(
    hosts: Hosts, victim: StartSubject, refused: Refusal, thing: str
) -> None:
    subject = victim("holder", thing)
    outcome = refused.phaul.migrate(subject, "--dry-run")
    assert outcome.status in (0, 1), outcome
    subject.only_on(hosts.source, hosts.destination)
