"""`phaul agent`: what ssh starts on the destination; it imports neither click nor rich.

    phaul agent [--directory DIR] [--criu PROGRAM] [--init]
    phaul agent --memory TOKEN
    phaul agent --connection FD [--report FD] [--directory DIR] [--criu PROGRAM]

The first is the agent of one migration, over standard input and output; with `--init` in a PID
namespace of its own.  The second is the memory channel of the agent with that token.  The third is
what `phaul serve` starts for a connection, which turns out to be either.
Runs on the destination.
"""

import gc
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from phaul.errors import PhaulError, UsageError

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Be the agent; returns the exit status."""
    try:
        return _main(list(arguments))
    except PhaulError as error:
        print(f"phaul agent: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code


def _main(words: list[str]) -> int:
    directory = criu = memory = connection = report = None
    init = False
    while words:
        match words.pop(0):
            case "--directory" if words:
                directory = Path(words.pop(0))
            case "--criu" if words:
                criu = words.pop(0)
            case "--memory" if words:
                memory = words.pop(0)
            case "--connection" if words:
                connection = _descriptor(words.pop(0))
            case "--report" if words:
                report = _descriptor(words.pop(0))
            case "--init":
                init = True
            case word:
                raise UsageError(f"phaul agent does not know {word!a}, or lacks its value")
    if memory is not None:
        from phaul.transport.splice import splice_memory

        splice_memory(memory)
        return 0

    import logging

    logging.basicConfig(format="phaul agent: %(message)s", stream=sys.stderr)
    if connection is not None:
        return _answer(connection, report, directory, criu)
    if init:
        from phaul.destination.namespace import run_as_init

        return run_as_init(lambda: _run(directory, criu))
    return _run(directory, criu)


def _run(directory: Path | None, criu: str | None) -> int:
    gc.disable()  # nothing of what is imported is garbage
    from phaul.criu.engine import Engine, Examination

    program = (criu or "criu",)
    examination: Examination | None = None
    # CRIU looks at the kernel while the rest is imported.  What keeps it from that keeps it again
    # when the source asks, and is told then.
    with suppress(PhaulError, OSError):
        examination = Examination.begin(Engine(program))

    import anyio

    from phaul.destination.agent import run_agent
    from phaul.destination.incoming import base_directory
    from phaul.transport.stdio import StdioAgent

    gc.enable()

    async def run() -> int:
        end = StdioAgent()
        return await run_agent(end, directory or base_directory(), program, examination)

    return anyio.run(run)


def _answer(connection: int, report: int | None, directory: Path | None, criu: str | None) -> int:
    from phaul.destination.agent import run_agent
    from phaul.destination.incoming import base_directory
    from phaul.storage.keyring import Keyring
    from phaul.transport.base import AgentEnd
    from phaul.transport.tls.agent import answer_connection

    async def run(end: AgentEnd) -> int:
        return await run_agent(end, directory or base_directory(), (criu or "criu",))

    return answer_connection(connection, Keyring(), run, report=report)


def _descriptor(word: str) -> int:
    if not word.isascii() or not word.isdecimal():
        raise UsageError(f"{word!a} is not the number of a descriptor")
    return int(word)
