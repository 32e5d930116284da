"""Judges the files, directories, devices and locks of a tree.

Used in preflight, on the source.  Pure.  By CRIU's `files-reg.c`, `files.c` and `file-lock.c` (4.1
to 4.2): what has no name any more is copied into the images up to the ghost limit, what has another
name needs a link beside it, which no other machine has; of devices it takes those of memory
(/dev/null and its kin), terminals, net/tun and autofs.
"""

import os
from collections.abc import Iterable
from typing import Final

from phaul.facts import Fate, File, Survey, sendable
from phaul.plan.judges.words import Verdict, count, held, shown, size
from phaul.protocol.preflight import Finding

__all__ = ["GHOST_LIMIT", "MOST_GHOST", "judge_files"]

GHOST_LIMIT: Final = 1 << 20
"""CRIU's default, in bytes on the disk."""
MOST_GHOST: Final = (1 << 32) - 1
"""The most that a request can ask for: the field has 32 bits."""

_PLACES: Final = frozenset({"cwd", "root"})
_MEMORY, _MISC = 1, 10
_TUN, _AUTOFS = 200, 235
_TTY: Final = (5, 0)
_KERNELS_OWN: Final = ("/proc/", "/dev/pts/")


def judge_files(survey: Survey) -> Iterable[Finding]:
    """Findings of files, directories, unlinked, locks and devices."""
    yield from _files(survey)
    yield from _directories(survey)
    yield from _unlinked(survey)
    yield from _locks(survey)
    yield from _devices(survey)


def _files(survey: Survey) -> Iterable[Finding]:
    verdict = Verdict("files")
    for file in survey.files:
        name = shown(file.path)
        if not file.mounted:
            verdict.no(
                f"{name} ({held(file)}) was opened outside of the process's mount namespace",
                "start the process with its standard streams opened inside, as by "
                "`</dev/null >/var/log/its.log 2>&1`",
            )
        elif file.fate is Fate.REPLACED:
            verdict.no(
                f"{name} ({held(file)}) has become another file since it was opened",
                "restart the process, or put the old file back in its place",
            )
        elif not sendable(file.path) and file.fate is Fate.THERE:
            verdict.warn(
                f"{name} ({held(file)}) has a name that cannot be asked for on the destination",
                "see yourself that it is there",
            )
    known = {file.path for file in survey.files if file.use not in _PLACES}
    return verdict.close(f"{count(len(known), 'file')} mapped or open, each by its name")


def _directories(survey: Survey) -> Iterable[Finding]:
    verdict = Verdict("directories")
    for file in survey.files:
        if file.use in _PLACES and file.fate is Fate.UNLINKED:
            what = "working directory" if file.use == "cwd" else "root directory"
            verdict.warn(
                f"the {what} of PID {file.pid}, {shown(file.path)}, was removed",
                "it has none on the destination either",
            )
    return verdict.close("working directories and roots are there")


def _unlinked(survey: Survey) -> Iterable[Finding]:
    verdict = Verdict("unlinked")
    ghosts: dict[str, File] = {}
    for file in survey.files:
        if file.use in _PLACES or not file.mounted or file.path.startswith(_KERNELS_OWN):
            continue
        name = f"{shown(file.path)} ({held(file)})"
        if file.fate is Fate.ELSEWHERE:
            verdict.no(
                f"{name} has lost that name, but has another one",
                "close it, or give it its name back (`ln`); `--allow unlinked` only where both "
                "machines share that file system",
            )
        elif file.fate is Fate.UNLINKED:
            ghosts.setdefault(name, file)
    for name, file in ghosts.items():
        if file.disk > MOST_GHOST:
            verdict.no(
                f"{name} is unlinked and has {size(file.disk)}; CRIU takes 4 GiB at the most",
                "have the process close it",
            )
        elif file.disk > GHOST_LIMIT:
            verdict.no(
                f"{name} is unlinked and has {size(file.disk)}, more than "
                f"{size(GHOST_LIMIT)}: it would be copied while the process stands still",
                "have the process close it, or accept that with `--allow unlinked`",
            )
    total = sum(file.disk for file in ghosts.values())
    if not ghosts:
        return verdict.close("no unlinked file is open")
    return verdict.close(f"{count(len(ghosts), 'unlinked file')}, {size(total)}, taken along")


def _locks(survey: Survey) -> Iterable[Finding]:
    verdict = Verdict("locks")
    for lock in survey.locks:
        if lock.kind == "other":
            verdict.no(
                f"{shown(lock.path)} ({held(lock)}) has a lock of a kind that CRIU does not know",
                "have the process give it up",
            )
    if not survey.locks:
        return verdict.close("no file locks")
    return verdict.close(f"{count(len(survey.locks), 'file lock')}, taken again there (file_locks)")


def _devices(survey: Survey) -> Iterable[Finding]:
    verdict = Verdict("devices")
    close = "have the process close it"
    fine = set()
    for file in survey.files:
        if file.kind not in {"character", "block"}:
            continue
        name = f"{shown(file.path)} ({held(file)})"
        number = os.major(file.device), os.minor(file.device)
        if file.kind == "character" and (
            number[0] == _MEMORY or number in {_TTY, (_MISC, _AUTOFS)}
        ):
            fine.add(file.path)
        elif file.kind == "character" and number == (_MISC, _TUN):
            if "net" in survey.own:
                verdict.warn(f"{name} is a tunnel: its interface is made anew there")
            else:
                verdict.no(
                    f"{name} is a tunnel, which CRIU takes only along with a network namespace",
                    f"{close}, or start it in a network namespace of its own",
                )
        else:
            verdict.no(f"{name} is a {file.kind} device that CRIU cannot dump", close)
    for mapping in survey.mappings:
        if mapping.kind != "sysv":
            name = shown(mapping.path) or "memory of a device"
            verdict.no(
                f"{name} is mapped by PID {mapping.pid} at {mapping.address:#x}: the state of a "
                "device cannot be dumped",
                "have the process unmap it",
            )
    if not fine:
        return verdict.close("no devices")
    return verdict.close(", ".join(sorted(shown(path) for path in fine)[:10]))
