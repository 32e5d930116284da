"""The userfaultfds of CRIU's lazy-pages daemon, held a second time.

Used on the destination, from the end of the restore until the last page is in.  When the last copy
of such a descriptor is closed, the kernel takes memory that is not there yet for zeros, and the
process runs on with them.  With a copy of ours it waits instead, whatever becomes of the daemon.

A copy must not outlive what the daemon has done in order: it closes one when all of a process's
memory is in, and until we do too, that process waits for memory that it touches for the first time.
"""

import ctypes
import errno
import fcntl
import os
import struct
from typing import Final, Protocol

__all__ = ["Mirror", "Userfaults", "is_used"]

_PIDFD_GETFD: Final = 438
_NAME: Final = "anon_inode:[userfaultfd]"
_WRITEPROTECT: Final = 0xC018AA06
"""UFFDIO_WRITEPROTECT of include/uapi/linux/userfaultfd.h."""
_NOWHERE: Final = struct.pack("=QQQ", 1 << 20, 4096, 0)
"""A page, not to be protected.  Nobody protects any, so it changes nothing even if one is there."""

_libc = ctypes.CDLL(None, use_errno=True)


def is_used(descriptor: int) -> bool:
    """Whether the memory behind a userfaultfd is still some process's."""
    try:
        fcntl.ioctl(descriptor, _WRITEPROTECT, bytearray(_NOWHERE))
    except OSError as error:
        return error.errno != errno.ESRCH  # what is not there cannot be protected
    return True


class Mirror(Protocol):
    """Who holds each copy once more."""

    def took(self, inode: int, descriptor: int) -> None:
        """A copy is held, of the userfaultfd with that inode."""

    def gave(self, inode: int) -> None:
        """It is given back."""


class Userfaults:
    """Copies of the userfaultfds of the process behind `pidfd`, whose PID is `pid`.

    `anchor` is a descriptor that it has open until the end: while that is there, one that is not
    there any more was closed on purpose.
    """

    def __init__(self, pid: int, pidfd: int, anchor: int) -> None:
        self._folder = f"/proc/{pid}/fd"
        self._pidfd = pidfd
        self._anchor = anchor
        self._held: dict[int, int] = {}
        self.mirror: Mirror | None = None

    def __len__(self) -> int:
        return len(self._held)

    def refresh(self) -> None:
        """Take those that are new, give back those that it closed while it was not ending.

        Raises OSError if one cannot be taken: no more descriptors, no right to it.
        """
        try:
            found = self._found()
            os.stat(f"{self._folder}/{self._anchor}")  # noqa: PTH116 -- a link to no path
        except OSError:
            return
        for inode in self._held.keys() - found.keys():
            self._give(inode)
        for inode in found.keys() - self._held.keys():
            self._take(inode, found[inode])

    def _found(self) -> dict[int, int]:
        """Its userfaultfds, by inode: each has one of its own."""
        found = {}
        for name in os.listdir(self._folder):  # noqa: PTH208 -- many, and often
            path = f"{self._folder}/{name}"
            try:
                if os.readlink(path) == _NAME:  # noqa: PTH115
                    found[os.stat(path).st_ino] = int(name)  # noqa: PTH116
            except FileNotFoundError:
                continue
        return found

    def _take(self, inode: int, number: int) -> None:
        copy = _libc.syscall(_PIDFD_GETFD, self._pidfd, number, 0)
        if copy < 0:
            code = ctypes.get_errno()
            if code in (errno.EBADF, errno.ESRCH):
                return  # closed since, or ended
            raise OSError(code, f"pidfd_getfd: {os.strerror(code)}")
        if os.fstat(copy).st_ino == inode:
            self._held[inode] = copy
            if self.mirror is not None:
                self.mirror.took(inode, copy)
        else:
            os.close(copy)

    def release_unused(self) -> bool:
        """Give back those whose memory is gone with its last process; whether any are left.

        Who waits for memory behind one that is left would read zeros without it.
        """
        for inode, copy in tuple(self._held.items()):
            if not is_used(copy):
                self._give(inode)
        return bool(self._held)

    def close(self) -> None:
        """Give all back.  May be called again."""
        for inode in tuple(self._held):
            self._give(inode)

    def _give(self, inode: int) -> None:
        os.close(self._held.pop(inode))
        if self.mirror is not None:
            self.mirror.gave(inode)
