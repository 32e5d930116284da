"""Judges the memory of a tree, its namespaces, its confinement, and who watches it.

Used in preflight, on the source.  Pure.  By CRIU's `mem.c`, `namespaces.c`, `cr-dump.c`, `lsm.c`
(4.1 to 4.2).
"""

from collections.abc import Iterable
from typing import Final

from phaul.facts import Survey
from phaul.plan.judges.words import Verdict, shown, size
from phaul.protocol.preflight import Finding

__all__ = ["judge_system"]

_MAY_NEST: Final = frozenset({"mnt", "net"})
"""Kinds of which a part of the tree may have others than the root process."""


def judge_system(survey: Survey) -> Iterable[Finding]:
    """Findings of privileges (only if something is wrong), memory, locked, lsm, namespaces."""
    yield from _traced(survey)
    yield from _memory(survey)
    yield from _locked(survey)
    yield from _lsm(survey)
    yield from _namespaces(survey)


def _traced(survey: Survey) -> Iterable[Finding]:
    verdict = Verdict("privileges")
    traced = [process for process in survey.processes if process.tracer]
    for process in traced:
        verdict.no(
            f"PID {process.pid} is traced by process {process.tracer}, so that CRIU cannot",
            "end the debugger or strace",
        )
    return verdict.close("") if traced else ()


def _memory(survey: Survey) -> Iterable[Finding]:
    verdict = Verdict("memory")
    memory = survey.memory
    if memory.huge:
        verdict.warn(
            f"{size(memory.huge)} in huge pages of {size(memory.huge_page)}: sent whole each "
            "round, never restored lazily",
            "reserve as many there: vm.nr_hugepages",
        )
    swapped = f", {size(memory.swapped)} swapped out" if memory.swapped else ""
    return verdict.close(f"{size(memory.resident)} resident{swapped}")


def _locked(survey: Survey) -> Iterable[Finding]:
    verdict = Verdict("locked")
    if locked := survey.memory.locked:
        verdict.warn(
            f"{size(locked)} of locked memory: it is restored while the process stands still, "
            "never lazily",
            "unlock what need not be (munlock, munlockall)",
        )
    return verdict.close("no locked memory")


def _lsm(survey: Survey) -> Iterable[Finding]:
    if not survey.profiles:
        return Verdict("lsm").close("no process is confined")
    names = sorted({f"{p.kind} {shown(p.profile)}" for p in survey.profiles})
    return Verdict("lsm").close(f"confined by {', '.join(names[:10])}, which has to be known there")


def _namespaces(survey: Survey) -> Iterable[Finding]:
    verdict = Verdict("namespaces")
    for nested in survey.nested:
        if nested.kind not in _MAY_NEST:
            verdict.no(
                f"PID {nested.pid} has another {nested.kind} namespace than PID {survey.root}: "
                "CRIU cannot dump nested ones",
                "end that process, or move the two as trees of their own",
            )
    root = survey.root_process
    if "pid" in survey.own and root.inner != 1:
        verdict.no(
            f"PID {root.pid} is not the first process of its PID namespace, but PID {root.inner}",
            "move the whole namespace: name the process that is PID 1 in it",
        )
    if "ipc" not in survey.own:
        for mapping in survey.mappings:
            if mapping.kind == "sysv":
                verdict.no(
                    f"PID {mapping.pid} has System V shared memory at {mapping.address:#x}, which "
                    "CRIU takes only along with an IPC namespace",
                    "start the program by `unshare --ipc`",
                )
    if "mnt" in survey.own:
        verdict.warn(
            "the tree has mounts of its own: what is bound into them from outside has to be named "
            "to CRIU",
            "move a container by its engine: runc:ID, podman:NAME, lxc:NAME",
        )
    if "net" in survey.own:
        verdict.warn(
            "the tree has a network namespace of its own: its virtual interfaces have to be "
            "connected there",
        )
    if "user" in survey.own:
        verdict.warn("the tree has a user namespace of its own: the same IDs are needed there")
    if not survey.own:
        return verdict.close("none of its own")
    return verdict.close(f"{', '.join(survey.own)}: made again there")
