"""The destination's checks where they need the real thing: CRIU, processes, addresses, a tmpfs."""

import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from phaul.criu.engine import Engine
from phaul.criu.facts import host_facts
from phaul.criu.images.container import COMMON_MAGIC, read_messages
from phaul.destination.checks import CheckContext, look
from phaul.protocol.preflight import (
    AddressNeed,
    CpuNeed,
    FileNeed,
    Finding,
    ImagesNeed,
    Level,
    MemoryNeed,
    Need,
    PidsNeed,
)
from phaul.storage.elf import build_id
from tests.engine.conftest import SLOW, StartVictim

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 * SLOW)]

ENGINE = Engine()
MACHINE = os.uname().machine
CPUINFO_MAGIC = 0x61404013
CAPABILITY, CAPABILITIES = 6, slice(0, None)  # the field of `cpuinfo_x86_entry`
RDRAND = (4, 30)
"""A word of the capabilities and a bit in it: CPUID 1, ECX."""


def run(directory: Path, *needs: Need) -> tuple[Finding, ...]:
    return anyio.run(look, needs, CheckContext(ENGINE, directory))


def only(found: tuple[Finding, ...], check: str) -> Finding:
    (finding,) = [one for one in found if one.check == check]
    return finding


@pytest.fixture
def cpuinfo(tmp_path: Path) -> bytes:
    """What CRIU writes of this CPU."""
    folder = tmp_path / "cpu"
    folder.mkdir()
    anyio.run(ENGINE.dump_cpuinfo, folder)
    return (folder / "cpuinfo.img").read_bytes()
