"""Two hosts on one kernel: the sandbox itself, and `host2` in namespaces of its own beside it.

host2 has its own PID, mount, network, UTS, IPC and cgroup namespaces, its own /tmp, /run, /root,
/srv, /var/lib, /usr/local/bin, /dev/pts and /dev/shm, and a real sshd at 10.88.0.2, where root of
host1 logs in by key without a question.  /var/tmp is the storage that both share.  Its PID
namespace is within host1's, so host1 sees host2's processes too, under other PIDs.

It lives as long as the `with` block of `two_hosts`; the sandbox ends it if pytest is killed.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ADDRESSES = {"host1": "10.88.0.1", "host2": "10.88.0.2"}
SHARED = Path("/var/tmp")
"""Storage that both hosts have mounted."""
OWN = "/srv"
"""Each host's own, for files that are to be there, or different, or missing."""
GROUP = Path("/sys/fs/cgroup/host2")
AGENT_DIRECTORY = "/var/lib/phaul/incoming"
"""Where phaul's agent has its images."""
WAIT = 10.0

# What the sandbox's root, and so both hosts, must not share.  Each line needs a source that is not
# mounted there yet, or `mount --all` takes it for done.
_OWN = """
{0}-lib /var/lib tmpfs mode=755
{0}-srv /srv tmpfs mode=755
{0}-bin /usr/local/bin tmpfs mode=755
"""
_OWN_NAMESPACES = """
{0}-proc /proc proc nosuid,nodev,noexec
{0}-sys /sys sysfs nosuid,nodev,noexec
{0}-cgroup /sys/fs/cgroup cgroup2 nosuid,nodev,noexec
{0}-tmp /tmp tmpfs mode=1777
{0}-run /run tmpfs mode=755
{0}-root /root tmpfs mode=700
{0}-pts /dev/pts devpts newinstance,mode=620,gid=5,ptmxmode=666
{0}-shm /dev/shm tmpfs mode=1777
"""
_PHAUL = """#!/bin/sh
PYTHONPATH={path} PYTHONPYCACHEPREFIX={cache} exec python3 -S -P -m phaul "$@"
"""
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
_KEPT = ("/tmp", "/run", "/root", "/srv", "/var/lib", "/dev/shm", "/usr/local/bin")
# CRIU's cache of what the kernel can do; directories of phaul, which stay, empty.
_HARMLESS = ("/run/criu.kdat", "/var/lib/phaul", AGENT_DIRECTORY, "/run/phaul")


_RECORDS = re.compile(r"/var/lib/phaul/migrations(/.*)?(?<!\.img)(?<!/socket)")
"""What the source keeps of a migration: its report, CRIU's logs; no images, and no socket."""


def harmless(path: str) -> bool:
    """Whether a file may stay."""
    return path in _HARMLESS or bool(_RECORDS.fullmatch(path))


@dataclass
class State:
    """What is on a host at a moment: by PID, path, mount point, socket name, table name."""

    processes: dict[int, str]
    files: set[str]
    mounts: set[str]
    sockets: set[str]
    tables: set[str]

    def beyond(self, before: "State") -> list[str]:
        """What is here and was not before, a line each."""
        return [
            *(f"process {p} {n}" for p, n in self.processes.items() if p not in before.processes),
            *(f"file {name}" for name in sorted(self.files - before.files) if not harmless(name)),
            *(f"mount {name}" for name in sorted(self.mounts - before.mounts)),
            *(f"socket {name}" for name in sorted(self.sockets - before.sockets)),
            *(f"nft {name}" for name in sorted(self.tables - before.tables)),
        ]


