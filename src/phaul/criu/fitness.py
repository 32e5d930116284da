"""Whether phaul has the rights that CRIU needs on a host.

Used in preflight, on both hosts.  CRIU (4.2) itself asks for root or its option `unprivileged`, and
for CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE; what each of the others is for is in the section
NON-ROOT of its manual, and in the code that fails without it.
"""

from pathlib import Path
from typing import Final

from phaul.protocol.preflight import Finding, Level, Where

__all__ = ["capabilities", "privileges"]

_LIMIT: Final = 1 << 16

_NUMBERS: Final = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_RESOURCE": 24,
    "CAP_CHECKPOINT_RESTORE": 40,
}

_MEANS: Final = {
    "CAP_SYS_ADMIN": "no namespace can be made or entered, and no seccomp filter restored",
    "CAP_NET_ADMIN": "TCP connections and network namespaces cannot be moved",
    "CAP_SYS_CHROOT": "no task with a root directory of its own can be moved",
    "CAP_SETUID": "no task of another user can be restored",
    "CAP_SETGID": "no task of another group can be restored",
    "CAP_SETPCAP": "no task whose capabilities are bounded can be restored",
    "CAP_DAC_OVERRIDE": "files of other users may not be opened",
    "CAP_SYS_RESOURCE": (
        "resource limits cannot be raised to what the tree had, and CRIU's pipes not beyond "
        "/proc/sys/fs/pipe-max-size, so that a dump of much memory can fail (4 MiB there help)"
    ),
}
_REMEDY: Final = "run phaul as root, outside of a container (or `podman run --privileged`)"


def capabilities(proc: Path = Path("/proc")) -> frozenset[str]:
    """Which of the capabilities that matter to CRIU this process has.  Raises OSError."""
    mask = _effective(_status(proc))
    return frozenset(name for name, number in _NUMBERS.items() if mask >> number & 1)


def privileges(where: Where, proc: Path = Path("/proc")) -> tuple[Finding, ...]:
    """The findings of `privileges` on this host, which is `where`; an ok if nothing is missing."""

    def finding(level: Level, what: str, remedy: str = "") -> Finding:
        return Finding(check="privileges", level=level, where=where, what=what, remedy=remedy)

    try:
        status = _status(proc)
        have = capabilities(proc)
    except OSError as error:
        return (finding(Level.NO, f"{error.filename} cannot be read: {error.strerror}", _REMEDY),)
    found = []
    user = _user(status)
    if user != 0:
        found.append(
            finding(Level.NO, f"phaul runs as user {user}: CRIU wants root", "run phaul as root")
        )
    if not have & {"CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"}:
        what = "CAP_SYS_ADMIN and CAP_CHECKPOINT_RESTORE are missing: CRIU refuses to work"
        found.append(finding(Level.NO, what, _REMEDY))
    if "CAP_SYS_PTRACE" not in have:
        restricted = _number(proc / "sys/kernel/yama/ptrace_scope") > 0
        level = Level.NO if restricted else Level.WARNING
        what = "CAP_SYS_PTRACE is missing: tasks with more rights than phaul's cannot be stopped"
        if restricted:
            what = "CAP_SYS_PTRACE is missing, and kernel.yama.ptrace_scope forbids to stop a task"
        found.append(finding(level, what, _REMEDY))
    found += [
        finding(Level.WARNING, f"{name} is missing: {means}", _REMEDY)
        for name, means in _MEANS.items()
        if name not in have
    ]
    if _in_user_namespace(proc):
        what = "phaul runs in a user namespace, in which CRIU cannot see the files that are mapped"
        found.append(finding(Level.WARNING, what, _REMEDY))
    return tuple(found) or (finding(Level.OK, "root, with all capabilities that CRIU needs"),)


def _status(proc: Path) -> dict[str, str]:
    with (proc / "self/status").open("rb") as file:
        lines = file.read(_LIMIT).decode(errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _effective(status: dict[str, str]) -> int:
    try:
        return int(status.get("CapEff", "0"), 16)
    except ValueError:
        return 0


def _user(status: dict[str, str]) -> int | None:
    """The effective user, None if it is not told."""
    fields = status.get("Uid", "").split()
    return int(fields[1]) if len(fields) > 1 and fields[1].isdecimal() else None


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _in_user_namespace(proc: Path) -> bool:
    try:
        fields = (proc / "self/uid_map").read_text().split()
    except OSError:
        return False  # the kernel has none
    return fields != ["0", "0", "4294967295"]
