"""The cgroups that a tree is in, and the security profiles that its processes are confined by.

Used in preflight, on the source.  From /proc/PID/cgroup, cgroups(7), and /proc/PID/attr.
"""

from collections.abc import Iterable
from typing import Final

from phaul.errors import SubjectError
from phaul.facts import Cgroup, Profile
from phaul.subjects.proc import Proc

__all__ = ["find_cgroups", "find_profiles", "parse_cgroups", "parse_label"]

_DELETED: Final = " (deleted)"
_FREE: Final = frozenset({"", "unconfined", "kernel"})


def parse_cgroups(text: str) -> list[Cgroup]:
    """Read a cgroup file, "4:memory:/x": lines that are not understood are passed over."""
    found = []
    for line in text.split("\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number.isdecimal() and path.startswith("/"):
            found.append(Cgroup(controllers=controllers, path=path.removesuffix(_DELETED)))
    return found


def find_cgroups(pids: Iterable[int], proc: Proc) -> tuple[Cgroup, ...]:
    """The cgroups of the processes, each once, without the root ones."""
    found = {
        cgroup: None
        for pid in pids
        for cgroup in parse_cgroups(proc.text(pid, "cgroup") or "")
        if cgroup.path != "/"
    }
    return tuple(found)


def parse_label(pid: int, text: str, *, apparmor: bool) -> Profile | None:
    """Read a label of attr/current: None if it confines nothing.

    AppArmor's is a profile and its mode, "docker-default (enforce)"; SELinux's has four parts,
    "system_u:system_r:container_t:s0", and one whose type is unconfined_t confines nothing.
    """
    label = text.strip("\0\n ")
    if apparmor or " (" in label or label.count(":") < 2:
        profile = label.partition(" (")[0]
        return None if profile in _FREE else Profile(pid=pid, kind="apparmor", profile=profile)
    if label.split(":")[2] in {"unconfined_t", "kernel_t"}:
        return None
    return Profile(pid=pid, kind="selinux", profile=label)


def find_profiles(pids: Iterable[int], proc: Proc) -> tuple[Profile, ...]:
    """The profiles, each once."""
    found: dict[tuple[str, str], Profile] = {}
    for pid in pids:
        own = _attribute(pid, proc, "attr", "apparmor", "current")
        text = own or _attribute(pid, proc, "attr", "current")
        if text and (profile := parse_label(pid, text, apparmor=bool(own))):
            found.setdefault((profile.kind, profile.profile), profile)
    return tuple(found.values())


def _attribute(pid: int, proc: Proc, *parts: str) -> str:
    try:
        return proc.text(pid, *parts) or ""
    except SubjectError:  # without a security module, reading it is an error
        return ""
