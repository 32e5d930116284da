"""Forks the processes under test: one of these on each host, with phaul imported, and one thread.

    python3 -m tests.faults.zygote FD

FD is its lane's.  It is told a role, arguments, and descriptors: the leash first.  It answers with
the PID (as this host counts) and a pidfd, and says later how the process ended.  A process of its
own for each role is what a command would be; to fork it costs 2 ms, to start it 500.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tests.faults import adapter, tuning
from tests.faults.ends import null_streams, watch_criu, watch_journal, watch_memory
from tests.faults.wire import Leash, take, tell

__all__ = ["main"]

Role = Callable[[Leash, dict[str, Any], list[socket.socket]], int]
ROLES: dict[str, Role] = {
    "source": adapter.be_source,
    "agent": adapter.be_agent,
    "settle": adapter.be_settler,
    "sweep": adapter.be_sweeper,
}


def main(descriptor: int) -> int:
    """Fork until the lane ends; then end what was forked."""
    lane = socket.socket(fileno=descriptor)
    tuning.apply()
    adapter.warm_up()
    gc.collect()
    gc.freeze()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: set[int] = set()
    tell(lane, {"ready": os.getpid()})
    while True:
        ready, _, _ = select.select([lane.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(lane, children)
        if lane.fileno() in ready:
            message, fds = take(lane)
            if message is None:
                break
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                _become(message, fds)
            for fd in fds:
                os.close(fd)
            children.add(pid)
            handle = os.pidfd_open(pid)
            tell(lane, {"pid": pid}, [handle])
            os.close(handle)
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    lane.close()
    os.close(woken)
    os.close(wake)
    return 0


def _reap(lane: socket.socket, children: set[int]) -> None:
    for pid in list(children):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            children.discard(pid)
            tell(lane, {"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _become(message: dict[str, Any], fds: list[int]) -> None:
    """Be the process under test, in a session of its own, with nothing of the zygote's open."""
    status = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        gc.enable()
        # Above what it got, so that no descriptor of the zygote's is in the way.
        moved = [os.dup2(fd, 200 + index, inheritable=False) for index, fd in enumerate(fds)]
        null_streams(message["log"])
        os.closerange(3, 200)
        os.environ.update(message.get("environment", {}))
        sockets = [socket.socket(fileno=fd) for fd in moved]
        leash = Leash(sockets[0])
        watch_criu(leash)
        watch_journal(leash)
        watch_memory(leash)
        status = ROLES[message["role"]](leash, message, sockets[1:])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 71
    except BaseException:
        traceback.print_exc()
        with suppress(OSError):
            print(json.dumps({"crash": message["role"]}), file=sys.stderr)
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
