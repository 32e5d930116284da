"""phaul's own page server: receives a round's memory, in a thread of its own.

Runs on the destination, from the first round to the end of the final dump.  It has nothing to
start, where CRIU's takes a request and a fork of it in every round, and it takes what CRIU sends as
fast as that sends it: in the final dump the process stands still for all of that.
"""

import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import anyio
from anyio import from_thread
from anyio.abc import TaskGroup
from anyio.lowlevel import current_token
from anyio.to_thread import run_sync as in_thread

from phaul.criu.messages import warm_up
from phaul.destination.chain import MESSAGES
from phaul.destination.intake import Intake, Level, spare_file
from phaul.errors import ImageError, PageStoreError, PhaulError
from phaul.pages.receiving import Commands, PagesFile, receive
from phaul.storage.workdir import ImagesDir

__all__ = ["Iteration", "PageServer", "Reception", "Room"]

_WORTH: Final = 32 << 20
"""For less no room is made ahead: it gains nothing."""
_STEP: Final = 64 << 20
_SHARE: Final = 0.5
"""So much of what is free may be taken ahead."""
_WAIT_S: Final = 1.0


class Room:
    """A file with room for the next round's pages, made beside what goes on; `close` it."""

    def __init__(self, file: PagesFile, size: int) -> None:
        self._file: PagesFile | None = file
        self._size = size
        self._stop = False
        self._done = anyio.Event()

    @classmethod
    def begin(cls, folder: Path, size: int) -> Self | None:
        """One for `size` bytes in the file system of `folder`; None where it cannot have one.

        `make` it then.
        """
        with suppress(OSError):
            file = spare_file(folder)
            free = os.statvfs(folder)
            return cls(file, min(size, int(free.f_bavail * free.f_frsize * _SHARE)))
        return None

    async def make(self) -> None:
        """Give the file its room, step by step, until it is taken or given up."""
        try:
            while (file := self._file) is not None and not self._stop:
                left = self._size - file.capacity
                if left <= 0:
                    break
                await in_thread(file.grow, min(_STEP, left))
        except OSError:
            pass  # a disk that is full is told when it is written to
        finally:
            self._done.set()

    async def take(self) -> PagesFile | None:
        """The file, with the room that it has got in a second; the caller's from now on."""
        with anyio.move_on_after(_WAIT_S):
            await self._done.wait()
        self._stop = True
        await self._done.wait()  # for one step at most
        file, self._file = self._file, None
        return file

    def close(self) -> None:
        """Give it up, when the step that is under way is done.  May be called again."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


class Reception:
    """A round that is being received into `images_dir`; await `wait`, then `close` it."""

    def __init__(self, intake: Intake, sock: socket.socket, commands: Commands, host: str) -> None:
        self.intake = intake
        self.images_dir = intake.images
        self._sock = sock
        self._commands = commands
        self._host = host
        self._error: Exception | None = None
        self._ended = anyio.Event()
        self._token = current_token()
        # A daemon: an embedder's program that forgets all this still ends.
        self._thread = threading.Thread(target=self._run, name="phaul-reception", daemon=True)
        self._thread.start()

    @classmethod
    def start(
        cls,
        images: ImagesDir,
        memory_fd: int,
        before: Level | None,
        spare: PagesFile | None,
        *,
        wide: bool,
        host: str,
    ) -> Self:
        """Receive from the socket `memory_fd`, which stays the caller's; raises WorkDirError."""
        images.link()
        sock = socket.socket(fileno=os.dup(memory_fd))
        return cls(Intake(images.path, before, spare), sock, Commands(wide=wide), host)

    def _run(self) -> None:
        try:
            self._receive()
        except Exception as error:
            self._error = error
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            from_thread.run_sync(self._ended.set, token=self._token)

    def _receive(self) -> None:
        try:
            warm_up(MESSAGES)  # while CRIU still looks at the tree
            receive(self._sock, self._commands, self.intake)
            self.intake.finish()
        except PageStoreError as error:
            error.host = error.host or self._host
            raise
        except OSError as error:
            raise ImageError(
                f"the memory cannot be written to {self.images_dir}: {error.strerror}",
                host=self._host,
                remedy="make room on its file system",
            ) from error

    async def wait(self) -> None:
        """Wait until all is written.  Raises PageStoreError, ImageError."""
        with anyio.CancelScope(shield=True):  # `kill` ends it
            await self._ended.wait()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def late(self, seconds: float) -> PageStoreError:
        """The error for a round whose end has not come `seconds` after the source sent it."""
        return PageStoreError(
            f"the round's memory had not come {seconds:g} s after it was sent", host=self._host
        )

    def kill(self) -> None:
        """End it; who waits for it sees that."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket, when `wait` has returned; the files are closed by the PageServer."""
        self._sock.close()


@dataclass(eq=False)
class Iteration:
    """A round at work, and how it ended."""

    reception: Reception
    ended: anyio.Event = field(default_factory=anyio.Event)
    error: PhaulError | None = None


class PageServer:
    """Receives the rounds of a session, one after the other.

    `expected` is the memory to come, in bytes, 0 where that is unknown; `folder` is where the
    images go, `tasks` what goes on beside.  Room is made for the first round alone, which is all
    there is where nothing tracks dirty memory: later ones have less, and what is waited for between
    two rounds grows the next.
    """

    def __init__(
        self, expected: int, folder: Path, tasks: TaskGroup, *, wide: bool, host: str
    ) -> None:
        self._wide = wide
        self._host = host
        self._level: Level | None = None
        self._intake: Intake | None = None
        self._room = Room.begin(folder, expected) if expected >= _WORTH else None
        if self._room is not None:
            tasks.start_soon(self._room.make)

    async def start(self, images: ImagesDir, memory_fd: int) -> Reception:
        """Receive a round from the socket `memory_fd`; raises ImageError, WorkDirError.

        What is returned has to be waited for, or killed and waited for; then `received` it.
        """
        room, self._room = self._room, None
        spare = await room.take() if room is not None else None
        self._close_files()
        try:
            made = Reception.start(
                images, memory_fd, self._level, spare, wide=self._wide, host=self._host
            )
        except BaseException as error:
            if spare is not None:
                spare.close()
            if isinstance(error, OSError):
                raise ImageError(
                    f"nothing can be received: {error.strerror}", host=self._host
                ) from error
            raise
        self._intake = made.intake
        return made

    def received(self, reception: Reception) -> None:
        """A round is complete: the next one finds in it what it does not send again."""
        self._level = reception.intake.level

    def forget(self) -> None:
        """The next round is the first of a new chain."""
        self._level = None
        self._close_files()

    def _close_files(self) -> None:
        """Of the last round: 0.1 s for 1 GB of room, in which Python does nothing else."""
        if self._intake is not None:
            self._intake.close()

    def close(self) -> None:
        """Give up what was made ready, and what is open.  May be called again."""
        if self._room is not None:
            self._room.close()
        self._close_files()
