"""The source's end of the ssh transport: the user's own OpenSSH, with their configuration.

Used on the source, from the connection to the end.

    source                                    destination
    ssh -T -o ControlMaster=yes ...   ====>   phaul agent                   the control channel
    ssh -T -o ControlPath=...         ====>   phaul agent --memory TOKEN    the memory channel

One authentication: the second is a channel in the first one's connection, through a socket in a
private directory.  The memory's local end is a unix socket, which CRIU can be given.
"""

import re
import shlex
import shutil
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import anyio

from phaul.errors import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    PhaulError,
    SshMissing,
    UsageError,
)
from phaul.protocol.messages import Answer
from phaul.transport.child import Child
from phaul.transport.control import SILENCE_S, Control, source_control
from phaul.transport.descriptors import DescriptorStream
from phaul.transport.diagnosis import diagnose, last_line
from phaul.transport.end import Closing
from phaul.transport.splice import READY, require_token
from phaul.transport.target import Target

__all__ = ["SshOptions", "SshSource", "ssh_command"]

_ENDING_S: Final = 5.0
"""How long an ssh may take to end after its channel did."""

# What the user's configuration may say for their own logins, and would break this one.  Forwarded
# ports would be taken twice.  The last three are unknown to OpenSSH before 8.7.
_FIXED: Final = (
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "ControlPersist=no",
    "LogLevel=ERROR",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "IgnoreUnknown=SessionType,StdinNull,ForkAfterAuthentication",
    "SessionType=default",
    "StdinNull=no",
    "ForkAfterAuthentication=no",
)

_WORD: Final = re.compile(r"[A-Za-z0-9_@%+=:,./][A-Za-z0-9_@%+=:,./-]*|--?[a-z][a-z-]*")
_PLAIN_PATH: Final = re.compile(r"/[A-Za-z0-9_./-]*")

# A unix socket's name has 107 bytes, and ssh adds 17 of its own while it makes one.
_DIRECTORY_MOST: Final = 107 - 17 - len("/mux") - len("/phaul-ssh-12345678")


@dataclass(frozen=True)
class SshOptions:
    """How ssh is called.

    `program` is ssh; `remote` the command over there that is `phaul agent`, for a phaul that is not
    on the PATH or needs `sudo -n`; `config_file` stands in for the user's configuration; `batch`
    never asks anything.  `connect_timeout` is in seconds, and does not count a person's typing.
    """

    program: str = "ssh"
    remote: Sequence[str] = ("phaul", "agent")
    config_file: Path | None = None
    batch: bool = False
    connect_timeout: int = 15

    def __post_init__(self) -> None:
        if not self.remote or self.remote[0].startswith("-"):
            raise UsageError("the command on the other side is empty, or begins with an option")
        for word in self.remote:
            if not _WORD.fullmatch(word):
                raise UsageError(f"{word!a} may not be in the command on the other side")
        if not 1 <= self.connect_timeout <= 3600:
            raise UsageError(f"connect_timeout is {self.connect_timeout}, it must be 1 to 3600")


def ssh_command(
    target: Target, options: SshOptions, mux: Path, *, memory: str | None = None
) -> list[str]:
    """The arguments of ssh for the control channel, or for the memory channel with that token."""
    settings = [
        *_FIXED,
        f"ConnectTimeout={options.connect_timeout}",
        f"ControlMaster={'yes' if memory is None else 'no'}",
        f"ControlPath={mux}",
        # If the first connection is gone, the second must not begin to ask by itself.
        f"BatchMode={'yes' if options.batch or memory is not None else 'no'}",
    ]
    argv = [options.program, "-T"]
    if options.config_file is not None:
        argv += ["-F", str(options.config_file.absolute())]
    for setting in settings:
        argv += ["-o", setting]
    if target.port is not None:
        argv += ["-p", str(target.port)]
    if target.user:
        argv += ["-l", target.user]
    remote = list(options.remote) if memory is None else [*options.remote, "--memory", memory]
    # The words were checked, so nothing is quoted here; if that ever changes, it is.
    return [*argv, "--", target.host, shlex.join(remote)]


