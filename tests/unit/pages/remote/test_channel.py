"""The link over the memory channel of a migration, as the transports give it."""

import os
import socket

import pytest

from phaul.pages.channel import MemoryChannel
from phaul.pages.frames import Compression
from phaul.pages.remote import RemotePages
from tests.unit.pages.remote.ends import (
    RANGES,
    Memory,
    await_that,
    content,
    fetching,
    page,
    supplying,
)


def over(channel: MemoryChannel) -> socket.socket:
    """The end of a link that goes over the channel."""
    return socket.socket(fileno=os.dup(channel.criu_fd))


def all_is_right(remote: RemotePages) -> bool:
    return all(
        page(remote, pagemap, address) == content(pagemap, address)
        for pagemap, ranges in RANGES.items()
        for start, pages in ranges
        for address in range(start, start + pages * 4096, 4096)
    )


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.ZSTD])
def test_it_goes_over_the_memory_channel(compression: Compression) -> None:
    near, far = socket.socketpair()
    framed = compression is not Compression.NONE
    with near, far, supplying(Memory()) as supply, fetching() as remote:
        here = MemoryChannel(near.fileno(), "here", compression=compression, count=True)
        there = MemoryChannel(far.fileno(), "there", framed=framed, count=True)
        supply.attach(over(here))
        remote.attach(over(there))
        assert page(remote, 7, 0x10000) == content(7, 0x10000)
        remote.sweep()
        await_that(lambda: remote.complete and remote.acknowledged)
        assert all_is_right(remote)
        for channel in (here, there):
            channel.break_off()
        await_that(lambda: not supply.linked and not remote.linked)
        for channel in (here, there):
            channel.close()
