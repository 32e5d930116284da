#!/usr/bin/env python3
"""A CRIU with something wrong: the real one, but for one answer.

    odd_criu.py MODE ARGUMENTS OF CRIU...

    version   says that it is 4.1.1, whose page server speaks another format
    check     its own check of the kernel fails
    cpu       the CPU here lacks what the image asks for

Stands between phaul and `criu swrk`, packet by packet.
"""

import os
import select
import socket
import struct
import subprocess
import sys
from typing import Any

from phaul.criu.messages import message_class
from phaul.criu.rpc import MAX_PACKET, RequestType

CRIU = "/usr/sbin/criu"
_PEERCRED = struct.Struct("=iII")


def spoil(mode: str, kind: int, answer: Any) -> None:  # noqa: ANN401 (a protobuf message)
    """Make the answer to a request of that kind the wrong one."""
    if mode == "version" and kind == RequestType.VERSION:
        answer.version.major_number, answer.version.minor_number = 4, 1
        answer.version.sublevel = 1
    elif (mode, kind) in {("check", RequestType.CHECK), ("cpu", RequestType.CPUINFO_CHECK)}:
        answer.success = False
        answer.cr_errmsg = f"odd: {mode} is wrong here"


def main() -> int:
    """Be CRIU; its exit status."""
    mode, *words = sys.argv[1:]
    if words[:1] != ["swrk"]:
        os.execv(CRIU, [CRIU, *words])
    outer = socket.socket(fileno=int(words[1]))
    requester, _, _ = _PEERCRED.unpack(
        outer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    )
    inner, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        criu = subprocess.Popen(
            [CRIU, "swrk", str(theirs.fileno())], pass_fds=(theirs.fileno(),), stdin=0
        )
    while True:
        ready, _, _ = select.select([outer, inner], [], [])
        if outer in ready:
            packet = outer.recv(MAX_PACKET)
            if not packet:
                break
            request = message_class("Request").FromString(packet)
            # Descriptors are looked up in the requester, which for the real CRIU is this process.
            if request.HasField("opts") and request.opts.images_dir_fd >= 0:
                path = f"/proc/{requester}/fd/{request.opts.images_dir_fd}"
                request.opts.images_dir_fd = os.open(path, os.O_RDONLY)
                packet = request.SerializeToString()
            inner.send(packet)
        if inner in ready:
            packet = inner.recv(MAX_PACKET)
            if not packet:
                break
            answer = message_class("Response").FromString(packet)
            spoil(mode, answer.type, answer)
            outer.send(answer.SerializeToString())
    inner.close()
    return criu.wait()


if __name__ == "__main__":
    sys.exit(main())
