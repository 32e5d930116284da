"""The process that starts a lab's QEMUs and ends them when the owner ends.

Runs on the host, by its path: `python3 -I -S keeper.py RUN_DIR OWNER_PID LISTENER_FD`; knows no
other module of the lab.  Its standard input is a pipe that the owner holds.

If the owner closes the pipe, or ends by any means (its pidfd tells, even where a forked child
still holds the pipe), the keeper kills the QEMUs, removes the run directory and leaves.  If the
keeper itself is killed, the QEMUs die by their parent-death signal; it has a single thread, which
matters: that signal is sent when the parent's *thread* ends.

It answers requests on the socket, one JSON line each:

    {"do": "start", "name": N, "argv": [...], "log": PATH}   -> {"pid": P}
    {"do": "stop", "name": N}                                -> {"status": S}
    {"do": "status"}                                         -> {"alive": {N: P, ...}}
    any that failed                                          -> {"error": TEXT}
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

CLIENT_TIMEOUT = 5.0
STOP_TIMEOUT = 20.0
_PR_SET_PDEATHSIG = 1


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class Keeper:
    """The QEMUs of one lab."""

    def __init__(self) -> None:
        """Keep none yet."""
        self.machines: dict[str, subprocess.Popen[bytes]] = {}
        self.handles: dict[int, str] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked."""
        match request["do"]:
            case "start":
                return {"pid": self.start(request["name"], request["argv"], request["log"])}
            case "stop":
                return {"status": self.stop(request["name"])}
            case "status":
                return {"alive": {name: machine.pid for name, machine in self.machines.items()}}
        return {"error": f"unknown request {request['do']!r}"}

    def start(self, name: str, argv: list[str], log: str) -> int:
        """Start a QEMU; return its PID."""
        if name in self.machines:
            raise ValueError(f"{name} is running already")
        parent = os.getpid()
        with Path(log).open("ab") as output:
            machine = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                preexec_fn=lambda: _die_with(parent),
            )  # fmt: skip
        self.machines[name] = machine
        self.handles[os.pidfd_open(machine.pid)] = name
        return machine.pid

    def stop(self, name: str) -> int | None:
        """Kill a QEMU and reap it; return its status."""
        machine = self.machines.get(name)
        if machine is None:
            return None
        machine.kill()
        return self.reap(name)

    def reap(self, name: str) -> int:
        """Take the status of a QEMU that ended or is ending."""
        status = self.machines[name].wait(STOP_TIMEOUT)
        for handle in [handle for handle, owner in self.handles.items() if owner == name]:
            del self.handles[handle]
            os.close(handle)
        del self.machines[name]
        return status

    def serve(self, listener: socket.socket) -> None:
        """Answer one client."""
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            with client:
                client.settimeout(CLIENT_TIMEOUT)
                with client.makefile("rw", encoding="utf-8") as file:
                    try:
                        reply = self.answer(json.loads(file.readline()))
                    except Exception as error:  # whatever it is, the QEMUs need their keeper
                        reply = {"error": f"{type(error).__name__}: {error}"}
                    file.write(json.dumps(reply) + "\n")

    def run(self, owner: int, listener: socket.socket) -> None:
        """Serve until the owner ends."""
        while True:
            poll = select.poll()
            for descriptor in (0, owner, listener.fileno(), *self.handles):
                poll.register(descriptor, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll()}
            if owner in ready or 0 in ready:
                return
            for handle in ready & set(self.handles):
                self.reap(self.handles[handle])
            if listener.fileno() in ready:
                self.serve(listener)


def main(run_dir: str, owner_pid: int, listener_fd: int) -> None:
    """Keep a lab until its owner ends, then clear up."""
    keeper = Keeper()
    try:
        owner = os.pidfd_open(owner_pid)
        if os.getppid() == owner_pid:
            with socket.socket(fileno=listener_fd) as listener:
                keeper.run(owner, listener)
    finally:
        for name in list(keeper.machines):
            keeper.stop(name)
        shutil.rmtree(run_dir, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
