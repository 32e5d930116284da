"""Takes the time of steps of the code, as it is, for `bench.cutover`."""

import inspect
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

__all__ = ["Span", "Stopwatch", "agent_steps", "source_steps"]

Span = tuple[str, float, float]
"""A step, and when it began and ended, by CLOCK_REALTIME in seconds."""


class Stopwatch:
    """Wraps methods so that each call leaves a span in `spans`."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def on(self, owner: type, method: str, name: str) -> None:
        """Take the time of a method of a class, which may be asynchronous."""
        function: Callable[..., Any] = getattr(owner, method)

        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def timed(*args: Any, **options: Any) -> Any:  # noqa: ANN401
                begun = time.time()
                try:
                    return await function(*args, **options)
                finally:
                    self.spans.append((name, begun, time.time()))

        else:

            @wraps(function)
            def timed(*args: Any, **options: Any) -> Any:  # noqa: ANN401
                begun = time.time()
                try:
                    return function(*args, **options)
                finally:
                    self.spans.append((name, begun, time.time()))

        setattr(owner, method, timed)


def source_steps(watch: Stopwatch) -> None:
    """The steps of a cutover on the source."""
    from phaul.source.counterpart import Counterpart
    from phaul.source.cutover import Cutover
    from phaul.source.ownership import Ownership
    from phaul.storage.journal import Journal
    from phaul.subjects.lock import TreeLock
    from phaul.transport.caller import Caller

    watch.on(Ownership, "freeze", "freeze")
    watch.on(Cutover, "dump", "dump, to its end")
    watch.on(Counterpart, "stop_iteration", "stop_iteration")
    watch.on(Ownership, "lock", "second lock, in all")
    watch.on(TreeLock, "plan", "second lock, plan")
    watch.on(TreeLock, "take", "second lock, take")
    watch.on(Journal, "write", "source's journal, write")
    watch.on(Journal, "prepare", "source's journal, prepare")
    watch.on(Journal, "lay", "source's journal, lay")
    watch.on(Journal, "put", "source's journal, put")
    watch.on(Counterpart, "dump_copy_restore", "dump, copy and restore")
    watch.on(Cutover, "locked", "second lock, waited for")
    watch.on(Caller, "restore", "restore, asked for")
    watch.on(Ownership, "decide", "decide")
    watch.on(Cutover, "commit", "commit, in all")
    watch.on(Ownership, "kill", "kill")
    watch.on(Ownership, "gone", "gone, looked at")
    watch.on(Counterpart, "_release", "commit's round trip")
    watch.on(Ownership, "tidy", "tidy")


def agent_steps(watch: Stopwatch) -> None:
    """The steps of a cutover on the destination."""
    from phaul.criu.operation import Operation
    from phaul.destination.cage import Cage
    from phaul.destination.copy import HeldCopy
    from phaul.destination.custody import Custody
    from phaul.destination.durability import Durability
    from phaul.destination.session import DestinationSession
    from phaul.storage.journal import Journal

    watch.on(DestinationSession, "stop_iteration", "there: stop_iteration")
    watch.on(Operation, "until", "there: CRIU's restore, to post-restore")
    watch.on(Cage, "prepare", "there: cage, prepare")
    watch.on(Cage, "hold", "there: cage, hold")
    watch.on(Cage, "gather", "there: cage, gather")
    watch.on(HeldCopy, "release", "there: CRIU's release")
    watch.on(DestinationSession, "restore", "there: restored and held")
    watch.on(Custody, "restore", "there: restore, in all")
    watch.on(Durability, "_sync", "there: images' sync")
    watch.on(Custody, "commit", "there: commit, in all")
    watch.on(Journal, "write", "there: journal, write")
