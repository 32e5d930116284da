"""Tasks beside a piece of work, which they neither outlive nor disguise.

Used on both hosts, in every phase.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

__all__ = ["beside"]


@asynccontextmanager
async def beside(*, wait: bool = False) -> AsyncGenerator[TaskGroup, None]:
    """A task group whose tasks are cancelled at the end of the block; with `wait`, waited for.

    What the block raises comes out as itself, not in a group as a task group has it.
    """
    error: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        except BaseException as raised:
            error = raised
        if not wait:
            tasks.cancel_scope.cancel()
    if error is not None:
        raise error
