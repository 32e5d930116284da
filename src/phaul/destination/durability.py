"""The images' way to the disk, beside the rounds and the restore.

Runs on the destination, from the first round to the end.  What is on the disk outlives a power cut
in the moments in which neither host runs the process, and a copy that waits for the source's word.
"""

import ctypes
import logging
import os
from contextlib import suppress
from ctypes import c_int64
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup
from anyio.to_thread import run_sync as in_thread

from phaul.storage.state_dir import sync_entry

__all__ = ["Durability"]

_SYNC_FILE_RANGE_WRITE: Final = 2
"""include/uapi/linux/fs.h"""

_TAKE_OVER_S: Final = 30.0
"""So long a dead agent's images may take to get to the disk, before it is told of them."""

_libc = ctypes.CDLL(None)
_logger = logging.getLogger("phaul")


class Durability:
    """Brings folders of images to the disk, by tasks of `tasks`."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._behind: list[Path] = []
        self._syncing: list[anyio.Event] = []
        self._failed = False

    def written(self, folder: Path) -> None:
        """A round is complete: have what is in its folder begin to go to the disk.

        It is not waited for there before `sync`: a file system that brings its own journal to the
        disk holds up who makes files in it, and after the last round the images come.
        """
        self._behind.append(folder)
        self._tasks.start_soon(self.begin, folder)

    async def begin(self, folder: Path) -> None:
        """Have what is in a folder begin to go to the disk, and wait for none of it.

        What is synced next, whatever it is, takes along what that needs of the file system's own
        journal: images that come after it are mostly there already.
        """
        with suppress(OSError):  # told when it is synced
            await in_thread(_begin_writing, folder)

    def sync(self, folder: Path | None = None, *, after: anyio.Event | None = None) -> None:
        """Bring all that was written to the disk, and `folder`, once `after` is set."""
        folders, self._behind = self._behind, []
        if folder is not None and folder not in folders:
            folders.append(folder)
        done = anyio.Event()
        self._syncing.append(done)
        self._tasks.start_soon(self._sync, folders, done, after)

    async def _sync(
        self, folders: list[Path], done: anyio.Event, after: anyio.Event | None
    ) -> None:
        try:
            if after is not None:
                await after.wait()
            for folder in folders:
                await in_thread(_sync_files, folder)
        except FileNotFoundError:
            self._failed = True  # removed meanwhile: nobody needs it any more
        except OSError as error:
            self._failed = True
            _logger.warning("the images are not on the disk: %s", error)
        finally:
            done.set()

    async def bring(self, images: Path) -> bool:
        """Bring all folders below `images` to the disk that a dead agent left; whether they are."""
        with suppress(OSError):
            for folder in images.iterdir():
                self.sync(folder)
            return await self.reached(_TAKE_OVER_S)
        return False

    async def reached(self, within: float) -> bool:
        """Whether all of it is on the disk, waited for `within` so many seconds at most."""
        with anyio.move_on_after(within):
            for done in self._syncing:
                await done.wait()
        return not self._failed and not self._behind and all(x.is_set() for x in self._syncing)

    async def ended(self) -> None:
        """Wait until nothing is under way any more."""
        for done in self._syncing:
            await done.wait()


def _sync_files(folder: Path) -> None:
    """Bring all files of a folder to the disk, and that they are there; raises OSError.

    All are begun before the first is waited for: 1,200 small images on ext4 take 80 ms so, and
    230 ms one after the other.
    """
    for path in (*_begin_writing(folder), folder, folder.parent, folder.parent.parent):
        sync_entry(path)


def _begin_writing(folder: Path) -> list[Path]:
    """Have all files of a folder begin to go to the disk, and return them; raises OSError."""
    with os.scandir(folder) as entries:
        # Not the socket of CRIU's daemon, nor what only that needs.
        files = [Path(each.path) for each in entries if each.is_file(follow_symlinks=False)]
    for path in files:
        _begin_writing_one(path)
    return files


def _begin_writing_one(path: Path) -> None:
    """sync_file_range(2), where there is one; what fails is told by fsync."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        with suppress(AttributeError):
            _libc.sync_file_range(descriptor, c_int64(0), c_int64(0), _SYNC_FILE_RANGE_WRITE)
    finally:
        os.close(descriptor)
