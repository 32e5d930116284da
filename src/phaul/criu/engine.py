"""CRIU as a program on one host: which it is, whether it can be used, and what it can do.

Used first in preflight, on both hosts; `Engine` then starts the workers of every later phase.
"""

import os
from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Self

import anyio

from phaul.criu.identity import identify
from phaul.criu.log import decisive_line
from phaul.criu.operation import directory_fd, failure
from phaul.criu.rpc import Request, RequestType, Response, Version
from phaul.criu.swrk import Swrk
from phaul.errors import CriuError, CriuTimeout, CriuTooOld, CriuUnfit, FeatureMissing

__all__ = ["OLDEST", "Engine", "Examination", "Facts", "forget_examinations"]

OLDEST: Final = Version(4, 1)
"""The oldest CRIU that phaul's tests run with."""

_FEATURES: Final = frozenset({"mem_track", "lazy_pages"})
_LOG: Final = "check.log"
_QUERY_S: Final = 30.0
"""A query takes 5 ms natively; the limit only has to tell a hang from a slow machine."""


@dataclass(frozen=True)
class Facts:
    """What an engine says of itself: `mem_track` is soft-dirty, `lazy_pages` userfaultfd."""

    version: Version
    mem_track: bool
    lazy_pages: bool

    def require_mem_track(self, host: str) -> None:
        """Raise FeatureMissing unless dirty memory can be tracked.

        Without it a PRE_DUMP request kills CRIU (a BUG in its mem.c), so it must not be sent.
        """
        if not self.mem_track:
            raise FeatureMissing(
                "no pre-dump: the kernel does not track dirty memory (soft-dirty)",
                host=host,
                remedy="boot a kernel with CONFIG_MEM_SOFT_DIRTY, or move by stop and copy",
            )


_examined: Final[dict[Hashable, Facts]] = {}
"""What was found by each examination that went well, by the identity of the CRIU."""


def forget_examinations() -> None:
    """Have each engine examined anew."""
    _examined.clear()


