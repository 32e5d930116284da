"""A host for the checks to look at, made of files."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from phaul.criu.engine import Engine
from phaul.destination.checks import CheckContext
from phaul.network.addresses import IPAddress
from phaul.protocol.preflight import Finding, Level


class FakeHost:
    """Has /proc and a root file system of its own, in directories; `local` are its addresses."""

    def __init__(self, base: Path) -> None:
        self.proc = base / "proc"
        self.root = base / "root"
        self.work = base / "work"
        self.local: set[IPAddress] = set()
        for folder in (self.proc, self.root, self.work):
            folder.mkdir()
        self.put_proc("self/status", f"Name:\tphaul\nUid:\t0\t0\t0\t0\nCapEff:\t{2**41 - 1:016x}\n")
        self.put_proc("self/cgroup", "0::/agent.slice/agent.service\n")
        self.put_proc("self/mountinfo", "")
        self.put_proc("sys/kernel/pid_max", "32768\n")
        self.put_proc("net/if_inet6", "")

    def put_proc(self, name: str, text: str) -> Path:
        return self._put(self.proc / name, text)

    def put(self, name: str, text: str = "") -> Path:
        return self._put(self.root / name.lstrip("/"), text)

    def _put(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def process(
        self,
        pid: int,
        name: str = "sshd",
        *,
        group: int = 1,
        session: int = 1,
        tgid: int | None = None,
        flags: int = 0,
    ) -> None:
        self.put_proc(f"{pid}/stat", f"{pid} ({name}) S 1 {group} {session} 0 -1 {flags} 0 0 0\n")
        self.put_proc(f"{pid}/status", f"Name:\t{name}\nTgid:\t{tgid or pid}\nPid:\t{pid}\n")
        self.put_proc(f"{pid}/comm", f"{name}\n")

    def mount(self, kind: str, point: str, options: str = "rw", device: str = "0:99") -> None:
        line = f"30 1 {device} / {point} rw,relatime shared:1 - {kind} {kind} {options}\n"
        with (self.proc / "self/mountinfo").open("a") as file:
            file.write(line)

    def context(self, *program: str) -> CheckContext:
        def local(wanted: Iterable[IPAddress]) -> frozenset[IPAddress]:
            return frozenset(set(wanted) & self.local)

        return CheckContext(
            Engine(program or ("/no/criu",), "destination"),
            self.work,
            self.proc,
            self.root,
            machine="x86_64",
            search=str(self.root / "bin"),
            local=local,
        )


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def only(findings: Iterable[Finding], level: Level, check: str) -> Finding:
    """The one finding that there is, which is of that level and check."""
    (found,) = findings
    assert (found.level, found.check) == (level, check), found.what
    assert bool(found.remedy) is (level is not Level.OK)
    return found
