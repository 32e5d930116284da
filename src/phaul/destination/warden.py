"""The keeper's shadow: if the keeper is killed, the tree ends before it reads zeros.

Runs on the destination, beside the keeper, in a process that was forked from it before it imported
anything.  It has a third copy of each userfaultfd, which keeps who touches missing memory waiting;
so it takes the end of two processes at once to let a tree run on with memory that it never had.

    keeper                                   warden
    ------                                   ------
    began, with the daemon's pidfd      -->  what is to be no more than the keeper
    watch(tree)                         -->  whom to end
    took(inode), with the descriptor    -->  holds it
    gave(inode)                         -->  lets go of it
    released(yes)                       -->  whether the tree runs
    over                                -->  ends
    (is gone without a word)                 ends the tree, then lets go of all; ends the daemon
"""

import os
import signal
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["Warden", "be_warden"]

_PACKET: Final = 1 << 17
"""A tree of some thousand processes."""
_HOLD_S: Final = 0.05


class Warden:
    """The keeper's end.  A warden that is gone is no error: it is only missed with the keeper."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)

    def began(self, daemon: int) -> None:
        """CRIU's daemon, the process behind this pidfd, ends with the keeper."""
        self._say("began", daemon)

    def watch(self, pids: Iterable[int]) -> None:
        """These processes are the tree, as it stands restored."""
        self._say("watch " + " ".join(map(str, pids)))

    def released(self, released: bool) -> None:
        """The tree is let go; or it was not after all."""
        self._say("released" if released else "held")

    def took(self, inode: int, descriptor: int) -> None:
        """The keeper holds a copy of a userfaultfd: hold one, too."""
        self._say(f"took {inode}", descriptor)

    def gave(self, inode: int) -> None:
        """It has let go of it."""
        self._say(f"gave {inode}")

    def over(self) -> None:
        """Nothing is to be held any more."""
        self._say("over")
        self._sock.close()

    def _say(self, word: str, *descriptors: int) -> None:
        # What is on its way holds the descriptor already, whenever it is read.
        with suppress(OSError):
            socket.send_fds(self._sock, [word.encode()], descriptors)


def be_warden(sock: socket.socket, incoming: Path) -> None:
    """Be the warden of the keeper behind `sock`, of the migration in `incoming`, to the end."""
    held: dict[str, int] = {}
    tree: list[tuple[int, str]] = []
    daemons: list[int] = []
    runs = False
    while True:
        data, got, _, _ = socket.recv_fds(sock, _PACKET, 1)
        word, *rest = data.decode().split() or [""]
        match word:
            case "began":
                daemons += got
            case "watch":
                # They stand still: their starts tell them from who has their PIDs later.
                tree = [(int(pid), _start(pid)) for pid in rest]
            case "took":
                held[rest[0]] = got[0]
            case "released" | "held":
                runs = word == "released"
            case "gave" if rest[0] in held:
                os.close(held.pop(rest[0]))
            case "":
                break
            case "over":
                return
    try:
        if held:
            _end(tree, held, incoming, "the keeper of the memory was killed" if runs else "")
    finally:
        for daemon in daemons:  # one that nobody came to would wait for ever
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(daemon, signal.SIGKILL)


def _start(pid: int | str) -> str:
    """When a process began, "" if it is gone (proc_pid_stat(5))."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()[19]
    return ""


def _end(tree: list[tuple[int, str]], held: dict[str, int], incoming: Path, failed: str) -> None:
    import anyio

    from phaul.criu.userfault import is_used
    from phaul.destination.ending import end_tree
    from phaul.destination.incoming import Keeping
    from phaul.incarnation import Incarnation, boot_id

    keeping: Keeping | None = None
    with suppress(OSError):  # the directory may have been removed: the tree has to end all the same
        keeping = Keeping.begin(incoming)
    root = None
    if tree and tree[0][1]:
        root = Incarnation(pid=tree[0][0], start=int(tree[0][1]), boot=boot_id())
    for pid, start in tree:
        one = Incarnation.of(pid)
        if one is not None and str(one.start) == start:
            anyio.run(end_tree, one)
    while held:
        for name, descriptor in tuple(held.items()):
            if not is_used(descriptor):
                os.close(held.pop(name))
        time.sleep(_HOLD_S)
    if keeping is not None:
        with keeping:
            keeping.leave(told=False, failed=failed, root=root)
