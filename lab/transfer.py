"""Files into and out of a guest, as tar streams through its agent.  Runs on the host."""

import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from .command import Command
from .errors import TransferError
from .stream import Stream

if TYPE_CHECKING:
    from .guest import Guest

TIMEOUT = 300.0


class _Reader:
    """The little of a file that `tarfile` wants of a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def read(self, length: int) -> bytes:
        return self._stream.read(length, TIMEOUT)


def _finish(command: Command, what: str) -> None:
    status = command.wait(TIMEOUT)
    if status:
        reason = command.stderr.read(timeout=TIMEOUT).decode(errors="replace").strip()
        raise TransferError(f"{what}: tar in the guest ended with status {status}: {reason}")


def put(guest: "Guest", paths: Sequence[str | Path], folder: str) -> None:
    """Copy files and folders of the host into a folder of the guest; see `Guest.put`."""
    what = f"{guest.name}: put into {folder}"
    script = 'mkdir -p "$1" && exec tar xf - -C "$1" --no-same-owner'
    with guest.spawn(["sh", "-c", script, "put", folder], stdin=True) as command:
        target: Any = command
        try:
            with tarfile.open(fileobj=target, mode="w|", bufsize=1 << 18) as archive:
                for path in paths:
                    archive.add(path, arcname=Path(path).resolve().name)
        except (OSError, tarfile.TarError) as error:
            raise TransferError(f"{what}: {error}") from error
        command.close_stdin()
        _finish(command, what)


def get(guest: "Guest", paths: Sequence[str], folder: str | Path) -> None:
    """Copy files and folders of the guest into a folder of the host; see `Guest.get`."""
    what = f"{guest.name}: get into {folder}"
    words = []
    for path in map(PurePosixPath, paths):
        words += ["-C", str(path.parent), path.name]
    Path(folder).mkdir(parents=True, exist_ok=True)
    with guest.spawn(["tar", "cf", "-", *words], cwd="/") as command:
        source: Any = _Reader(command.stdout)
        try:
            with tarfile.open(fileobj=source, mode="r|", bufsize=1 << 18) as archive:
                archive.extractall(folder, filter="tar")
            command.stdout.read(timeout=TIMEOUT)  # padding after the end mark
        except tarfile.ReadError as error:
            _finish(command, what)
            raise TransferError(f"{what}: {error}") from error
        except (OSError, tarfile.TarError) as error:
            raise TransferError(f"{what}: {error}") from error
        _finish(command, what)
