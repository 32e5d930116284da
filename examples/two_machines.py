"""Moves a process to another machine, by the library alone, over two plain TCP connections.

    python -m examples.two_machines serve ADDRESS:PORT WORK_DIR     on the destination, once
    python -m examples.two_machines move PID ADDRESS:PORT WORK_DIR  on the source

Both as root, over a link that nobody else can reach: nothing here is encrypted or authenticated.
The files that the process uses must be the same on both machines.
"""

import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import phaul
from examples.local_migration import MoveToNamespace
from examples.rpc import RemoteServer, serve

CONNECT_S = 30


def address(text: str) -> tuple[str, int]:
    """ADDRESS:PORT as Python wants it."""
    host, _, port = text.rpartition(":")
    return host, int(port)


def run_destination(listen: str, work_dir: Path) -> None:
    """Take one process: the first connection is for control, the second for the memory."""
    with socket.create_server(address(listen)) as listener:
        control, _ = listener.accept()
        memory, _ = listener.accept()
    control.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with control, memory:
        config = phaul.Config(memory_fd=memory.fileno(), work_dir=work_dir)
        with phaul.Server(config) as server:
            serve(control, server)


def move(pid: int, target: str, work_dir: Path, say: Callable[[phaul.Event], None]) -> phaul.Report:
    """Move process `pid` to the destination that listens at `target`."""
    with ExitStack() as stack:
        control = socket.create_connection(address(target), CONNECT_S)
        memory = stack.enter_context(socket.create_connection(address(target), CONNECT_S))
        control.settimeout(None)
        control.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        memory.settimeout(None)
        server = stack.enter_context(closing(RemoteServer(control)))
        config = phaul.Config(
            pid=pid,
            memory_fd=memory.fileno(),
            work_dir=work_dir,
            peer_criu=server.criu_version(),
            # A final dump of 2 MiB takes no longer than one of nothing, on most links.
            stop_rule=phaul.StopRule(min_pages=512),
        )
        return phaul.Client(MoveToNamespace(server), server, config, on_event=say).migrate()


def say(event: phaul.Event) -> None:
    """Print an event as a person wants to read it."""
    match event:
        case phaul.report.Started():
            memory = event.memory_bytes / (1 << 20)
            print(f"moving {event.name}, PID {event.pid}, {memory:.0f} MiB, by {event.way.value}")
            if event.reason:
                print(event.reason)
        case phaul.report.RoundFinished():
            print(f"round {event.round.number}  {event.round}", flush=True)
        case phaul.report.PreCopyStopped():
            print(f"enough rounds: {event.explanation}", flush=True)
        case _:
            pass


def main() -> None:
    """Be the destination, or the source."""
    match sys.argv[1:]:
        case ["serve", listen, work_dir]:
            run_destination(listen, Path(work_dir))
        case ["move", pid, target, work_dir]:
            report = move(int(pid), target, Path(work_dir), say)
            print(f"final    {report.final}")
            print(f"downtime {report.downtime}")
            sent = report.sent_bytes / (1 << 20)
            print(f"sent {sent:.1f} MiB in {report.seconds:.1f} s")
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
