"""Memory that follows from the source, as the keeper has it: the links, and who may bring new ones.

Used on the destination, in a post-copy, from the final dump until the last page is in.  The pages
come over a link that the agent hands on; if it is lost, the agent of a later connection finds the
keeper's own socket in the migration's directory, and hands on another.
"""

import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup

from phaul.destination.chain import Chain
from phaul.errors import PageStoreError, ProtocolError, UsageError
from phaul.pages.remote import Places, RemotePages
from phaul.protocol import keeping as k
from phaul.protocol.failure import from_error, to_error
from phaul.protocol.messages import Failed
from phaul.transport.peer import nearby, peer_uid

__all__ = ["SOCKET", "Answer", "Following", "ask_keeper"]

SOCKET: Final = "memory"
_ACKNOWLEDGED_S: Final = 10.0
_ASK_S: Final = 20.0
_BACKLOG: Final = 8

Answer = Callable[[k.KeeperRequest, list[int]], Awaitable[k.KeeperAnswer]]
"""Fulfils what was asked; the descriptors that came with it are its to close."""


class Following:
    """The memory that follows, if any does.  Close it before the page store's end."""

    def __init__(self) -> None:
        self._early: socket.socket | None = None
        self.pages: RemotePages | None = None
        """What brings it, once it is known to follow."""

    @property
    def lacking(self) -> int:
        """How many pages are on the source alone."""
        return 0 if self.pages is None else self.pages.lacking

    def attach(self, descriptors: list[int]) -> None:
        """Go on over another link; raises ProtocolError if no socket came, or one too many."""
        if len(descriptors) != 1:
            raise ProtocolError(f"Attach came with {len(descriptors)} sockets")
        link = socket.socket(fileno=descriptors.pop())
        if self.pages is not None:
            self.pages.attach(link)
            return
        if self._early is not None:
            self._early.close()
        self._early = link

    def begin(self, chain: Chain, folder: Path, patience: float) -> RemotePages | None:
        """Begin to bring what `chain` says is elsewhere; None if nothing is.

        The pages go to a file without a name in `folder`, which is the chain's.  Without a link for
        `patience` seconds they are lost.  Raises OSError.
        """
        places = Places(chain.elsewhere)
        if not places.total:
            return None
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        chain.files.append(descriptor)
        self.pages = RemotePages(places, descriptor, len(chain.files) - 1, patience=patience)
        link, self._early = self._early, None
        if link is not None:
            self.pages.attach(link)
        return self.pages

    def sweep(self) -> None:
        """The process is let go: bring what nobody waits for, too."""
        if self.pages is not None:
            self.pages.sweep()

    def abandon(self) -> None:
        """The source has said that it is lost."""
        if self.pages is not None:
            self.pages.give_up("the source has lost it")

    async def finish(self) -> None:
        """Nothing more is needed: say so, and wait for a moment until that was heard."""
        pages = self.pages
        if pages is None:
            return
        pages.finish()
        with anyio.move_on_after(_ACKNOWLEDGED_S):
            while pages.linked and not pages.acknowledged:
                await anyio.wait_readable(pages.changed)
                pages.clear()

    def close(self) -> None:
        """End the link, and whoever waits for a page; may be called again."""
        if self._early is not None:
            self._early.close()
        if self.pages is not None:
            self.pages.close()

    async def listen(self, directory: Path, tasks: TaskGroup, answer: Answer) -> None:
        """Let others of this user ask, at a socket in `directory`, until `tasks` end."""
        if self.pages is None:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            with nearby(directory / SOCKET) as near:
                sock.bind(near)
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            raise PageStoreError(
                f"nobody could bring a new link to {directory}: {error.strerror}"
            ) from error
        tasks.start_soon(_serve, sock, directory / SOCKET, tasks, answer)


async def _serve(sock: socket.socket, path: Path, tasks: TaskGroup, answer: Answer) -> None:
    with sock:
        try:
            while True:
                await anyio.wait_readable(sock)
                with suppress(OSError):
                    tasks.start_soon(_converse, sock.accept()[0], answer)
        finally:
            with suppress(OSError):
                path.unlink()


async def _converse(sock: socket.socket, answer: Answer) -> None:
    with sock, suppress(OSError, ProtocolError):
        sock.setblocking(False)
        if peer_uid(sock) not in (0, os.geteuid()):
            return
        while True:
            await anyio.wait_readable(sock)
            packet, descriptors, _, _ = socket.recv_fds(sock, k.MAX_PACKET, 1)
            if not packet:
                return
            try:
                request = k.decode_request(packet)
                if not isinstance(request, k.Attach | k.Look | k.Leave | k.Abandon):
                    raise UsageError(f"{type(request).__name__} is for the agent alone")
                said = await answer(request, descriptors)
            except Exception as error:  # all that goes wrong is told
                said = from_error(error)
            finally:
                while descriptors:
                    os.close(descriptors.pop())
            sock.send(k.encode(said))


async def ask_keeper(
    directory: Path, request: k.KeeperRequest, *descriptors: int, host: str = ""
) -> k.KeeperAnswer:
    """Ask the keeper of the migration in `directory`, over its own socket.

    Raises PageStoreError if none answers there, and what the keeper raises.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            with nearby(directory / SOCKET) as near:
                sock.connect(near)
            if peer_uid(sock) not in (0, os.geteuid()):
                raise ConnectionRefusedError
            sock.setblocking(False)
            socket.send_fds(sock, [k.encode(request)], descriptors)
            with anyio.fail_after(_ASK_S):
                await anyio.wait_readable(sock)
            packet = sock.recv(k.MAX_PACKET)
    except (OSError, TimeoutError) as error:
        raise PageStoreError(f"no keeper of the memory answers: {error}", host=host) from error
    answer = k.decode_answer(packet)
    if isinstance(answer, Failed):
        raise to_error(answer, host)
    return answer
