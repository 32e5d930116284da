"""What the relay of the memory channel costs, and what compression gains on a slow link.

    python -m bench.relay [MIB]     MIB of memory for each figure, 256 if not said

Between two relays of one process, over a unix socket pair and, limited, over TCP on the loopback
interface; the limit is the relay's own.  Zeros, text and noise stand for what memory is made of.
"""

import random
import socket
import sys
import threading
import time
from contextlib import closing

from phaul.pages.bandwidth import Bandwidth
from phaul.pages.frames import Compression
from phaul.pages.relay import Relay

BLOCK = 1 << 20
LINKS: dict[str, float | None] = {"unlimited": None, "1 Gbit": 125e6, "100 Mbit": 12.5e6}


def blocks(kind: str) -> list[bytes]:
    """Eight different blocks of memory."""
    chance = random.Random(1)
    if kind == "zeros":
        return [bytes(BLOCK)] * 8
    if kind == "noise":
        return [chance.randbytes(BLOCK) for _ in range(8)]
    words = [chance.randbytes(chance.randint(1, 5)).hex().encode() for _ in range(4000)]
    return [b" ".join(chance.choices(words, k=BLOCK // 4))[:BLOCK] for _ in range(8)]


def network(limited: bool) -> tuple[socket.socket, socket.socket]:
    """Two connected sockets."""
    if not limited:
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return socket.create_connection(listener.getsockname()), listener.accept()[0]


def measure(kind: str, rate: float | None, compression: Compression, mib: int) -> tuple[float, int]:
    """The MiB/s of memory, and the bytes that crossed the network."""
    memory = blocks(kind)
    user, near = socket.socketpair()
    peer, other = socket.socketpair()
    here, there = network(rate is not None)
    with (
        closing(Relay(near, here, bandwidth=Bandwidth(rate), compression=compression)) as relay,
        closing(Relay(other, there, framed=compression is not Compression.NONE)),
        user,
        peer,
    ):

        def write() -> None:
            for number in range(mib):
                user.sendall(memory[number % 8])
            user.shutdown(socket.SHUT_WR)

        begun = time.monotonic()
        writer = threading.Thread(target=write)
        writer.start()
        buffer = bytearray(BLOCK)
        while peer.recv_into(buffer):
            pass
        seconds = time.monotonic() - begun
        writer.join()
        return mib / seconds, relay.sent


def main() -> None:
    """Print a line for each link and kind of memory."""
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    print("MiB/s of memory (part of it that crossed the network)")
    for link, rate in LINKS.items():
        count = mib if rate is None else min(mib, int(rate * 3 / BLOCK))
        for kind in ("zeros", "text", "noise"):
            figures = []
            for compression in Compression:
                speed, sent = measure(kind, rate, compression, count)
                part = sent / (count * BLOCK)
                figures.append(f"{compression.value} {speed:6.0f} ({part:4.0%})")
            print(f"{link:<9} {kind:<5}  {'   '.join(figures)}", flush=True)


if __name__ == "__main__":
    main()
