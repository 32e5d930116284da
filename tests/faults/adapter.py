"""phaul as the harness calls it: a migration, an agent, a settlement; all that follows its code.

Runs in what a zygote has forked, each role once in a process.
"""

import io
import logging
import socket
from pathlib import Path
from typing import Any

import anyio
import msgspec

import phaul.cli.render.errors
import phaul.criu.facts
import phaul.destination.cage
import phaul.destination.checks
import phaul.destination.custody
import phaul.destination.session
import phaul.destination.settling  # noqa: F401 -- all that is imported late is imported before the fork
from phaul.cli import resolve
from phaul.cli.main import main
from phaul.cli.render.progress import make_progress
from phaul.cli.running import Running
from phaul.criu.messages import message_class
from phaul.destination.agent import run_agent
from phaul.destination.incoming import Incoming
from phaul.errors import PhaulError
from phaul.plan import Compress, Restoring, Tcp, Wishes
from phaul.report import Event, RoundProgress
from phaul.source.migration import Order
from phaul.storage.registry import Registry
from phaul.storage.state_dir import StateDir
from tests.faults.ends import LeashedAgent, LeashedSource
from tests.faults.wire import Leash

__all__ = [
    "INCOMING",
    "be_agent",
    "be_settler",
    "be_source",
    "be_sweeper",
    "standing",
    "warm_up",
]

TARGET = "root@host2"
LEASE_S = 3
"""A copy that is ready is held for so long."""
PATIENCE_S = 2.0
"""For so long a migration tries to settle itself."""
INCOMING = Path("/var/lib/phaul/incoming")


def warm_up() -> None:
    """What each child would do again: protobuf's classes."""
    for name in ("Request", "Response", "Options"):
        message_class(name)
    logging.basicConfig(format="%(name)s: %(message)s")


def be_source(leash: Leash, order: dict[str, Any], _fds: list[socket.socket]) -> int:
    """`phaul migrate`: its entry, its events, its exit status."""
    wishes = Wishes(
        compress=Compress(order["compress"]),
        tcp=Tcp(order["tcp"]) if order["tcp"] else None,
        allow=frozenset(order["allow"]),
        on_timeout=Wishes().on_timeout,
        restore=Restoring.LAZY,
        post_copy=order["post_copy"],
        bandwidth=3e6 if order["post_copy"] else None,  # so that it takes a while
    )

    def on_event(event: Event) -> None:
        if not isinstance(event, RoundProgress):
            name: str = msgspec.to_builtins(event)["event"]
            leash.at(f"event/{name}")

    try:
        handle = Registry(StateDir.open()).begin(
            pid=order["pid"], name=order["name"], target=TARGET, max_downtime_s=0.3
        )
        leash.say(id=handle.id)
        running = Running(
            Order(
                id=handle.id,
                pid=order["pid"],
                target=TARGET,
                connect=lambda: LeashedSource(leash),
                wishes=wishes,
                directory=handle.directory,
                criu=tuple(order["criu"]),
                lease_s=LEASE_S,
                patience_s=PATIENCE_S,
            ),
            handle,
            make_progress(io.StringIO(), quiet=True, verbose=0),
            [on_event],
        )
        running.run()
    except PhaulError as error:
        leash.say(error=str(error)[:2000], fate=error.fate, kind=type(error).__name__)
        return error.exit_code
    return running.exit_code


def be_agent(leash: Leash, order: dict[str, Any], fds: list[socket.socket]) -> int:
    """`phaul agent`."""
    control, door = fds

    async def run() -> int:
        end = LeashedAgent(leash, control, door)
        return await run_agent(end, INCOMING, tuple(order["criu"]))

    return anyio.run(run)


def be_settler(leash: Leash, order: dict[str, Any], _fds: list[socket.socket]) -> int:
    """`phaul resolve ID --yes`."""
    # The command reaches its target as the user wrote it; here, as the lane has it.
    setattr(resolve, "reach", lambda _target: lambda: LeashedSource(leash))  # noqa: B010
    return main(["resolve", order["id"], "--yes"])


def be_sweeper(leash: Leash, order: dict[str, Any], _fds: list[socket.socket]) -> int:
    """What the next agent does about the directories of those before it."""
    del leash, order
    Incoming.make(INCOMING, "sweep").close()
    return 0


def standing(migration: str) -> tuple[str, str]:
    """What `phaul status` and `list` say of a migration: its state, and the fate."""
    entry = Registry(StateDir.open()).find(migration)
    return entry.state.value, entry.fate
