"""What phaul has changed on the source for a while is given back, whatever happens to phaul.

Runs on the source, in the pre-copy and the cutover of a migration whose user asked for it, and in
whoever comes after a phaul that died.  What is going to be changed is written down beside the
journal before it is; and a watcher, a process of its own that hears of phaul's end by a pipe, gives
it back then.

    note(a part) --> it is changed --> it is given back --> settle --> done

A part is what is given back at once: the CPU time of the process (`slowing`), khugepaged's pace
(`hugepages`).
"""

import contextlib
import logging
import os
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Final

import anyio.to_thread
import msgspec
from msgspec import Meta

from phaul.errors import PhaulError, StateError
from phaul.incarnation import Incarnation
from phaul.storage.aftermath import OWED
from phaul.storage.state_dir import read_whole, write_whole
from phaul.subjects.khugepaged import Khugepaged, Pace
from phaul.subjects.slow import SlowedGroup, TreeSlow

__all__ = ["Owed", "Owing", "Part", "give_back_left"]

_LIMIT: Final = 4 << 20
_WATCHER_S: Final = 10.0

_logger = logging.getLogger("phaul")


class Owed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has to be given back, written down by `phaul`, which is its own to do while it lives.

    `groups` are slowed down; `khugepaged_ms` is the pace that khugepaged had, None if it still has.
    """

    version: int = 1
    phaul: Incarnation
    groups: Annotated[tuple[SlowedGroup, ...], Meta(max_length=16_384)] = ()
    khugepaged_ms: Pace | None = None


class Part(Enum):
    """What may be owed, by its field of `Owed`."""

    GROUPS = "groups"
    KHUGEPAGED = "khugepaged_ms"


class Owing:
    """What this phaul owes; `directory` is the migration's own."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / OWED
        self._owed: dict[Part, object] = {}
        self._under_way: set[Part] = set()
        self._watcher: subprocess.Popen[bytes] | None = None

    def note(self, part: Part, thing: object) -> None:
        """Write down what is going to be changed, and have it watched over; blocks.

        Raises StateError if it cannot be written: then it must not be changed.
        """
        me = Incarnation.of(os.getpid())
        assert me is not None
        owed = {**self._owed, part: thing}
        fields = {each.value: value for each, value in owed.items()}
        try:
            # A power cut takes all of it with it: it need not be on the disk.
            data = msgspec.json.encode({"phaul": me, **fields})
            write_whole(self._file, data, sync=False)
        except OSError as error:
            raise StateError(
                f"{self._file} cannot be written: {error.strerror}",
                remedy="make room on its file system",
            ) from error
        self._owed = owed
        self._under_way.add(part)
        if self._watcher is None:
            self._watch()

    def settle(self, part: Part) -> None:
        """It was given back; may be called while the process stands still.

        As long as another part is owed the file stays as it is: what is given back again stays as
        it was.
        """
        self._owed.pop(part, None)
        if not self._owed:
            with contextlib.suppress(OSError):
                self._file.unlink()

    async def done(self, part: Part) -> None:
        """Nothing more comes of a part; with the last one the watcher may go.

        What is still owed is tried once more by it.
        """
        self._under_way.discard(part)
        if not self._under_way:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._dismiss)

    def _watch(self) -> None:
        try:
            self._watcher = subprocess.Popen(
                [sys.executable, "-P", "-m", "phaul.source.watcher", str(self._file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            _logger.warning("nobody watches over this phaul: %s", error)

    def _dismiss(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is None:
            return
        assert watcher.stdin is not None
        watcher.stdin.close()
        try:
            watcher.wait(_WATCHER_S)
        except subprocess.TimeoutExpired:
            watcher.kill()
            watcher.wait()


def give_back_left(
    file: Path,
    slow: TreeSlow | None = None,
    khugepaged: Khugepaged | None = None,
    *,
    orphaned: bool = False,
) -> Owed | None:
    """Give back what a phaul that died has left; what that was, None if there is nothing.

    `file` is `owed.json` in a migration's directory.  One whose phaul lives is left alone, unless
    it is known to be `orphaned`.  Raises StateError for a file that is damaged; CgroupError or
    SubjectError where something cannot be given back, when all else was.
    """
    try:
        found = msgspec.json.decode(read_whole(file, _LIMIT), type=Owed)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise StateError(
            f"{file} cannot be read: {str(error)[:200]}",
            remedy="see cpu.max of the process's cgroup, and khugepaged/scan_sleep_millisecs in "
            "/sys/kernel/mm/transparent_hugepage",
        ) from error
    if found.phaul.alive() and not orphaned:
        return None
    me = Incarnation.of(os.getpid())
    same_boot = me is not None and me.boot == found.phaul.boot
    if same_boot:
        _give_back(found, slow or TreeSlow(), khugepaged or Khugepaged())
    with contextlib.suppress(OSError):
        file.unlink()
    return found if same_boot else None


def _give_back(owed: Owed, slow: TreeSlow, khugepaged: Khugepaged) -> None:
    failure: PhaulError | None = None
    if owed.khugepaged_ms is not None:
        try:
            khugepaged.resume(owed.khugepaged_ms)
        except PhaulError as error:
            failure = error
    if owed.groups:
        slow.give_back(owed.groups)
    if failure is not None:
        raise failure
