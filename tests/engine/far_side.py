"""The destination of a post-copy, in a PID namespace of its own; a test tells it what to do.

    python -m tests.engine.far_side CONTROL_FD

Each message is a packet of JSON, with a descriptor where there is a link.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio

from phaul.criu.workers import Workers
from phaul.destination.chain import Chain
from phaul.errors import PhaulError
from phaul.pages.remote import Places, RemotePages
from phaul.pages.store import Index
from tests.engine.conftest import SLOW
from tests.engine.lazy_restore import ENGINE, Restored, lazily

_MOST = 1 << 16


class FarSide:
    """The test's face of it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def tell(self, what: str, *descriptors: int, **rest: object) -> None:
        """Tell it something."""
        socket.send_fds(self._sock, [json.dumps({"do": what, **rest}).encode()], descriptors)

    async def hear(self, what: str, seconds: float = 60) -> Any:  # noqa: ANN401
        """What it says next, which has to be `what`."""
        with anyio.fail_after(seconds * SLOW):
            await anyio.wait_readable(self._sock)
        said = json.loads(self._sock.recv(_MOST))
        assert said["what"] == what, said
        return said

    def link(self) -> socket.socket:
        """A new link to it; the near end."""
        near, far = socket.socketpair()
        with far:
            self.tell("attach", far.fileno())
        return near


@contextmanager
def far_side() -> Iterator[FarSide]:
    """Start one; it ends with all that it has restored."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            process = subprocess.Popen(
                [
                    *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *(sys.executable, "-m", "tests.engine.far_side", str(theirs.fileno())),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
            )
        try:
            ours.settimeout(60 * SLOW)
            assert json.loads(ours.recv(_MOST))["what"] == "there"
            yield FarSide(ours)
        finally:
            ours.close()
            try:
                process.wait(30 * SLOW)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class _Side:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._remote: RemotePages | None = None
        self._links: list[socket.socket] = []

    def say(self, what: str, **rest: object) -> None:
        self._sock.send(json.dumps({"what": what, "at": time.monotonic(), **rest}).encode())

    async def told(self) -> dict[str, Any] | None:
        await anyio.wait_readable(self._sock)
        data, descriptors, _, _ = socket.recv_fds(self._sock, _MOST, 1)
        if not data:
            return None
        for descriptor in descriptors:
            link = socket.socket(fileno=descriptor)
            if self._remote is None:
                self._links.append(link)
            else:
                self._remote.attach(link)
        found: dict[str, Any] = json.loads(data)
        return found

    async def run(self) -> None:
        async with Workers(ENGINE) as workers:
            await workers.examine()
        self.say("there")
        while (told := await self.told()) is not None:
            if told["do"] == "restore":
                await self.restore(told)
                return

    async def restore(self, told: dict[str, Any]) -> None:
        images = Path(told["images"])
        chain = Chain(Index())
        for folder in told["rounds"]:
            chain.add(Path(folder))
        begun = time.monotonic()
        async with lazily(chain, images, remote=self.bring) as restored:
            self.say("ready", seconds=time.monotonic() - begun)
            await self.go_on(restored, told)

    def bring(self, chain: Chain, images: Path) -> RemotePages:
        places = Places(chain.elsewhere)
        descriptor = os.open(images, os.O_TMPFILE | os.O_RDWR)
        chain.files.append(descriptor)
        self._remote = RemotePages(places, descriptor, len(chain.files) - 1)
        for link in self._links:
            self._remote.attach(link)
        return self._remote

    async def go_on(self, restored: Restored, told: dict[str, Any]) -> None:
        remote = self._remote
        assert remote is not None
        async with anyio.create_task_group() as group:

            async def drain() -> None:
                try:
                    drained = await restored.pages.wait()
                    remote.finish()
                    while remote.linked and not remote.acknowledged:
                        with anyio.move_on_after(0.01):
                            await anyio.wait_readable(remote.changed)
                        remote.clear()
                    self.say(
                        "drained",
                        pages=drained.pages,
                        given=drained.served.pages,
                        never=drained.never_asked,
                        received=remote.received,
                        lacking=remote.lacking,
                    )
                except PhaulError as error:
                    os.kill(restored.pid, signal.SIGKILL)
                    while Path(f"/proc/{restored.pid}/exe").exists():
                        await anyio.sleep(0.001)
                    self.say("failed", error=str(error), lacking=remote.lacking)

            while (said := await self.told()) is not None:
                if said["do"] == "release":
                    await restored.release()
                    self.say("running", touched=remote.received)
                    if told["sweep"]:
                        remote.sweep()
                    group.start_soon(drain)
                elif said["do"] == "sweep":
                    remote.sweep()
                elif said["do"] == "give up":
                    remote.give_up("the test says so")
                elif said["do"] == "discard":
                    await restored.operation.refuse()
                    self.say("discarded")
                elif said["do"] == "state":
                    self.say("state", lacking=remote.lacking, linked=remote.linked)
            group.cancel_scope.cancel()


def main() -> None:
    """Be the destination."""
    # What this process starts must not take the PIDs that the tree is going to need.
    kernel = Path("/proc/sys/kernel")
    kernel.joinpath("ns_last_pid").write_text(str(int(kernel.joinpath("pid_max").read_text()) // 2))
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        anyio.run(_Side(sock).run)


if __name__ == "__main__":
    main()
