"""Runs one migration for a verb: its entry, its steering, its signals, and who is told of events.

Used on the source, from the command line's last check to the exit status.
"""

import signal
import time
from collections.abc import Sequence
from typing import Final

import anyio
import msgspec
from anyio.abc import TaskGroup, TaskStatus

from phaul.cli.render.progress import Progress
from phaul.errors import Cancelled, PhaulError, UsageError
from phaul.report import (
    Checked,
    Connected,
    CutoverStarted,
    Draining,
    Event,
    Planned,
    Report,
    Round,
    RoundFinished,
    RoundProgress,
    RoundStarted,
    SlowedDown,
    Started,
)
from phaul.report.events import EventHandler
from phaul.source.migration import Migration, Order
from phaul.source.steering import Standing, serve
from phaul.storage.entry import State
from phaul.storage.registry import Handle
from phaul.transport.beside import beside

__all__ = ["TERMINATED", "Running"]

TERMINATED: Final = 143
"""The exit status of a migration that SIGTERM has cancelled."""

_STATES: Final[dict[type, State]] = {
    Connected: State.PREFLIGHT,
    Started: State.PRE_COPY,
    CutoverStarted: State.CUTOVER,
}


class Running:
    """One migration of the command line's; `run` it once.

    `handlers` are told of each event besides the progress.  `handle` is None for a dry run, of
    which nothing is written down.  It is the Steering of the migration as well.
    """

    def __init__(
        self,
        order: Order,
        handle: Handle | None,
        progress: Progress,
        handlers: Sequence[EventHandler] = (),
    ) -> None:
        self.exit_code = 0
        self.migration = Migration(order, self._on_event)
        self._dry_run = order.dry_run
        self._handle = handle
        self._progress = progress
        self._handlers = handlers
        self._signal = 0
        self._state = State.CONNECTING
        self._rounds: list[Round] = []
        self._under_way = Standing(state=self._state)
        self._round_begun = 0.0
        self._share = 1.0
        self._runs_there = ""
        """The other host, once the process runs there and needs memory from here."""

    def run(self) -> Report | None:
        """Move the process; raises PhaulError, whose exit code is then in `exit_code`."""
        try:
            report = anyio.run(self._main)
        except PhaulError as error:
            self.exit_code = error.exit_code
            if isinstance(error, Cancelled) and self._signal == signal.SIGTERM:
                self.exit_code = TERMINATED
            if self._handle is not None:
                self._handle.finish(error, exit_code=self.exit_code)
            raise
        if report is not None:
            self.exit_code = 1 if report.warnings else 0
            if self._handle is not None:
                self._handle.finish(
                    report.to_json(),
                    fate=f"running on {report.destination}, PID {report.destination_pid}",
                    exit_code=self.exit_code,
                    destination_pid=report.destination_pid,
                )
        return report

    def cancel(self) -> bool:
        """See Steering."""
        return self.migration.cancel()

    def set_max_downtime(self, seconds: float) -> None:
        """See Steering; raises UsageError once it is too late."""
        if self._state is State.CUTOVER:
            raise UsageError("the cutover has begun: its downtime is not to be changed any more")
        self.migration.max_downtime_s = seconds
        if self._handle is not None:
            self._handle.update(max_downtime_s=seconds)

    def status(self) -> Standing:
        """See Steering."""
        begun = self._round_begun
        return msgspec.structs.replace(
            self._under_way,
            state=self._state,
            round_s=time.monotonic() - begun if self._under_way.number is not None else 0.0,
            share=self._share,
            max_downtime_s=self.migration.max_downtime_s,
        )

    async def _main(self) -> Report | None:
        async with beside() as tasks:
            await tasks.start(self._heed_signals)
            if self._handle is not None:
                await self._listen(tasks, self._handle)
            return await self.migration.run()

    async def _listen(self, tasks: TaskGroup, handle: Handle) -> None:
        """Let it be steered from other terminals; without that it goes as well."""
        try:
            await tasks.start(serve, handle.socket, self)
        except OSError as error:
            self._progress.line(f"nobody can steer it from another terminal: {error.strerror}")

    async def _heed_signals(
        self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                self._signal = self._signal or number
                if self.cancel():
                    self._progress.line("cancelling")
                elif self._runs_there:
                    self._progress.line(
                        f"too late to cancel: it runs on {self._runs_there}, and its memory is "
                        "still needed here; who ends this now loses the process"
                    )
                else:
                    self._progress.line("too late to cancel: the process is being handed over")

    def _on_event(self, event: Event) -> None:
        if not (self._dry_run and isinstance(event, Planned)):  # that is its result
            self._progress.on_event(event)
        for handler in self._handlers:
            handler(event)
        match event:
            case RoundStarted(number=number):
                self._round_begun = time.monotonic()
                self._under_way = Standing(state=self._state, number=number)
            case RoundProgress():
                self._under_way = msgspec.structs.replace(
                    self._under_way,
                    sent_bytes=event.sent_bytes,
                    expected_bytes=event.expected_bytes,
                )
            case Draining(follows=True):
                self._runs_there = self.migration.peer
            case SlowedDown(share=share):
                self._share = share
            case RoundFinished(round=done):
                self._rounds.append(done)
                self._under_way = Standing(state=self._state)
            case _:
                pass
        self._state = _STATES.get(type(event), self._state)
        if self._handle is not None:
            self._write_down(event)

    def _write_down(self, event: Event) -> None:
        assert self._handle is not None
        match event:
            case Connected(host=host):
                self._handle.update(state=self._state, destination=host)
            case Started() | CutoverStarted() | Checked():
                self._handle.update(state=self._state)
            case RoundFinished():
                self._handle.update(rounds=self._rounds)
            case Draining(follows=True, given=0):
                self._handle.update(
                    fate=f"running on {self._runs_there}, while its memory follows from here"
                )
            case _:
                pass