@dataclass
class Host:
    """One of the two; `init` is the PID, as seen here, of the process whose namespaces it has."""

    name: str
    init: int
    depth: int
    _before: State | None = field(default=None, init=False)

    @property
    def address(self) -> str:
        return ADDRESSES[self.name]

    def path(self, path: str | Path) -> Path:
        """Where a path of this host is seen from here."""
        return Path(path) if self.depth == 1 else Path(f"/proc/{self.init}/root{path}")

    def argv(self, words: Sequence[object]) -> list[str]:
        """The command as it is started from here."""
        argv = [str(word) for word in words]
        if self.depth == 1:
            return argv
        spaces = ("--pid", "--mount", "--net", "--uts", "--ipc", "--cgroup")
        # The command ends with its nsenter, which is what a caller's timeout kills.
        ends = ("setpriv", "--pdeathsig", "KILL", "--")
        return ["nsenter", f"--target={self.init}", *spaces, "--", *ends, *argv]

    def popen(
        self,
        words: Sequence[object],
        *,
        env: Mapping[str, str] | None = None,
        **options: Any,  # noqa: ANN401 (as for subprocess.Popen)
    ) -> "subprocess.Popen[str]":
        """Start a command here; the caller ends and reaps it."""
        environment = {**_ENVIRONMENT, **(env or {})}
        options = {"stdin": subprocess.DEVNULL, "cwd": "/", "text": True, **options}
        return subprocess.Popen(self.argv(words), env=environment, **options)

    def run(
        self,
        words: Sequence[object],
        *,
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        check: bool = False,
        **options: Any,  # noqa: ANN401 (as for subprocess.Popen)
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command here to its end; with `check`, it must succeed."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        with self.popen(words, env=env, **options) as process:
            try:
                stdout, stderr = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(
            [str(word) for word in words], process.returncode, stdout, stderr
        )
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {done.args} ended with {done.returncode}: {stderr}")
        return done

    def write(self, path: str | Path, data: str | bytes, mode: int = 0o644) -> None:
        """Write a file here, and the directories above it."""
        real = self.path(path)
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(data.encode() if isinstance(data, str) else data)
        real.chmod(mode)

    @contextlib.contextmanager
    def replaced(self, path: str, data: str | bytes, mode: int = 0o644) -> Iterator[None]:
        """Another content for a file that cannot be written: a mount over it, until the end."""
        cover = f"/dev/cover-{self.name}-{os.getpid()}"
        Path(cover).write_bytes(data.encode() if isinstance(data, str) else data)
        Path(cover).chmod(mode)
        try:
            self.run(["mount", "--bind", cover, path], check=True)
            try:
                yield
            finally:
                self.run(["umount", path], check=True)
        finally:
            Path(cover).unlink()

    @contextlib.contextmanager
    def mounted(self, path: str, size: str) -> Iterator[None]:
        """A small tmpfs, until the end."""
        self.path(path).mkdir(parents=True, exist_ok=True)
        self.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "small", path], check=True)
        try:
            yield
        finally:
            self.run(["umount", "--lazy", path], check=True)

    @contextlib.contextmanager
    def without(self, program: str) -> Iterator[None]:
        """A program that is not there: what lies there cannot be executed, until the end."""
        with self.replaced(program, "", 0o644):
            yield

    # -- processes

    def processes(self) -> dict[int, tuple[int, str]]:
        """Those of its PID namespace that are alive: its own PID, to the PID here and its name."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                status = (entry / "status").read_text()
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except (FileNotFoundError, ProcessLookupError):
                continue
            fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            pids = fields["NSpid"].split()
            if len(pids) == self.depth and not set("ZX") & set(fields["State"].split()[0]):
                found[int(pids[-1])] = int(entry.name), words or fields["Name"].strip()
        return found

    def outer_pid(self, pid: int) -> int | None:
        """The PID here of this host's process `pid`; None if there is none."""
        return self.processes().get(pid, (None, ""))[0]

    def take_pid(self, pid: int, how: str = "process") -> None:
        """Start a process with that PID; as a "session", one whose leader has ended since."""
        script = HERE / "taker.py"
        self.run(["python3", "-I", "-S", script, pid, how], check=True)

    # -- what is left

    def state(self) -> State:
        """What is here now; a file or a process that comes and goes meanwhile is left out."""
        processes = {pid: name for pid, (_, name) in self.processes().items() if pid != 1}
        files = set()
        for top in _KEPT:
            real = self.path(top)
            for folder, folders, names in os.walk(real):
                inner = folder.removeprefix(str(real))
                files |= {f"{top}{inner}/{name}" for name in (*folders, *names)}
        lines = self.path("/proc/1/mountinfo" if self.depth > 1 else "/proc/self/mountinfo")
        mounts = {line.split()[4] for line in lines.read_text().splitlines()}
        sockets = set()
        # /proc/net is a link to /proc/self, and self is not there for who is not in that namespace
        net = f"/proc/{self.init}/net/unix" if self.depth > 1 else "/proc/self/net/unix"
        for line in Path(net).read_text().splitlines()[1:]:
            name = line.split()[7:]
            sockets |= {name[0]} if name and name[0].startswith("@") else set()
        tables = set(self.run(["nft", "list", "tables"], check=True).stdout.splitlines())
        return State(processes, files, mounts, sockets, tables)

    def clean(self, back_to: State) -> None:
        """End and remove whatever came since `back_to`, so that the next test finds it so."""
        for pid, (outer, _) in self.processes().items():
            if pid not in back_to.processes and pid != 1:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(outer, signal.SIGKILL)
        until = time.monotonic() + WAIT
        while set(self.processes()) - set(back_to.processes) - {1} and time.monotonic() < until:
            time.sleep(0.005)
        now = self.state()
        for mount in sorted(now.mounts - back_to.mounts, reverse=True):
            self.run(["umount", "--lazy", mount], check=True)
        for table in now.tables - back_to.tables:
            self.run(["nft", "delete", *table.split()], check=True)
        for name in sorted(now.files - back_to.files, reverse=True):  # what is in a folder first
            real = self.path(name)
            with contextlib.suppress(FileNotFoundError):
                real.rmdir() if real.is_dir() and not real.is_symlink() else real.unlink()

    def remember(self) -> None:
        """Take what is here now for what belongs here."""
        self._before = self.state()

    def leftovers(self, *, but: Collection[int] = (), timeout: float = WAIT) -> list[str]:
        """What was not here at `remember`, and does not go away; empty if there is nothing.

        The processes `but` may be here, by their own PIDs.
        """
        assert self._before is not None, "remember() was not called"
        before = replace(self._before)
        before.processes = before.processes | dict.fromkeys(but, "")
        until = time.monotonic() + timeout
        while (left := self.state().beyond(before)) and time.monotonic() < until:
            time.sleep(0.05)
        return left


