"""The processes of a tree: which they are, and what each of them is.

Used in preflight, on the source, while the tree runs on: a process that ends meanwhile is left out,
one that was just born is found by walking until two walks agree, and CRIU, which freezes, has the
last word.
"""

from typing import Final

from phaul.errors import SubjectError
from phaul.facts import NAMESPACE_KINDS, NamespaceKind, Nested, Process
from phaul.subjects.proc import HOST, Proc

__all__ = ["inner_pid", "nested", "own_namespaces", "processes", "tree_pids"]

_WALKS: Final = 4


def tree_pids(root: int, proc: Proc, *, still: bool = False) -> list[int]:
    """The PIDs of the tree below `root`, itself first; empty if it is gone.

    One that stands `still` is walked once.
    """
    found = _walk(root, proc)
    for _ in range(0 if still else _WALKS - 1):
        again = _walk(root, proc)
        if set(again) == set(found):
            break
        found = again
    return found


def _walk(root: int, proc: Proc) -> list[int]:
    if proc.process(root) is None:
        return []
    found = {root: None}  # a dict keeps the order
    waiting = [root]
    kin: dict[int, list[int]] | None = None
    while waiting:
        pid = waiting.pop()
        for thread in proc.numbers(pid, "task"):
            text = proc.text(pid, "task", str(thread), "children")
            if text is None and thread == pid and proc.process(pid):
                # A kernel without CONFIG_PROC_CHILDREN.
                kin = _by_parent(proc) if kin is None else kin
                young = kin.get(pid, [])
            else:
                young = [int(word) for word in (text or "").split() if word.isdecimal()]
            for child in young:
                if child not in found:
                    found[child] = None
                    waiting.append(child)
    return list(found)


def inner_pid(pid: int, proc: Proc | None = None) -> int:
    """The PID of a process in its own namespace, by which CRIU's images know it."""
    words = ((proc or Proc()).status(pid) or {}).get("NSpid", "").split()
    return int(words[-1]) if words and words[-1].isdecimal() else pid


def _by_parent(proc: Proc) -> dict[int, list[int]]:
    kin: dict[int, list[int]] = {}
    for pid in proc.pids():
        if stat := proc.process(pid):
            kin.setdefault(stat.parent, []).append(pid)
    return kin


def processes(root: int, proc: Proc) -> tuple[Process, ...]:
    """The tree below `root`, without those that are gone by now.

    Raises SubjectError if the root process itself is.
    """
    found = [p for pid in tree_pids(root, proc) if (p := _process(pid, proc))]
    if not found or found[0].pid != root:
        raise SubjectError(f"process {root} has just ended", host=HOST)
    return tuple(found)


def _process(pid: int, proc: Proc) -> Process | None:
    stat, status = proc.process(pid), proc.status(pid)
    if stat is None or status is None:
        return None
    inner = status.get("NSpid", "").split() or [str(pid)]
    tracer = status.get("TracerPid", "0")
    kinds = {kind: _namespace(pid, kind, proc) for kind in NAMESPACE_KINDS}
    return Process(
        pid=pid,
        inner=int(inner[-1]) if inner[-1].isdecimal() else pid,
        parent=stat.parent,
        group=max(0, stat.group),
        session=max(0, stat.session),
        start=stat.start,
        name=stat.name,
        state=stat.state,
        terminal=stat.terminal,
        tracer=int(tracer) if tracer.isdecimal() else 0,
        threads=tuple(proc.numbers(pid, "task")) or (pid,),
        namespaces={kind: inode for kind, inode in kinds.items() if inode},
    )


def _namespace(pid: int | str, kind: NamespaceKind, proc: Proc) -> int:
    """The inode of a namespace; 0 for a zombie's, and for a kind that this kernel has not."""
    link = proc.link(pid, "ns", kind) or ""
    inode = link.partition(":[")[2].rstrip("]")
    return int(inode) if inode.isdecimal() else 0


def own_namespaces(root: Process, proc: Proc) -> tuple[NamespaceKind, ...]:
    """The kinds of namespaces that the root process has, and phaul's own process has not."""
    return tuple(
        kind
        for kind, inode in root.namespaces.items()
        if inode != (_namespace("self", kind, proc) or inode)
    )


def nested(tree: tuple[Process, ...]) -> tuple[Nested, ...]:
    """The namespaces of processes that are not those of the root process."""
    root = tree[0].namespaces
    return tuple(
        Nested(pid=process.pid, kind=kind)
        for process in tree[1:]
        for kind, inode in process.namespaces.items()
        if inode != root.get(kind, inode)
    )
