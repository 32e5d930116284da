"""What the command costs, beside the same `criu` commands over ssh by hand; and the agent's start.

    python -m bench.command             runs it in the sandbox
    python -m bench.command inside N    there: N turns, as JSON

Between the two hosts of tests/hosts, with a victim of 1 MiB.  By hand means what a person would
type for the same move: CRIU's own check on both hosts, a
directory and a page server there, the dump, the copy of the other images, the restore; once with a
connection for each, and once over a connection that stood before (a ControlMaster).  They take
turns; figures are medians, ratios the medians of the turns' own.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from phaul.protocol.frames import Kind, header
from phaul.protocol.handshake import OURS
from phaul.protocol.messages import CriuVersion, Hello, Versions, encode
from tests.hosts.machine import SHARED, Hosts, two_hosts
from tests.hosts.subject import FIRST_PID, VICTIMS, Subject
from tests.victims.harness import start

TURNS: Final = 11
TARGET: Final = "root@host2"
PORT: Final = 9999
MULTIPLEXED: Final = ("-o", "ControlPath=/root/bench-mux")
AGENT: Final = ("python3", "-S", "-P", "-m", "phaul", "agent")
AGENT_FIGURES: Final = {
    "python_s": "Python alone",
    "imports_s": "Python, and all that the agent imports",
    "ready_s": "to its answer to a Hello it cannot take",
    "welcome_s": "to the first byte of Welcome",
}

Move = Callable[[Hosts, int, Path], None]


def by_command(hosts: Hosts, pid: int, _work: Path) -> None:
    """The command, whose output goes into a pipe."""
    hosts.source.run(["phaul", "migrate", pid, TARGET], check=True)


def by_hand(hosts: Hosts, pid: int, work: Path, *, ssh: tuple[str, ...] = ()) -> None:
    """The commands; `ssh` are options for each ssh."""

    def here(*words: object) -> None:
        hosts.source.run(words, check=True)

    def there(command: str) -> None:
        here("ssh", *ssh, TARGET, command)

    here("criu", "check")
    there("criu check")
    there(
        f"mkdir -p {work} && criu page-server -d -D {work} -o page-server.log"
        f" --address {hosts.destination.address} --port {PORT}"
    )
    work.mkdir(parents=True)
    page_server = ("--page-server", "--address", hosts.destination.address, "--port", PORT)
    quiet = ("--network-lock", "skip")  # as the command does without connections to keep
    here("criu", "dump", "-t", pid, "-D", work, "-o", "dump.log", *quiet, *page_server)
    copy = f"tar -C {work} -c . | ssh {' '.join(ssh)} {TARGET} tar -C {work} -x --exclude=*.log"
    here("sh", "-c", copy)
    there(f"criu restore -d -D {work} -o restore.log {' '.join(quiet)}")


@contextmanager
def standing(hosts: Hosts) -> Iterator[None]:
    """A connection to host2 that others are channels of."""
    hosts.source.run(
        ["ssh", *MULTIPLEXED, "-o", "ControlMaster=yes", "-f", "-N", TARGET],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        hosts.source.run(["ssh", *MULTIPLEXED, "-O", "exit", TARGET], check=True)


def measure(hosts: Hosts, move: Move, number: int) -> float:
    """The seconds that a move of a fresh victim takes; it must be whole on host2 afterwards."""
    report = SHARED / f"bench-{number}.json"
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(FIRST_PID + 100 * (number % 50)))
    victim = VICTIMS / "dirtier"
    words = [victim, "--size-mb", "1", "--rate", "50", "--report", report]
    subject = Subject("dirtier", start([str(word) for word in words]), report)
    before = {host.name: host.state() for host in hosts.both}
    begun = time.monotonic()
    move(hosts, subject.pid, Path(f"/tmp/bench-{number}"))
    seconds = time.monotonic() - begun
    subject.only_on(hosts.destination, hosts.source)
    for host in reversed(hosts.both):
        host.clean(before[host.name])
    return seconds


def start_agent(hello: Hello) -> float:
    """The seconds from the start of an agent to the first byte of its answer to `hello`."""
    ours, theirs = socket.socketpair()
    packet = encode(hello)
    with ours:
        begun = time.monotonic()
        with theirs:
            fd = theirs.fileno()
            process = subprocess.Popen(
                AGENT, stdin=fd, stdout=fd, stderr=subprocess.DEVNULL, cwd="/"
            )
        ours.sendall(header(Kind.CONTROL, len(packet)) + packet)
        assert ours.recv(1)
        seconds = time.monotonic() - begun
    process.wait(60)
    return seconds


def take(*argv: str) -> float:
    """The seconds that a command takes."""
    begun = time.monotonic()
    subprocess.run(argv, check=True, cwd="/")
    return time.monotonic() - begun


def measure_agent() -> dict[str, float]:
    """An agent's start: Python alone, with the imports, to its first answer, to its Welcome."""
    hello = Hello(
        versions=OURS,
        phaul="0",
        host="bench",
        criu=CriuVersion(major=4, minor=2, sublevel=0),
        migration="bench",
    )
    # No version in common is refused as soon as it is read: so that is when the agent can read.
    strange = Hello(
        versions=Versions(oldest=60_000, newest=60_000),
        phaul="0",
        host="bench",
        criu=hello.criu,
        migration="bench",
    )
    imports = (
        "import gc; gc.disable(); import anyio._backends._asyncio, phaul.agent, os, "
        "phaul.destination.agent, phaul.transport.stdio; os._exit(0)"
    )
    python = ("python3", "-S", "-P", "-c")
    return {
        "python_s": take(*python, "pass"),
        "imports_s": take(*python, imports),
        "ready_s": start_agent(strange),
        "welcome_s": start_agent(hello),
    }


