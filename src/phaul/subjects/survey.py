"""The survey: all that a process tree uses, looked at while it runs.

Used in preflight, on the source.  It stops nothing and changes nothing; what changes meanwhile is
as it was at one moment of it.  It takes some milliseconds a process, and a walk over the page
tables (smaps): some 10 ms a GiB.
"""

from collections.abc import Callable

from phaul.facts import Mapping, Survey
from phaul.subjects import descriptors
from phaul.subjects.confinement import find_cgroups, find_profiles
from phaul.subjects.files import Files
from phaul.subjects.memory import add_up, mappings, read_areas
from phaul.subjects.proc import Proc
from phaul.subjects.sockdiag import Diag, ask
from phaul.subjects.sockets import find_sockets
from phaul.subjects.tree import nested, own_namespaces, processes
from phaul.subjects.watches import find_watches

__all__ = ["Survey", "survey"]


def survey(
    root_pid: int, proc: Proc | None = None, diag: Callable[[str], Diag | None] = ask
) -> Survey:
    """Look at the tree below `root_pid`; `proc` and `diag` are other sources for tests.

    Blocks: an asynchronous caller gives it a thread.  Raises SubjectError if the process has ended,
    or may not be looked at.
    """
    proc = Proc() if proc is None else proc
    tree = processes(root_pid, proc)
    own = own_namespaces(tree[0], proc)
    shared_mounts = "mnt" not in own
    files = Files(proc, tree, shared_mounts=shared_mounts)
    opened: list[descriptors.Descriptor] = []
    special: list[Mapping] = []
    areas = []
    for process in tree:
        here = read_areas(process.pid, proc)
        areas.append(here)
        special += mappings(process.pid, here, proc)
        files.add_process(process.pid)
        files.add_mapped(process.pid, here)
        opened += descriptors.read(process.pid, proc)
    files.add_open(opened)
    sockets = find_sockets(opened, tree, proc, diag)
    watches = tuple(find_watches(opened, tree, proc, shared_mounts=shared_mounts))
    for watch in watches:
        if watch.of == "inode":
            files.add_place(watch.pid, "inotify", watch.path)
    for socket in sockets.unix:
        if socket.path.startswith("/"):
            files.add_place(socket.pid, "unix", socket.path.rpartition("/")[0] or "/")
    pids = [process.pid for process in tree]
    return Survey(
        root=root_pid,
        processes=tree,
        memory=add_up(areas),
        own=own,
        nested=nested(tree),
        files=files.found,
        mappings=tuple(special),
        locks=tuple(descriptors.find_locks(opened)),
        pipes=tuple(descriptors.find_pipes(opened)),
        terminals=tuple(descriptors.find_terminals(opened)),
        specials=tuple(descriptors.find_specials(opened, tree)),
        watches=watches,
        inet=tuple(sockets.inet),
        unix=tuple(sockets.unix),
        netlink=tuple(sockets.netlink),
        packet=tuple(sockets.packet),
        others=tuple(sockets.others),
        cgroups=find_cgroups(pids, proc),
        profiles=find_profiles(pids, proc),
    )
