"""Stop and copy by hand: what a person would type, with the `criu` command alone.

    python3 -I -S by_hand.py PID FOLDER OUT IN

`criu dump` into a directory, its files over a connection that stands already (OUT is its near end,
IN its far one; both are here, as there is one machine), `criu restore` of what has arrived.  The
files go by sendfile and splice, in the kernel, which no tool that people use does better.  Says the
bytes that it sent, as JSON.  Nothing of phaul is in it.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

CHUNK = 1 << 20
QUIET = ("--network-lock", "skip", "-v2")  # as phaul does for a process without connections


def receive(sock: socket.socket, folder: Path, failures: list[BaseException]) -> None:
    """Write what comes into files of a folder: a line with name and size, then the bytes."""
    out, into = os.pipe()
    try:
        while words := _line(sock).split():
            left = int(words[1])
            with (folder / words[0]).open("wb") as target:
                while left:
                    count = os.splice(sock.fileno(), into, min(left, CHUNK))
                    if not count:
                        raise EOFError(words[0])
                    left -= count
                    while count:
                        count -= os.splice(out, target.fileno(), count)
    except BaseException as error:  # told where it is waited for
        failures.append(error)
    finally:
        os.close(out)
        os.close(into)


def _line(sock: socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte:
            return ""
        line += byte
    return line.decode()


def send(sock: socket.socket, folder: Path) -> int:
    """Send the images of a folder; returns the bytes that went."""
    sent = 0
    for file in sorted(folder.glob("*.img")):
        with file.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            line = f"{file.name} {size}\n".encode()
            sock.sendall(line)
            at = 0
            while at < size:
                at += os.sendfile(sock.fileno(), source.fileno(), at, min(size - at, CHUNK))
        sent += len(line) + size
    sock.shutdown(socket.SHUT_WR)
    return sent


def main() -> None:
    """Move a process."""
    pid, folder = sys.argv[1], Path(sys.argv[2])
    near, far = (socket.socket(fileno=int(word)) for word in sys.argv[3:5])
    here, there = folder / "here", folder / "there"
    here.mkdir()
    there.mkdir()
    failures: list[BaseException] = []
    arrives = threading.Thread(target=receive, args=(far, there, failures))
    arrives.start()
    try:
        dump = ["criu", "dump", "-t", pid, "-D", str(here), "-o", "dump.log", *QUIET]
        subprocess.run(dump, check=True)
        sent = send(near, here)
    finally:
        near.shutdown(socket.SHUT_RDWR)
        arrives.join()
    if failures:
        raise failures[0]
    restore = ["criu", "restore", "-d", "-D", str(there), "-o", "restore.log", *QUIET]
    subprocess.run(restore, check=True)
    print(json.dumps({"bytes": sent}))


if __name__ == "__main__":
    main()
