"""A tree whose memory was left out of its dump, and a stand-in of CRIU that serves it."""

import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from phaul.criu.images import PAGE_SIZE, PageFlags, Pagemap, PageRange
from phaul.criu.images.lazy import encode_pagemap
from phaul.criu.operation import directory_fd
from phaul.criu.rpc import Request, RequestType
from phaul.pages.remote.link import SIZE, Kind, Message, decode
from phaul.source.postcopy import PostCopy
from tests.unit.lazy_criu import lazy_criu

PAGES = 8
AT = 16 * PAGE_SIZE
"""Where the pages are that were left out."""

SERVE = """
import struct
head = struct.Struct("=I4xQQQ")
def serve(most):
    while (data := pages.recv(32, socket.MSG_WAITALL)) and most:
        most -= 1
        command, count, address, pagemap = head.unpack(data)
        if command != 7:
            pages.send(bytes(4))
            return
        pages.sendall(head.pack(6 | 4 << 16, count, address, pagemap) + b"\\x5a" * 4096 * count)
assert hold("post-dump") and hold("status-ready")
"""


@asynccontextmanager
async def begun(
    folder: Path, tree: "subprocess.Popen[bytes]", body: str
) -> AsyncIterator[PostCopy]:
    ranges = (
        PageRange(0, 3, PageFlags.PRESENT),
        PageRange(AT, PAGES, PageFlags.LAZY),
        PageRange(2 * AT, 4, PageFlags.PARENT),
    )
    (folder / f"pagemap-{tree.pid}.img").write_bytes(encode_pagemap(Pagemap(1, ranges)))
    post = PostCopy.start(lazy_criu(folder, body), wide=True)
    try:
        with directory_fd(folder) as descriptor:
            request = Request(RequestType.DUMP, images_dir_fd=descriptor, pid=tree.pid)
            await post.dump(request, folder / "dump.log", 20, lambda: [tree.pid])
        yield post
    finally:
        await post.close()
        await post.close()


async def killed(tree: "subprocess.Popen[bytes]") -> None:
    tree.kill()
    tree.wait()


class Far:
    """The destination's end of a link."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(20)

    @classmethod
    def linked(cls, post: PostCopy) -> "Far":
        """That of a new link."""
        ours, theirs = socket.socketpair()
        post.supply.attach(theirs)
        return cls(ours)

    def say(self, kind: Kind) -> None:
        self.sock.sendall(Message(kind).encode())

    def ask(self, pid: int, first: int = 0, pages: int = 1, *, urgent: bool = True) -> None:
        asked = Message(Kind.ASK, pid, AT + first * PAGE_SIZE, pages, urgent=urgent)
        self.sock.sendall(asked.encode())

    def hear(self) -> Message:
        return decode(self.sock.recv(SIZE, socket.MSG_WAITALL))

    def gets(self, pid: int, first: int, pages: int, *, urgent: bool = True) -> bytes:
        self.ask(pid, first, pages, urgent=urgent)
        assert self.hear() == Message(Kind.PAGES, pid, AT + first * PAGE_SIZE, pages)
        return self.sock.recv(pages * PAGE_SIZE, socket.MSG_WAITALL)
