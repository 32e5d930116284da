"""The other end of a migration whose session runs in the test's own event loop."""

import anyio.to_thread

from tests.unit.conftest import Ends

__all__ = ["Remote"]


class Remote:
    """The other end's server, called in a thread."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends

    async def start_iteration(self) -> None:
        await anyio.to_thread.run_sync(self.ends.remote.start_iteration)

    async def stop_iteration(self) -> None:
        await anyio.to_thread.run_sync(self.ends.remote.stop_iteration)
