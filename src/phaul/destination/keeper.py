"""The keeper: a process that has what lazily restored memory comes from, and outlives the agent.

Runs on the destination, from Prepare until the last page is in.  It holds the page files of the
chain, their index, the page store and CRIU's lazy-pages daemon: with them dies the tree's memory,
so nothing that ends the agent may end them.  It is no child of the agent, in a session of its own,
and the last to be killed when memory runs out; signals that ask to end are not heard.

    the agent ends  before Guard     the daemon and the keeper end
                    after it         it goes on until all is in, or the tree is gone; then it ends
    the daemon or the store fails    the tree is ended, before anything is closed that it would
                                     read zeros without
    the source is lost               the same, if memory still follows from there (`following`)

From Guard until it ends it holds a lock in the migration's directory: `incoming.keeps`.  What is in
there is removed by whoever is the last, by the journal.
"""

import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup
from anyio.to_thread import run_sync as in_thread

from phaul.criu.messages import warm_up
from phaul.destination.chain import DAEMON_DIR, MESSAGES, Chain
from phaul.destination.ending import end_tree
from phaul.destination.following import Following
from phaul.destination.incoming import Keeping
from phaul.destination.lazy import Drained, LazyPages, Standby
from phaul.destination.warden import Warden
from phaul.errors import PageStoreError, ProtocolError, UsageError
from phaul.incarnation import Incarnation, boot_id, living
from phaul.protocol import keeping as k
from phaul.protocol.failure import from_error
from phaul.protocol.messages import Done, Failed
from phaul.subjects.proc import Proc
from phaul.subjects.tree import tree_pids

__all__ = ["Keeper", "run_keeper"]

_STALL_S: Final = 3600.0
"""Without an agent, and without a page asked for in so long, nobody is waited for any more."""
_LOOK_S: Final = 1.0
_HOLD_S: Final = 0.05


