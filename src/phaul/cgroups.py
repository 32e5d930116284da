"""Control groups, version 2: whose group is which, and what can be done to all that is in one.

Used in the cutover, on the source to hold the tree still, on the destination to end what a restore
left; and by `phaul resolve`.  From cgroups(7) and the kernel's admin-guide/cgroup-v2.  All of it
blocks, for less than a millisecond where it does not wait; what waits has a timeout.

A group is named by its path below the place where the hierarchy is mounted: "/" is the mount
itself, whatever it shows of the whole.
"""

import errno
import os
import re
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from phaul.errors import CgroupError

__all__ = ["Cgroups", "GroupPath", "LockedGroup", "is_zombie"]

GroupPath = Annotated[str, Meta(min_length=1, max_length=4095, pattern=r"^/[^\x00\n]*\Z")]

_PROC: Final = Path("/proc")
_LIMIT: Final = 16 << 20
_MOUNT: Final = re.compile(r"[0-9]+ [0-9]+ [0-9]+:[0-9]+ (\S+) (\S+) .*? - cgroup2 ")
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_DELETED: Final = " (deleted)"
_LOOK_AGAIN_MS: Final = 100.0
"""The kernel tells of each change; this is for one that it does not tell of."""


class LockedGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group that holds a part of a tree still: `pids` were in `home`, and are to come back there.

    It is kept in a file, and so is checked again where it is used.
    """

    group: GroupPath
    home: GroupPath
    pids: Annotated[tuple[Annotated[int, Meta(ge=1, le=1 << 22)], ...], Meta(max_length=1 << 20)]


@dataclass(frozen=True)
class Cgroups:
    """The hierarchy of version 2, mounted at `point`.

    `root` is what of it is mounted there, by the names that this process's cgroup namespace gives.
    Methods raise CgroupError for what the kernel refuses.
    """

    point: Path
    root: str = "/"
    host: str = ""
    proc: Path = _PROC

    @classmethod
    def find(cls, host: str = "", proc: Path = _PROC) -> "Cgroups | None":
        """The hierarchy as this process sees it, None if it is mounted nowhere that can be used.

        On a hybrid host it is beside those of version 1.  `host` is this host's name in messages.
        """
        try:
            with (proc / "self/mountinfo").open("rb") as file:
                text = os.fsdecode(file.read(_LIMIT))
        except OSError:
            return None
        # One that is mounted later at the same place hides the one before.
        mounts = {
            _plain(found[2]): _plain(found[1])
            for line in text.split("\n")
            if (found := _MOUNT.match(line))
        }
        # A mount from outside of the namespace has a name that climbs: what is in it has none here.
        usable = [
            (root, point)
            for point, root in mounts.items()
            if not _climbs(root) and (Path(point) / "cgroup.procs").exists()
        ]
        if not usable:
            return None
        root, point = min(usable, key=lambda mount: len(mount[0].rstrip("/")))
        return cls(Path(point), root, host, proc)

    def group_of(self, pid: int | str) -> str | None:
        """The group of a process, or of "PID/task/TID" one of its threads; None if it is gone.

        Raises CgroupError if it is in one that cannot be reached from here.
        """
        try:
            text = os.fsdecode(_bytes(f"{self.proc}/{pid}/cgroup"))
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError as error:
            raise self._error(f"the cgroup of process {pid} cannot be read", error) from error
        found = [line[3:] for line in text.split("\n") if line.startswith("0::/")]
        if not found:
            raise self._error(f"process {pid} is in no cgroup of version 2")
        path, top = found[0], self.root.rstrip("/")
        inside = path == top or path.startswith(top + "/")
        if _climbs(path) or not inside or path.endswith(_DELETED):
            raise self._error(f"process {pid} is in cgroup {path!r}, which cannot be reached here")
        return path[len(top) :] or "/"

    def exists(self, group: str) -> bool:
        """Whether there is such a group."""
        return self._path(group).is_dir()

    def kind(self, group: str) -> str:
        """Its `cgroup.type`; "domain" for the root of all, which has no such file."""
        try:
            return self._read(group, "cgroup.type").strip()
        except FileNotFoundError:
            return "domain"
        except OSError as error:
            raise self._error(f"the type of cgroup {group} cannot be read", error) from error

    def can_freeze(self, group: str) -> bool:
        """Whether it has a freezer: Linux 5.2, and not the root of all."""
        return (self._path(group) / "cgroup.freeze").exists()

    def make(self, group: str) -> None:
        """Make a group; one that is there already will do if nothing is in it."""
        try:
            self._mkdir(self._path(group))
        except FileExistsError:
            if self.populated(group):
                raise self._error(f"cgroup {group} is there already, with processes") from None
        except OSError as error:
            raise self._error(f"cgroup {group} cannot be made", error) from error

    def remove(self, group: str) -> None:
        """Remove a group that is empty; zombies do not count, nor one that is gone already."""
        try:
            self._rmdir(self._path(group))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._error(f"cgroup {group} cannot be removed", error) from error

    def move(self, pid: int, group: str) -> bool:
        """Move a process, with all of its threads; False if it is gone."""
        if pid < 1:
            raise ValueError(pid)  # 0 would be this process
        try:
            self._write(group, "cgroup.procs", str(pid))
        except ProcessLookupError:
            return False
        except OSError as error:
            raise self._error(f"process {pid} cannot be moved to cgroup {group}", error) from error
        return True

    def members(self, group: str) -> list[int]:
        """The processes in a group, not those below it; none if there is no such group.

        Neither zombies, nor what this PID namespace does not see.
        """
        try:
            text = self._read(group, "cgroup.procs")
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENODEV}:
                return []
            raise self._error(f"cgroup {group} cannot be read", error) from error
        return [pid for word in text.split() if (pid := int(word))]

    def populated(self, group: str) -> bool:
        """Whether a process is in it, or below it; zombies do not count."""
        return self._event(group, "populated")

    def frozen(self, group: str) -> bool:
        """Whether all in it, and below it, stands still."""
        return self._event(group, "frozen")

    def freeze(self, group: str) -> None:
        """Have all that is in a group, or comes into it, stand still; see `wait_frozen`."""
        self._set(group, "cgroup.freeze", "1")

    def thaw(self, group: str) -> None:
        """Let what is in a group run on."""
        self._set(group, "cgroup.freeze", "0")

    def wait_frozen(self, group: str, timeout: float) -> None:
        """Wait until all in it stands still; `timeout` is in seconds.

        A task that is stopped by ptrace counts as still, and stands still when its tracer dies.
        """
        if not self._wait(group, "frozen", True, timeout):
            raise self._error(f"cgroup {group} did not stand still within {timeout:g} s")

    def wait_empty(self, group: str, timeout: float) -> None:
        """Wait until nothing is in it but zombies; `timeout` is in seconds."""
        if not self._wait(group, "populated", False, timeout):
            raise self._error(f"cgroup {group} was not empty within {timeout:g} s")

    def kill(self, group: str, timeout: float) -> None:
        """Kill all in a group and below it, frozen or not, and wait until it is empty.

        One that is gone is empty.  `timeout` is in seconds.
        """
        if not self.send_kill(group) and self.exists(group):
            self._kill_each(group, timeout)
        self.wait_empty(group, timeout)

    def send_kill(self, group: str) -> bool:
        """Have the kernel send SIGKILL to all in a group and below it; waits for nothing.

        False where it cannot, before Linux 5.14, or the group is gone.
        """
        try:
            self._write(group, "cgroup.kill", "1")
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._error(f"cgroup {group} cannot be killed", error) from error
        return True

    def _kill_each(self, group: str, timeout: float) -> None:
        until = time.monotonic() + timeout
        while self.populated(group) and time.monotonic() < until:
            for pid in [pid for part in self.below(group) for pid in self.members(part)]:
                # By pidfd: the PID may be another's before the signal is sent.
                with suppress(ProcessLookupError), _pidfd(pid) as descriptor:
                    if (self.group_of(pid) or "").startswith(group):
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            self._wait(group, "populated", False, _LOOK_AGAIN_MS / 1000)

    def below(self, group: str) -> Iterator[str]:
        """A group, and all below it."""
        for folder, _, _ in os.walk(self._path(group)):
            yield "/" + str(Path(folder).relative_to(self.point)).lstrip(".")

    def value(self, group: str, name: str) -> str | None:
        """What a small file of a group says, without its line's end; None if there is none."""
        try:
            return self._read(group, name).strip()
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP}:
                return None
            raise self._error(f"{name} of cgroup {group} cannot be read", error) from error

    def set_value(self, group: str, name: str, value: str) -> None:
        """Write a small file of a group."""
        self._set(group, name, value)

    def _event(self, group: str, key: str) -> bool:
        try:
            return _flag(self._read(group, "cgroup.events"), key)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENODEV}:
                return False
            raise self._error(f"cgroup {group} cannot be read", error) from error

    def _wait(self, group: str, key: str, wanted: bool, timeout: float) -> bool:
        """Whether an event came to be as wanted; none is set in a group that is gone."""
        until = time.monotonic() + timeout
        try:
            descriptor = os.open(self._path(group) / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return not wanted
        except OSError as error:
            raise self._error(f"cgroup {group} cannot be read", error) from error
        try:
            told = select.poll()
            told.register(descriptor, select.POLLPRI)
            while _flag(os.pread(descriptor, 4096, 0).decode(), key) is not wanted:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                told.poll(min(left * 1000, _LOOK_AGAIN_MS))
        except OSError as error:
            if error.errno == errno.ENODEV:  # removed meanwhile
                return not wanted
            raise self._error(f"cgroup {group} cannot be read", error) from error
        finally:
            os.close(descriptor)
        return True

    def _set(self, group: str, name: str, value: str) -> None:
        try:
            self._write(group, name, value)
        except OSError as error:
            raise self._error(f"{name} of cgroup {group} cannot be set", error) from error

    # What is done to the kernel's files.

    def _path(self, group: str) -> Path:
        """Where a group is; raises CgroupError for a name that leads elsewhere."""
        parts = group.split("/")[1:] if group != "/" else []
        if not group.startswith("/") or {"", ".", ".."} & set(parts) or "\0" in group:
            raise self._error(f"{group!r} is no name of a cgroup")
        return self.point.joinpath(*parts)

    def _read(self, group: str, name: str) -> str:
        return (self._path(group) / name).read_text()

    def _write(self, group: str, name: str, value: str) -> None:
        # Never made: a file that is missing is a kernel without it, or a group that is gone.
        descriptor = os.open(self._path(group) / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)

    def _mkdir(self, path: Path) -> None:
        path.mkdir()

    def _rmdir(self, path: Path) -> None:
        path.rmdir()

    def _error(self, what: str, error: OSError | None = None) -> CgroupError:
        said = f"{what}: {_MEANS.get(error.errno or 0, error.strerror)}" if error else what
        return CgroupError(said, host=self.host)


_MEANS: Final = {
    errno.EAGAIN: "cgroup.max.depth or cgroup.max.descendants does not allow another",
    errno.EROFS: "the hierarchy is mounted read-only here",
    errno.EBUSY: "it is in use, or passes controllers on (cgroup.subtree_control)",
    errno.EOPNOTSUPP: "it is a threaded one",
}


def is_zombie(pid: int, proc: Path = _PROC) -> bool:
    """Whether a process is gone, or all of its threads are: in no group that would matter."""
    try:
        fields = _bytes(f"{proc}/{pid}/stat").rpartition(b") ")[2].split()
    except OSError:
        return True
    # A leader that has ended is a zombie too, while its other threads go on.
    return fields[0] in {b"Z", b"X"} and int(fields[17]) <= 1


def _bytes(path: str) -> bytes:
    """What is in a small file of /proc; called for every task of a tree."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)


def _flag(text: str, key: str) -> bool:
    return f"{key} 1" in text.split("\n")


def _climbs(path: str) -> bool:
    return path == "/.." or path.startswith("/../")


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)


@contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
