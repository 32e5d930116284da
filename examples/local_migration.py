"""Moves a process to another PID namespace of this machine, by the library alone.

    python -m examples.local_migration [PID]

Without a PID it starts a piggie of its own, which counts into a file.  The destination is a second
process in a PID namespace of its own, since the moved process keeps its PID.  Where the kernel
tracks dirty memory the process is pre-copied while it runs; elsewhere it is stopped and copied, and
the report says why.  Needs root and CRIU.
"""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import phaul
from examples.rpc import RemoteServer, serve

PIGGIE = """
import sys, time
count = 0
while True:
    count += 1
    with open(sys.argv[1], "a") as file:
        print(count, file=file)
    time.sleep(0.01)
"""


class MoveToNamespace:
    """The source's part of the cutover: dump, copy the images over, restore them there."""

    def __init__(self, destination: RemoteServer) -> None:
        self.destination = destination

    def dump_copy_restore(
        self, criu: phaul.Criu, config: phaul.Config, last_images_dir: Path | None
    ) -> Callable[[], None]:
        """Called when the pre-copy is over; what it returns is called when the source is gone."""
        held = criu.dump()
        self.destination.add_images(held.images())
        self.destination.restore()
        # It stands restored and still.  To return kills the tree here; then it is let go there.
        return self.destination.release


class RestoreAfterwards:
    """Restores only when the source is gone: for where the copy needs its PIDs or its addresses.

    If the restore fails then, the process is down, and its images are all that is left of it.
    """

    def __init__(self, destination: RemoteServer | phaul.Server) -> None:
        self.destination = destination

    def dump_copy_restore(
        self, criu: phaul.Criu, config: phaul.Config, last_images_dir: Path | None
    ) -> Callable[[], None]:
        """Dump and copy; what is returned restores, and lets it run."""
        self.destination.add_images(criu.dump().images())

        def release() -> None:
            self.destination.restore()
            self.destination.release()

        return release


@contextmanager
def destination(work_dir: Path, options: Sequence[str] = ()) -> Iterator[tuple[RemoteServer, int]]:
    """A destination in a PID namespace of its own, and the source's end of the memory channel.

    The namespace ends, with all that runs in it, at the end of the `with` block.
    """
    ours, theirs = socket.socketpair()
    memory, their_memory = socket.socketpair()
    with ours, memory:
        with theirs, their_memory:
            process = subprocess.Popen(
                [
                    *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *(sys.executable, "-m", "examples.local_migration", "--destination"),
                    *(str(theirs.fileno()), str(their_memory.fileno()), str(work_dir), *options),
                ],
                pass_fds=(theirs.fileno(), their_memory.fileno()),
                stdin=subprocess.DEVNULL,
            )
        server = RemoteServer(ours)
        try:
            yield server, memory.fileno()
        finally:
            # PID 1 of the namespace ends when it sees this, and all in it ends before it is gone.
            server.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(30)


def run_destination(control_fd: int, memory_fd: int, work_dir: Path, *options: str) -> None:
    """The other process: PID 1 of the namespace, so what it restores lives as long as it does."""
    # What this process starts must not take the PIDs that the tree is going to need.
    kernel = Path("/proc/sys/kernel")
    kernel.joinpath("ns_last_pid").write_text(str(int(kernel.joinpath("pid_max").read_text()) // 2))
    criu_options = phaul.CriuOptions(tcp_established="--tcp-established" in options)
    config = phaul.Config(memory_fd=memory_fd, work_dir=work_dir, options=criu_options)
    with phaul.Server(config) as server, socket.socket(fileno=control_fd) as control:
        serve(control, server)


def main() -> None:
    """Be the destination, or start one and move a process there."""
    if sys.argv[1:2] == ["--destination"]:
        run_destination(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), *sys.argv[5:])
        return
    with tempfile.TemporaryDirectory(prefix="phaul-") as folder:
        work = Path(folder)
        counter = work / "count"
        piggie = None
        if len(sys.argv) > 1:
            pid = int(sys.argv[1])
        else:
            piggie = start_piggie(counter)
            pid = piggie.pid
        with destination(work / "there") as (server, memory_fd):
            config = phaul.Config(pid=pid, memory_fd=memory_fd, work_dir=work / "here")
            client = phaul.Client(MoveToNamespace(server), server, config, on_event=print)
            print(client.migrate())
            if piggie:
                piggie.wait(30)
                check_counter(counter)


def start_piggie(counter: Path) -> "subprocess.Popen[bytes]":
    """Start one as a leader of its own session, with no terminal: CRIU wants both."""
    piggie = subprocess.Popen(
        [sys.executable, "-c", PIGGIE, str(counter)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not counter.exists():
        time.sleep(0.01)
    return piggie


def check_counter(counter: Path) -> None:
    """Print how far the moved piggie has counted; fail if it left a number out."""
    before = len(counter.read_text().splitlines())
    time.sleep(0.5)
    numbers = [int(line) for line in counter.read_text().splitlines()]
    if numbers != list(range(1, len(numbers) + 1)) or len(numbers) <= before:
        raise SystemExit(f"the piggie lost count: {numbers[-5:]} after {before} numbers")
    print(f"the piggie has counted on from {before} to {len(numbers)}, without a gap")


if __name__ == "__main__":
    main()