class Keeper:
    """Answers one agent over `control`, with what is in `incoming`; `run` it once.

    `program` is CRIU's; `warden` is told what it holds.  Closing `control` stays the caller's.
    """

    def __init__(
        self, control: socket.socket, incoming: Path, program: Sequence[str], warden: Warden
    ) -> None:
        self._control = control
        self._warden = warden
        self._incoming = incoming
        self._program = tuple(program)
        self._chain = Chain()
        self._newest = -1
        self._standby: Standby | None = None
        self._unfit: Exception | None = None
        self._pages: LazyPages | None = None
        self._following = Following()
        self._tree: tuple[Incarnation, ...] = ()
        self._stage = k.Stage.BEFORE
        self._settled = anyio.Event()
        self._drained: Drained | None = None
        self._released = False
        self._keeping: Keeping | None = None
        self._failure: Failed | None = None
        """Why the memory did not come."""
        self._told = False

    async def run(self) -> None:
        """Serve until the agent is gone, and see the memory through; all of it has ended then."""
        try:
            async with anyio.create_task_group() as tasks:
                with suppress(Exception):  # whatever it is, the tree must not suffer from it
                    await self._serve(tasks)
                if self._stage is k.Stage.BEFORE:
                    tasks.cancel_scope.cancel()
                else:
                    await self._outlast()
                    tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                if self._pages is not None:
                    if self._stage is k.Stage.DRAINING:
                        await self._fail(PageStoreError("the keeper failed"), self._pages)
                    self._following.close()
                    await self._pages.end()
                if self._standby is not None:
                    await self._standby.end()
            self._following.close()
            self._chain.close()

    async def _serve(self, tasks: TaskGroup) -> None:
        await self._say(k.Here(pid=os.getpid()))
        try:  # beside the rounds: in the downtime it would take 5 ms, and more
            self._standby = Standby.begin(self._program, self._incoming / DAEMON_DIR)
            self._warden.began(self._standby.daemon.pidfd)
        except Exception as error:
            self._unfit = error  # told when it is needed
        while True:
            await anyio.wait_readable(self._control)
            packet, descriptors, _, _ = socket.recv_fds(self._control, k.MAX_PACKET, 1)
            if not packet:
                return
            answer: k.KeeperAnswer
            try:
                answer = await self._handle(k.decode_request(packet), tasks, descriptors)
            except Exception as error:  # all that goes wrong is told
                answer = from_error(error)
            finally:
                while descriptors:
                    os.close(descriptors.pop())
            await self._say(answer)

    async def _say(self, answer: k.KeeperAnswer) -> None:
        data = k.encode(answer)
        while True:
            try:
                self._control.send(data)
                return
            except BlockingIOError:
                await anyio.wait_writable(self._control)

    async def _handle(
        self, request: k.KeeperRequest, tasks: TaskGroup, descriptors: list[int]
    ) -> k.KeeperAnswer:
        match request:
            case k.Attach():
                await in_thread(self._following.attach, descriptors)
            case k.Add(folder=folder):
                if int(folder) <= self._newest:
                    raise ProtocolError(f"round {folder} comes after round {self._newest}")
                self._newest = int(folder)
                self._chain.add(self._images(folder))  # nobody else is served yet: no thread for it
            case k.Finish():
                return await self._finish(request)
            case k.Guard(pid=pid):
                await self._guard(pid, tasks)
            case k.Look(wait_ms=wait_ms, release=release):
                standing = await self._look(wait_ms / 1000)
                if release and standing.failure is None:
                    self._set_released(True)
                    self._following.sweep()
                return standing
            case k.Abandon():
                self._told = True
                self._set_released(False)  # nobody has to be told any more
                self._following.abandon()
            case k.GiveUp():
                self._set_released(False)
            case k.Leave(told=told):
                # What the source knows it knows, whoever says it.
                self._told = self._told or told
        return Done()

    def _set_released(self, released: bool) -> None:
        self._released = released
        self._warden.released(released)

    def _images(self, folder: str) -> Path:
        return self._incoming / "images" / folder

    async def _finish(self, request: k.Finish) -> k.Counted:
        if self._unfit is not None:
            raise self._unfit
        standby, self._standby = self._standby, None
        if standby is None:
            raise UsageError("Finish comes once")
        images, chain = self._images(request.folder), self._chain
        try:
            await standby.tell(images)  # the daemon gets ready beside what follows
            chain.finish(images, standby.folder)
            elsewhere = sum(n for of in chain.elsewhere.values() for _, n in of)
            wanted = request.least <= chain.lazy_pages <= request.most
            if wanted:
                self._pages = await LazyPages.start(
                    standby,
                    chain,
                    images,
                    wide=request.wide,
                    remote=self._following.begin(chain, images, request.patience_s),
                )
        finally:
            if self._pages is None:
                await standby.end()
        return k.Counted(pages=chain.lazy_pages, elsewhere=elsewhere, started=wanted)

    async def _guard(self, pid: int, tasks: TaskGroup) -> None:
        if self._pages is None or self._stage is not k.Stage.BEFORE:
            raise UsageError("Guard comes once, after Finish")
        self._tree = living(tree_pids(pid, Proc(), still=True))
        if not self._tree:
            raise PageStoreError(f"there is no process {pid}")
        self._warden.watch(one.pid for one in self._tree)
        self._pages.daemon.userfaults.mirror = self._warden
        await self._pages.guard()
        self._keeping = Keeping.begin(self._incoming)
        self._stage = k.Stage.DRAINING
        tasks.start_soon(self._drain, self._pages)

        async def answer(request: k.KeeperRequest, descriptors: list[int]) -> k.KeeperAnswer:
            return await self._handle(request, tasks, descriptors)

        await self._following.listen(self._incoming, tasks, answer)

    async def _drain(self, pages: LazyPages) -> None:
        try:
            self._drained = await pages.wait()
            if self._released:  # what never ran has not got its memory
                await self._following.finish()
            self._stage = k.Stage.DRAINED
        except Exception as error:
            await self._fail(error, pages)
        finally:
            self._settled.set()

    async def _fail(self, error: Exception, pages: LazyPages) -> None:
        """End the tree, while it still waits for what will never come."""
        with anyio.CancelScope(shield=True):
            self._failure = from_error(error)
            self._stage = k.Stage.FAILED
            await self._end_tree()
            # One that has left the tree is not known, and waits: it may not read zeros.
            while pages.daemon.userfaults.release_unused():
                await anyio.sleep(_HOLD_S)
            self._following.close()
            await pages.end()

    async def _end_tree(self) -> None:
        """Kill all that was restored, and its children since."""
        for one in self._tree:
            await end_tree(one)

    async def _look(self, wait: float) -> k.Standing:
        pages = self._pages
        if pages is None:
            raise UsageError("Look comes after Finish")
        with anyio.move_on_after(wait):
            await self._settled.wait()
        if self._stage is k.Stage.DRAINING and pages.has_ended:
            # What that means is known in a moment.
            with anyio.move_on_after(_LOOK_S):
                await self._settled.wait()
        drained = self._drained
        served = pages.served
        return k.Standing(
            stage=self._stage,
            pages=self._chain.lazy_pages,
            given=served.pages,
            never_asked=drained.never_asked if drained else 0,
            lacking=0 if drained else self._following.lacking,
            seconds=max(served.seconds, 0.0),
            failure=self._failure,
        )

    async def _outlast(self) -> None:
        """Without an agent: wait for the end, or end it all if nothing happens for too long."""
        pages = self._pages
        assert pages is not None
        seen, since = -1, time.monotonic()
        while not self._settled.is_set():
            with anyio.move_on_after(_LOOK_S):
                await self._settled.wait()
            if pages.served.pages != seen:
                seen, since = pages.served.pages, time.monotonic()
            elif time.monotonic() - since > _STALL_S:
                pages.daemon.process.kill()  # then it has failed
                since = time.monotonic()

    def leave(self) -> None:
        """Remove what nobody needs any more, once it has ended."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            with keeping:
                keeping.leave(
                    told=self._told,
                    failed=self._failure.what if self._failure and self._released else "",
                    root=self._tree[0],
                )


def run_keeper(
    control: socket.socket, incoming: Path, program: Sequence[str], warden: Warden
) -> int:
    """Be the keeper of the migration in `incoming`; returns the exit status."""
    control.setblocking(False)
    warm_up(MESSAGES)  # nothing of that in the downtime
    boot_id()
    with control:
        keeper = Keeper(control, incoming, program, warden)
        anyio.run(keeper.run)
        warden.over()
        control.close()
        keeper.leave()
    return 0
