"""What an agent does of a lazy restore, as a process that can be killed.

    python3 -m tests.engine.lazy_agent INCOMING

Restores INCOMING/images/0 and says `held PID KEEPER`; on `go` stops the
keeper, lets it run, and says `runs`; on
`leave` it leaves as an agent does that has told its source; what fails is said as `failed ...`.
"""

import logging
import signal
import sys
from pathlib import Path

import anyio
import anyio.to_thread

from phaul.criu.engine import Engine
from phaul.criu.rpc import CriuOptions
from phaul.criu.workers import Workers
from phaul.destination.copy import HeldCopy
from phaul.destination.memory import LazyMemory
from phaul.errors import PhaulError

ENGINE = Engine()


def say(*words: object) -> None:
    print(*words, flush=True)


async def heard() -> str:
    line: str = await anyio.to_thread.run_sync(sys.stdin.readline)
    return line.strip()


async def main(incoming: Path) -> None:
    async with Workers(ENGINE) as workers:
        facts = await workers.examine()
    images = incoming / "images/0"
    async with anyio.create_task_group() as tasks:
        memory = LazyMemory.begin(
            incoming,
            ENGINE.program,
            tasks,
            mode="lazy",
            rate=1.0,
            wide=facts.version.wide_page_server,
            host="here",
        )
        assert memory is not None
        memory.written(images)
        assert await memory.ready(images)
        copy = await HeldCopy.restore(
            ENGINE.worker(),
            images,
            CriuOptions(),
            timeout=60,
            log_level=2,
            host="here",
            lazily=True,
        )
        await memory.guard(copy.pid)
        assert memory.keeper is not None
        say("held", copy.pid, memory.keeper.pid)
        word = await heard()
        try:
            await memory.require()
        except PhaulError as error:
            await copy.discard()
            await memory.ended()
            say("failed", error)
            return
        memory.keeper.signal(signal.SIGSTOP)  # the store stands still, and the daemon asks it
        await (await copy.release(60))()
        say("runs")
        word = await heard()
        if word == "leave":
            await memory.leave(told=True)
            await memory.close()
            say("left")


if __name__ == "__main__":
    logging.basicConfig()  # what it warns of is seen where the test fails
    anyio.run(main, Path(sys.argv[1]))
