"""One emulated machine: its life and what is done in it.  Runs on the host."""

import logging
import re
import shutil
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from . import clock, qemu, ssh, state, transfer
from .command import Command, connect
from .errors import BootError, ConnectionLostError, DeadlineError, GuestError
from .frames import CHUNK, FrameError
from .qemu import ADDRESSES, Machine, Name, Thp
from .result import Result

BOOT_TIMEOUT = 120.0
"""Some 10 s are usual with two processors, more under load."""
BOOT_TRIES = 2
"""An emulated kernel may panic while it boots, under load: one of some 50 boots did."""
_PROBE_TIMEOUT = 2.0
_TAIL_LINES = 12
_OOPS = re.compile(r"Oops|BUG:|\[#1\]|Kernel panic")
_OOPS_LINES = 24
_logger = logging.getLogger(__name__)


class Guest:
    """A machine of the lab, `src` or `dst`."""

    def __init__(self, machine: Machine, run_dir: Path) -> None:
        """Know it by its run directory; it may be up or not."""
        self.machine = machine
        self.name: Name = machine.name
        self.address = ADDRESSES[machine.name]
        """Its address on the link; each guest's hosts file names `src`, `dst` and `peer`."""
        self.run_dir = run_dir
        self.console = run_dir / f"{machine.name}.console"
        """What its kernel and init wrote."""
        self.log = run_dir / f"{machine.name}.log"
        """What QEMU wrote."""
        self.monitor = run_dir / f"{machine.name}.qmp"
        self._state = run_dir / f"{machine.name}.json"

    # -- life

    @property
    def running(self) -> bool:
        """Whether its QEMU runs."""
        return state.lives(state.read(self._state).get("qemu", []))

    def boot(self, timeout: float = BOOT_TIMEOUT) -> None:
        """Boot it and set its clock.

        Its disk is the image afresh, unless the lab is persistent.

        Raises:
            BootError: it did not come up in time, or its QEMU ended.
        """
        self.start()
        self.wait_up(timeout)

    def start(self) -> None:
        """Start its QEMU, without waiting for the guest."""
        if self.running:
            raise GuestError(f"{self.name} is up already: cut its power first")
        for leftover in (self.monitor, self.run_dir / f"{self.name}.lan"):
            leftover.unlink(missing_ok=True)
        argv = qemu.command_line(self.machine, self.run_dir)
        argv[0] = shutil.which(argv[0]) or argv[0]
        answer = state.ask_keeper(
            self.run_dir, do="start", name=self.name, argv=argv, log=str(self.log)
        )
        try:
            identity = state.identify(answer["pid"])
        except OSError as error:
            raise BootError(self._explain(f"{self.name}: QEMU ended at once")) from error
        state.write(self._state, {"qemu": identity})

    def wait_up(self, timeout: float = BOOT_TIMEOUT) -> None:
        """Wait until it answers, and set its clock."""
        end = time.monotonic() + timeout
        tries = 1
        while time.monotonic() < end:
            if not self.running:
                ended = self._explain(f"{self.name}: QEMU ended while booting, try {tries}")
                if tries == BOOT_TRIES or not self._state.exists():  # or its power was cut
                    raise BootError(ended)
                _logger.warning("%s", ended)
                tries += 1
                self.start()
            try:
                if not self._port():
                    port = qemu.agent_port(self.monitor)
                    state.write(self._state, {**state.read(self._state), "port": port})
                # QEMU accepts the connection before the guest does: only an answer counts.
                with connect(self._port(), _PROBE_TIMEOUT) as sock:
                    if clock.answers(sock):
                        self.clock(step=True)
                        return
            except (OSError, GuestError):
                time.sleep(0.1)
        raise BootError(self._explain(f"{self.name}: its agent did not answer in {timeout:.0f} s"))

    def power_cut(self) -> None:
        """Kill its QEMU, as if the power failed."""
        state.ask_keeper(self.run_dir, do="stop", name=self.name)
        self._state.unlink(missing_ok=True)

    def _port(self) -> int:
        return int(state.read(self._state).get("port", 0))

    def _explain(self, message: str) -> str:
        """Add the ends of the console and of QEMU's log."""
        for path in (self.log, self.console):
            try:
                lines = path.read_text(errors="replace").splitlines()
            except OSError:
                lines = []
            # A panic's cause stands far above its end.
            cause = next((at for at, line in enumerate(lines) if _OOPS.search(line)), len(lines))
            for what, part in (
                ("has", lines[cause : cause + _OOPS_LINES]),
                ("ends with" if lines else "is empty", lines[-_TAIL_LINES:]),
            ):
                if part or not lines:
                    message += f"\n{path} {what}:" + "".join(f"\n  {line}" for line in part)
        return message

    # -- commands

    def spawn(
        self,
        argv: Sequence[str],
        *,
        stdin: bool = False,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Command:
        """Start a command and follow it; `stdin` if something will be written to it.

        The command is the leader of a session.  It is killed when the handle is closed or this
        process ends; what it put into sessions of their own lives on.

        Raises:
            ConnectionLostError: the guest's agent does not answer.
        """
        return Command(
            self.name, self._connect(), argv, stdin=stdin, cwd=cwd, env=env, explain=self._explain
        )

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | IO[bytes] = b"",
        timeout: float = 60.0,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = False,
    ) -> Result:
        """Run a command to its end.

        Raises:
            DeadlineError: the timeout passed; the command has been killed.
            ConnectionLostError: the guest went away.
            CommandError: with `check`, the status is not 0.
        """
        with self.spawn(argv, stdin=stdin != b"", cwd=cwd, env=env) as command:
            if stdin != b"":
                # A thread: a command that answers as it reads must be able to do both.
                threading.Thread(target=_feed, args=(command, stdin), daemon=True).start()
            try:
                status = command.wait(timeout)
            except DeadlineError as error:
                command.kill()
                stderr = command.stderr.read().decode(errors="replace")[-2000:]
                raise DeadlineError(f"{error}, killed: {stderr}") from None
            result = Result(
                self.name, command.argv, status, command.stdout.read(), command.stderr.read()
            )
        return result.check() if check else result

    def sh(self, line: str, *, timeout: float = 60.0) -> str:
        """Run a shell line that must succeed; return its standard output.

        Raises:
            CommandError: its status is not 0.
        """
        return self.run(["bash", "-c", line], timeout=timeout, check=True).text

    def _connect(self, timeout: float = 10.0) -> socket.socket:
        port = self._port()
        if not port or not self.running:
            raise ConnectionLostError(self._explain(f"{self.name} is not up: boot it"))
        try:
            return connect(port, timeout)
        except OSError as error:
            raise ConnectionLostError(self._explain(f"{self.name}: no agent: {error}")) from error

    # -- files, clock, settings

    def put(self, paths: Sequence[str | Path], folder: str) -> None:
        """Copy files and folders of the host into a folder of the guest.

        Raises:
            TransferError: one cannot be read, or the guest cannot write it.
        """
        transfer.put(self, paths, folder)

    def get(self, paths: Sequence[str], folder: str | Path) -> None:
        """Copy files and folders of the guest, by absolute paths, into a folder of the host.

        Raises:
            TransferError: one is not there, or cannot be written here.
        """
        transfer.get(self, paths, folder)

    def clock(self, *, step: bool = False) -> clock.Offset:
        """Compare its clock with the host's; with `step`, set it first."""
        try:
            with self._connect() as sock:
                return clock.compare(sock, step=step)
        except FrameError as error:
            raise ConnectionLostError(self._explain(f"{self.name}: clock: {error}")) from error

    def set_thp(self, mode: Thp) -> None:
        """Set its use of transparent huge pages; at the next boot, what `Lab` got holds again."""
        self.sh(f"echo {mode} >/sys/kernel/mm/transparent_hugepage/enabled")

    def start_sshd(self) -> None:
        """Start an SSH server on the link's address; a second call does nothing."""
        ssh.start(self)


def _feed(command: Command, source: bytes | IO[bytes]) -> None:
    """Write the standard input; what the command does not want is thrown away."""
    try:
        if isinstance(source, bytes):
            command.write(source)
        else:
            while data := source.read(CHUNK):
                command.write(data)
        command.close_stdin()
    except ConnectionLostError:
        pass  # whoever waits for the command gets the same error