@dataclass(frozen=True)
class Hosts:
    """host1, where processes come from, and host2, where they go to."""

    source: Host
    destination: Host

    @property
    def both(self) -> tuple[Host, Host]:
        return self.source, self.destination


@contextlib.contextmanager
def two_hosts(python_path: str, cache: str, *, sshd: bool = True) -> Iterator[Hosts]:
    """Make the two; root of the sandbox only.  host2 ends with the `with` block.

    Without `sshd` there is a cable between them, and host2 has a cgroup of its own, GROUP.
    """
    here = Host("host1", os.getpid(), 1)
    mounted = _mount_own(here)
    shutil.copy(HERE / "init.py", "/run/host2-init.py")
    Path("/run/host2-fstab").write_text((_OWN + _OWN_NAMESPACES).format("host2"))
    own = f'mkdir -p {GROUP} && echo $$ >{GROUP}/cgroup.procs && exec "$@"'
    process = subprocess.Popen(
        [
            *(() if sshd else ("sh", "-ec", own, "sh")),
            *("unshare", "--pid", "--fork", "--kill-child", "--mount", "--propagation", "private"),
            *("--net", "--uts", "--ipc", "--cgroup", "--"),
            *("python3", "-I", "-S", "/run/host2-init.py", "/run/host2-fstab"),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", text=True, env=_ENVIRONMENT,
    )  # fmt: skip
    init = 0
    try:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "mounted\n"
        init = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        there = Host("host2", init, 2)
        _join(here, there)
        if sshd:
            from tests.hosts.login import let_in, wait_for_sshd

            let_in(here, there)
        for host in (here, there):
            host.write("/usr/local/bin/phaul", _PHAUL.format(path=python_path, cache=cache), 0o755)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        if sshd:
            wait_for_sshd(here)
        yield Hosts(here, there)
    finally:
        if init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(init, signal.SIGKILL)  # the kernel ends all that is in its namespace
        else:
            process.kill()
        process.wait(WAIT)
        if not sshd:
            GROUP.rmdir()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        for path in reversed(mounted):
            here.run(["umount", "--lazy", path], check=True)


def _mount_own(host: Host) -> list[str]:
    """Mount what the sandbox does not have; the mount points."""
    fstab = _OWN.format(host.name)
    Path("/run/host1-fstab").write_text(fstab)
    host.run(["mount", "--all", "--fstab", "/run/host1-fstab"], check=True)
    return [line.split()[1] for line in fstab.split("\n") if line]


def _join(here: Host, there: Host) -> None:
    """Put a cable between the two."""
    cable = f"ip link add veth1 type veth peer name veth2 netns {there.init}"
    here.run(
        ["sh", "-ec", f"{cable}; ip addr add {here.address}/24 dev veth1; ip link set veth1 up"],
        check=True,
    )