class SshSource(Closing):
    """A SourceEnd over ssh; enter it to start ssh, whose failures `control` then raises.

    Entering raises SshMissing.
    """

    control: Control[Answer]

    def __init__(
        self, target: Target, options: SshOptions | None = None, *, silence: float = SILENCE_S
    ) -> None:
        self._target = target
        self._options = options or SshOptions()
        self._silence = silence
        self._children: list[Child] = []
        self._directory: Path | None = None
        self._dialled: tuple[socket.socket, Child] | None = None

    def dial(self) -> None:
        """Start ssh at once, ahead of entering: it connects while the caller gets ready.

        Who has dialled and does not enter has to `hang_up`.  Raises SshMissing.
        """
        if shutil.which(self._options.program) is None:
            raise SshMissing(
                f"there is no {self._options.program} on this host",
                remedy="install OpenSSH's client",
            )
        self._directory = _private_directory()
        try:
            self._dialled = self._start(None)
        except BaseException:
            self.hang_up()
            raise

    def hang_up(self) -> None:
        """Undo `dial`, unless this was entered since: then leaving it does."""
        if hasattr(self, "control"):
            return
        if self._dialled is not None:
            near, child = self._dialled
            self._dialled = None
            near.close()
            child.abandon()
            self._children.clear()
        self._remove_directory()

    async def __aenter__(self) -> Self:
        if self._dialled is None:
            self.dial()
        assert self._dialled is not None
        near, self._first = self._dialled
        self._dialled = None
        self.control = source_control(
            DescriptorStream.from_socket(near),
            str(self._target),
            explain=self._explain,
            silence=self._silence,
        )
        return self

    @property
    def memory_sent(self) -> int | None:
        """What the ssh of the memory channel has read; see SourceEnd."""
        return self._children[1].bytes_read() if len(self._children) > 1 else None

    async def open_memory(self, token: str) -> socket.socket:
        """Open the memory channel; see SourceEnd.  Raises UsageError, ConnectFailed."""
        require_token(token)
        near, child = self._start(token)
        try:
            near.setblocking(False)
            limit = float(self._options.connect_timeout)
            try:
                with anyio.fail_after(limit):
                    await self._await_ready(near, child)
            except TimeoutError as error:
                raise ConnectTimeout(
                    f"the memory channel did not stand within {limit:g} s", host=str(self._target)
                ) from error
            near.setblocking(True)
        except BaseException:
            near.close()
            await child.end(0)
            self._children.remove(child)
            raise
        return near

    async def aclose(self) -> None:
        """Close the control channel, end and reap every ssh, remove the private directory.

        The memory's socket stays the caller's, but nothing is behind it any more.
        """
        with anyio.CancelScope(shield=True):
            # One that still asks for a password has nothing to finish.
            grace = 0.0
            if hasattr(self, "control"):
                grace = _ENDING_S if self.control.spoke else 0.0
                await self.control.aclose()
            # The newest first: the first carries the others, and stays until they have ended.
            while self._children:
                child = self._children[-1]
                await child.end(grace if len(self._children) == 1 else 0)
                self._children.pop()
            self._remove_directory()

    def _remove_directory(self) -> None:
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _start(self, memory: str | None) -> tuple[socket.socket, Child]:
        if self._directory is None:
            raise UsageError("the connection is not open")
        argv = ssh_command(self._target, self._options, self._directory / "mux", memory=memory)
        near, far = socket.socketpair()
        try:
            child = Child(argv, far)
        except BaseException:
            near.close()
            raise
        self._children.append(child)
        return near, child

    async def _await_ready(self, near: socket.socket, child: Child) -> None:
        read = b""
        while len(read) < len(READY):
            await anyio.wait_readable(near)
            try:
                data = near.recv(len(READY) - len(read))
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            read += data
            if not READY.startswith(read):
                raise ConnectFailed(
                    f"the memory channel begins with {read!a}",
                    host=str(self._target),
                    remedy="let nothing over there write to standard output before phaul does",
                )
            if not data:
                raise await self._diagnose(child)

    async def _explain(self) -> PhaulError | None:
        """Why the control channel ended."""
        if not self.control.spoke:
            return await self._diagnose(self._first)
        status = await self._first.wait(_ENDING_S)
        said = last_line(await self._first.lines())
        who = "ssh" if status in {None, 255} else f"phaul over there (status {status})"
        what = f"{who} ended: {said}" if said else f"{who} ended"
        return ConnectionLost(f"the connection is lost: {what}", host=str(self._target))

    async def _diagnose(self, child: Child) -> ConnectFailed:
        status = await child.wait(_ENDING_S)
        target = self._target
        return diagnose(target.host, target.port, target.user, status, await child.lines())


def _private_directory() -> Path:
    """A fresh directory, 0700, with a name that fits a socket and means nothing to ssh."""
    base = tempfile.gettempdir()
    if not _PLAIN_PATH.fullmatch(base) or len(base) > _DIRECTORY_MOST:
        base = "/tmp"
    return Path(tempfile.mkdtemp(prefix="phaul-ssh-", dir=base))