def inside(turns: int) -> dict[str, list[float]]:
    """Take turns, after one of each that does not count."""
    moves: dict[str, Move] = {
        "hand_s": by_hand,
        "command_s": by_command,
        "standing_s": partial(by_hand, ssh=MULTIPLEXED),
    }
    taken: dict[str, list[float]] = {}
    path = "/phaul/src:/site"
    with two_hosts(path, os.environ["PYTHONPYCACHEPREFIX"]) as hosts, standing(hosts):
        for turn in range(turns + 1):
            found = {
                name: measure(hosts, move, turn * len(moves) + at)
                for at, (name, move) in enumerate(moves.items())
            }
            found |= measure_agent()
            if turn:
                for name, seconds in found.items():
                    taken.setdefault(name, []).append(seconds)
    return taken


def show(taken: dict[str, list[float]]) -> None:
    """Print the figures."""
    middle = {name: statistics.median(seconds) * 1e3 for name, seconds in taken.items()}
    print(
        f"a process of 1 MiB, {len(taken['command_s'])} turns; "
        f"the command {middle['command_s']:.0f} ms"
    )
    for name, what in (("hand_s", "by hand"), ("standing_s", "by hand, connected before")):
        ratios = [c / h for c, h in zip(taken["command_s"], taken[name], strict=True)]
        print(f"    {what:<26} {middle[name]:.0f} ms, ratio {statistics.median(ratios):.2f}")
    # The least as well: what another process takes of the machine only ever adds.
    print("the agent, from its start")
    for name, what in AGENT_FIGURES.items():
        print(f"    {what:<40} {middle[name]:.0f} ms, the least {min(taken[name]) * 1e3:.0f} ms")


def main() -> None:
    """Run it in the sandbox."""
    from tools.run_tests import prepared_sandbox

    words = ["python3", "-m", "bench.command", "inside", str(TURNS)]
    show(json.loads(prepared_sandbox().run(words, timeout=900, check=True).stdout))


if __name__ == "__main__":
    if sys.argv[1:2] == ["inside"]:
        print(json.dumps(inside(int(sys.argv[2]))))
    else:
        main()
