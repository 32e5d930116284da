"""What the new host must have for a surveyed tree.

Used in preflight, on the source; the destination answers.  Pure.
"""

from collections.abc import Iterable
from typing import Final, Literal

from phaul.facts import Fate, File, Inet, Survey, sendable
from phaul.protocol.preflight import (
    AddressNeed,
    CgroupNeed,
    FileNeed,
    LsmNeed,
    MemoryNeed,
    NamespaceNeed,
    Need,
    PidsNeed,
    ToolNeed,
)

__all__ = ["needs"]

_MOST_PIDS: Final = 16_384
"""In one need; a larger tree has several."""
_MOST_TAG: Final = 512
_MOST_BYTES: Final = 1 << 50
_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})
_Protocol = Literal["tcp", "udp", "udplite", "raw"]


def needs(survey: Survey, *, tcp_kept: bool = True) -> tuple[Need, ...]:
    """The needs, without those of the images' space and of the CPU, which are not the survey's.

    `tcp_kept` False leaves out what established connections need.  More than a message takes is
    the caller's to ask in turns.
    """
    found: list[Need] = list(_files(survey))
    found += _pids(survey)
    if "net" not in survey.own:
        found += _addresses(survey, tcp_kept)
    memory = survey.memory
    found.append(
        MemoryNeed(
            resident=min(memory.resident, _MOST_BYTES),
            locked=min(memory.locked, _MOST_BYTES),
            huge=min(memory.huge, _MOST_BYTES),
            huge_page=memory.huge_page,
        )
    )
    if "cgroup" not in survey.own:
        found += (
            CgroupNeed(controllers=cgroup.controllers, path=cgroup.path)
            for cgroup in survey.cgroups
            if sendable(cgroup.path) and len(cgroup.controllers) <= _MOST_TAG
        )
    found += (
        LsmNeed(kind=profile.kind, profile=profile.profile, pid=profile.pid)
        for profile in survey.profiles
        if len(profile.profile) <= _MOST_TAG
    )
    if survey.own:
        found.append(NamespaceNeed(kinds=survey.own))
    return (*found, *_tools(survey))


def _files(survey: Survey) -> Iterable[FileNeed]:
    """Files that have to be there: each path once, with all that any use of it compares."""
    chosen: dict[str, File] = {}
    for file in survey.files:
        if file.fate is not Fate.THERE or not sendable(file.path) or _kernels_own(file.path):
            continue
        known = chosen.get(file.path)
        if known is None or (_compared(file) and not _compared(known)):
            chosen[file.path] = file
    for file in chosen.values():
        whole = _compared(file)
        yield FileNeed(
            path=file.path,
            use=file.use,
            kind=file.kind,
            mode=file.mode,
            pid=file.pid,
            size=file.size if whole else None,
            build_id=file.build_id if whole else "",
            device=file.device,
            written=file.written,
        )


def _compared(file: File) -> bool:
    """Whether CRIU compares its size, and its build-id if it has one."""
    return file.kind == "file" and file.use in {"exe", "mapped", "open"} and not file.append_only


def _kernels_own(path: str) -> bool:
    """What of /proc is the tree's own processes', which are made again with them."""
    first, _, rest = path.removeprefix("/proc/").partition("/")
    return path.startswith("/proc/") and (first.isdecimal() or (not rest and first == "self"))


def _pids(survey: Survey) -> Iterable[PidsNeed]:
    """PIDs to be free.  A tree that leads no session gets that of the restorer, and its group."""
    if "pid" in survey.own:
        return
    root = survey.root_process
    lent = set()
    if survey.joins_session:
        lent.add(root.session)
        if root.group != root.pid:
            lent.add(root.group)
    pids = {pid for process in survey.processes for pid in process.threads}
    groups = {n for process in survey.processes for n in (process.group, process.session)}
    wanted = sorted((pids | (groups - lent)) - {0})
    for at in range(0, len(wanted), _MOST_PIDS):
        yield PidsNeed(pids=tuple(wanted[at : at + _MOST_PIDS]))


def _addresses(survey: Survey, tcp_kept: bool) -> Iterable[AddressNeed]:
    """Addresses of bound and of connected sockets, each once."""
    seen = set()
    closed = set() if tcp_kept else set(survey.connections)
    for socket in survey.inet:
        if socket in closed:
            continue
        listening = _receives(socket)
        if (socket.address in _WILDCARDS and not listening) or socket.protocol == "icmp":
            continue
        protocol: _Protocol = socket.protocol
        port = 0 if protocol == "raw" else socket.port
        key = (socket.address, port, protocol, listening)
        if key not in seen:
            seen.add(key)
            yield AddressNeed(
                address=socket.address,
                port=port,
                protocol=protocol,
                listening=listening,
                pid=socket.pid,
            )


def _receives(socket: Inet) -> bool:
    """Whether it takes its port for itself: a listener, or a datagram socket that has no peer."""
    if socket.protocol == "tcp":
        return socket.state == "LISTEN"
    return socket.protocol in {"udp", "udplite"} and socket.remote_port == 0 and socket.port != 0


def _tools(survey: Survey) -> Iterable[ToolNeed]:
    if "mnt" in survey.own:
        yield ToolNeed(name="tar", purpose="to fill the temporary file systems of the tree")
    if "net" in survey.own:
        yield ToolNeed(name="ip", purpose="to make the routes of the tree's network namespace")