@dataclass(frozen=True)
class Engine:
    """The CRIU of one host: `program` is a command that ends in CRIU, `host` names the host."""

    program: Sequence[str] = ("criu",)
    host: str = ""

    def worker(self, pass_fds: Sequence[int] = ()) -> Swrk:
        """A new worker; raises CriuNotFound."""
        return Swrk.start(self.program, pass_fds=pass_fds, host=self.host)

    async def examine(self, asked: Swrk, *, anew: bool = False) -> Facts:
        """Have CRIU check this kernel, and meanwhile ask it for its version and features.

        `asked` is the worker for the questions; it can take another request afterwards.  An
        examination that went well is remembered in this process, for as long as CRIU's program
        file is the same and so are this process's capabilities and namespaces; `anew` makes it
        again all the same.
        Raises CriuNotFound, CriuTooOld, CriuUnfit, and CriuError if it does not answer.
        """
        identity = identify(self.program)
        facts = None if anew or identity is None else _examined.get(identity)
        if facts is None:
            _examined.pop(identity, None)
            facts = await self._examine(asked)
            # Not if the file was replaced meanwhile: which of the two was asked is not known.
            if identity is not None and identify(self.program) == identity:
                _examined[identity] = facts
        return facts

    async def _examine(self, asked: Swrk) -> Facts:
        examination = Examination.begin(self, asked)
        try:
            return await examination.facts()
        finally:
            await examination.close()

    async def told(self, worker: Swrk) -> Facts:
        """The facts, from a worker that was asked for its VERSION, and then its features.

        Raises as `examine` does.
        """
        version = self._successful(await self._answer(worker, "VERSION"), "VERSION")
        if version.version is None:
            raise CriuError("criu does not say its version", request="VERSION", host=self.host)
        if version.version < OLDEST:
            raise CriuTooOld(
                f"criu is {version.version}, at least {OLDEST} is needed",
                host=self.host,
                remedy="install a newer CRIU",
            )
        features = self._successful(await self._answer(worker, "FEATURE_CHECK"), "FEATURE_CHECK")
        found = features.features
        return Facts(
            version.version,
            mem_track=found.get("mem_track", False),
            lazy_pages=found.get("lazy_pages", False),
        )

    async def checked(self, worker: Swrk, log_path: Path) -> None:
        """Wait for the answer to CHECK; raises CriuUnfit."""
        answer = await self._answer(worker, "CHECK")
        if not answer.success:
            await worker.close()
            said = decisive_line(log_path) or answer.message or worker.last_words()
            said = said or "it does not say why"
            raise CriuUnfit(
                f"criu's own check fails: {said}",
                host=self.host,
                remedy="run `criu check` there; a newer CRIU or kernel is what helps most often",
            )

    async def dump_cpuinfo(self, images_dir: Path) -> None:
        """Write what this host's CPU can do to `images_dir`/cpuinfo.img."""
        await self._cpuinfo(RequestType.CPUINFO_DUMP, images_dir)

    async def check_cpuinfo(self, images_dir: Path) -> None:
        """Raise CriuError unless this host's CPU can run what `images_dir`/cpuinfo.img asks for."""
        await self._cpuinfo(RequestType.CPUINFO_CHECK, images_dir)

    async def _cpuinfo(self, kind: RequestType, images_dir: Path) -> None:
        log = "cpuinfo.log"
        with directory_fd(images_dir) as descriptor:
            async with self.worker() as worker:
                request = Request(kind, images_dir_fd=descriptor, log_file=log)
                await self._query(worker, request, log_path=images_dir / log)

    async def _query(
        self, worker: Swrk, request: Request, *, log_path: Path | None = None
    ) -> Response:
        await worker.send(request)
        answer = await self._answer(worker, request.type.name)
        return self._successful(answer, request.type.name, log_path)

    def _successful(self, answer: Response, request: str, log_path: Path | None = None) -> Response:
        if not answer.success:
            raise failure(request, answer, log_path, self.host)
        return answer

    async def _answer(self, worker: Swrk, request: str) -> Response:
        try:
            with anyio.fail_after(_QUERY_S):
                return await worker.receive(request)
        except TimeoutError as err:
            raise CriuTimeout(
                f"criu did not answer {request} within {_QUERY_S:g} s",
                request=request,
                host=self.host,
            ) from err


@dataclass(eq=False)
class Examination:
    """CRIU's look at this kernel, under way: `facts` waits for what comes of it, `close` ends it.

    To begin needs no event loop: so the agent has CRIU look while it still imports what it needs.
    """

    engine: Engine
    _asked: Swrk
    _checking: Swrk
    _folder: "TemporaryDirectory[str]"
    _descriptor: int
    _lent: bool

    @classmethod
    def begin(cls, engine: Engine, asked: Swrk | None = None) -> Self:
        """Ask for CRIU's check and, of `asked` or a worker of its own, for its version.

        Raises CriuNotFound, OSError.
        """
        with ExitStack() as undo:
            # 4.1 wants a directory for its log even when it has nothing to dump.
            folder = TemporaryDirectory(prefix="phaul-check-")
            undo.callback(folder.cleanup)
            descriptor = os.open(folder.name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.callback(os.close, descriptor)
            # Both at once: the check takes some 30 ms, most of it CRIU's look at the kernel.
            checking = engine.worker()
            undo.callback(checking.abandon)
            worker = asked or engine.worker()
            undo.pop_all()
        checking.send_first(
            Request(RequestType.CHECK, images_dir_fd=descriptor, log_file=_LOG, log_level=1)
        )
        worker.send_first(Request(RequestType.VERSION, keep_open=True))
        worker.send_first(Request(RequestType.FEATURE_CHECK, keep_open=True, features=_FEATURES))
        return cls(engine, worker, checking, folder, descriptor, asked is not None)

    async def facts(self) -> Facts:
        """What CRIU says, once it does; raises as `Engine.examine` does."""
        facts = await self.engine.told(self._asked)
        await self.engine.checked(self._checking, Path(self._folder.name) / _LOG)
        return facts

    async def close(self) -> None:
        """End and reap the workers, whatever they do.  May be called again."""
        await self._checking.close()
        if not self._lent:
            await self._asked.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._folder.cleanup()
