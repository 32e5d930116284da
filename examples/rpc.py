"""The smallest RPC that a phaul.Server needs: one JSON line a call, and a file's bytes behind it.

`serve` runs beside the Server on the destination; `RemoteServer` is its face on the source, and can
be given to phaul.Client as its `remote`.  There is no authentication here: use it over a socket
pair, or between machines that nobody else can reach.
"""

import json
import socket
import tempfile
from pathlib import Path
from typing import Any, cast

from phaul import PhaulError, Server, Version

MAX_FILE = 1 << 30


class RemoteError(Exception):
    """The destination raised; the text is its error's."""


class RemoteServer:
    """A phaul.Server in another process, reached through `sock`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._file = sock.makefile("rwb")

    def criu_version(self) -> Version:
        """The version of CRIU there, for `phaul.Config.peer_criu`."""
        major, minor, sublevel = cast("list[int]", self._call("criu_version"))
        return Version(major, minor, sublevel)

    def start_iteration(self) -> None:
        """Have one more round received there."""
        self._call("start_iteration")

    def stop_iteration(self) -> None:
        """Have the round's end awaited there."""
        self._call("stop_iteration")

    def add_images(self, paths: list[Path]) -> None:
        """Copy image files there."""
        for path in paths:
            self._call("add_image", path.name, payload=path.read_bytes())

    def restore(self) -> int:
        """Restore there, and hold the tree; returns the root's PID there."""
        pid = self._call("restore")
        assert isinstance(pid, int)
        return pid

    def release(self) -> None:
        """Let the restored tree run."""
        self._call("release")

    def discard(self) -> None:
        """End the restored tree, which never ran."""
        self._call("discard")

    def new_chain(self, memory_fd: int) -> None:
        """Start over there; `memory_fd` is the number there of its end of a fresh socket."""
        self._call("new_chain", memory_fd)

    def close(self) -> None:
        """End the conversation; what was not released there ends with it."""
        self._file.close()
        self._sock.close()

    def _call(self, method: str, *args: object, payload: bytes = b"") -> object:
        head = {"call": method, "args": args, "size": len(payload)}
        self._file.write(json.dumps(head).encode() + b"\n" + payload)
        self._file.flush()
        line = self._file.readline()
        if not line:
            raise RemoteError("the destination has closed the control channel")
        answer = json.loads(line)
        if "error" in answer:
            raise RemoteError(answer["error"])
        return answer["result"]


def serve(sock: socket.socket, server: Server) -> None:
    """Do what the other side asks of `server`, until it closes its end."""
    version = server.criu_version
    calls: dict[str, Any] = {
        "criu_version": lambda: [version.major, version.minor, version.sublevel],
        "start_iteration": server.start_iteration,
        "stop_iteration": server.stop_iteration,
        "restore": server.restore,
        "release": server.release,
        "discard": server.discard,
        "new_chain": server.new_chain,
    }
    with sock, sock.makefile("rwb") as file, tempfile.TemporaryDirectory() as scratch:
        while line := file.readline():
            request = json.loads(line)
            if not 0 <= request["size"] <= MAX_FILE:
                return
            payload = file.read(request["size"])
            try:
                if request["call"] == "add_image":
                    image = Path(scratch) / Path(request["args"][0]).name
                    image.write_bytes(payload)
                    server.add_images([image])
                    result = None
                else:
                    result = calls[request["call"]](*request["args"])
                answer = {"result": result}
            except PhaulError as error:
                answer = {"error": str(error)}
            file.write(json.dumps(answer).encode() + b"\n")
            file.flush()
