"""The destination's checks where they need the real thing: CRIU, processes, addresses, a tmpfs."""

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import msgspec
import pytest

from phaul.criu.elf import build_id
from phaul.criu.engine import Engine
from phaul.criu.facts import host_facts
from phaul.criu.images.container import COMMON_MAGIC, read_messages
from phaul.criu.log import decisive_line
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
from tests.engine.conftest import SLOW, VICTIMS, StartVictim
from tests.victims.harness import Victim, VictimError, start

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 * SLOW)]

ENGINE = Engine()
MACHINE = os.uname().machine
CPUINFO_MAGIC = 0x61404013
CAPABILITY_TAG = b"\x30"
"""Of field 6 of `cpuinfo_x86_entry`, a number of its own for each word."""


def run(directory: Path, *needs: Need) -> tuple[Finding, ...]:
    return anyio.run(look, needs, CheckContext(ENGINE, directory))


def only(found: tuple[Finding, ...], check: str, level: Level) -> str:
    (finding,) = [one for one in found if one.check == check]
    assert finding.level is level, finding.what
    return finding.what


def varint(number: int) -> bytes:
    found = b""
    while number > 0x7F:
        found += bytes([number & 0x7F | 0x80])
        number >>= 7
    return found + bytes([number])


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number, and where it ends."""
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 0x80:
            return number, at


def with_capabilities(entry: bytes, change: Callable[[list[int]], None]) -> bytes:
    """The `cpuinfo_x86_entry` with other words of capabilities."""
    words: list[int] = []
    others, at = b"", 0
    while at < len(entry):
        begin = at
        tag, at = read_varint(entry, at)
        number, end = read_varint(entry, at)
        if tag & 7 == 2:
            end += number
        if tag == CAPABILITY_TAG[0]:
            words.append(number)
        else:
            others += entry[begin:end]
        at = end
    change(words)
    return others + b"".join(CAPABILITY_TAG + varint(word) for word in words)


def changed(image: Path, change: Callable[[list[int]], None]) -> bytes:
    """The whole image with other capabilities."""
    (message,) = read_messages(image, (COMMON_MAGIC, CPUINFO_MAGIC), 1 << 16)
    length, at = read_varint(message, 1)
    assert (message[0], at + length) == (0x0A, len(message)), "it has one x86_entry"
    entry = with_capabilities(message[at:], change)
    message = message[:1] + varint(len(entry)) + entry
    return struct.pack("<III", COMMON_MAGIC, CPUINFO_MAGIC, len(message)) + message


@pytest.fixture
def cpuinfo(tmp_path: Path) -> Path:
    """What CRIU writes of this CPU."""
    folder = tmp_path / "cpu"
    folder.mkdir()
    anyio.run(ENGINE.dump_cpuinfo, folder)
    return folder / "cpuinfo.img"


def test_this_cpu(cpuinfo: Path, tmp_path: Path) -> None:
    need = CpuNeed(image=cpuinfo.read_bytes(), machine=MACHINE)
    only(run(tmp_path, need), "cpu", Level.OK)
    again = changed(cpuinfo, lambda _words: None)
    only(run(tmp_path, CpuNeed(image=again, machine=MACHINE)), "cpu", Level.OK)


def test_a_cpu_that_can_less(cpuinfo: Path, tmp_path: Path) -> None:
    def need_avx512er(words: list[int]) -> None:
        words[9] |= 1 << 27  # CPUID 7, EBX: only the Xeon Phi ever had it

    image = changed(cpuinfo, need_avx512er)
    what = only(run(tmp_path, CpuNeed(image=image, machine=MACHINE)), "cpu", Level.NO)
    assert "CPU instruction capabilities do not match run time" in what


def test_a_cpu_that_can_more(cpuinfo: Path, tmp_path: Path) -> None:
    def need_nothing_new(words: list[int]) -> None:
        words[4] &= ~(1 << 30)  # CPUID 1, ECX: RDRAND

    image = changed(cpuinfo, need_nothing_new)
    only(run(tmp_path, CpuNeed(image=image, machine=MACHINE)), "cpu", Level.OK)


@pytest.mark.parametrize("cut", [0, 8, 12, 40])
def test_an_image_that_is_none(cpuinfo: Path, tmp_path: Path, cut: int) -> None:
    image = cpuinfo.read_bytes()[:cut] or b"nothing"
    only(run(tmp_path, CpuNeed(image=image, machine=MACHINE)), "cpu", Level.NO)


def test_facts_of_this_host() -> None:
    facts = anyio.run(host_facts, ENGINE)
    assert (facts.criu.major, facts.machine) == (4, MACHINE)


def test_pids_that_are_taken(victim: StartVictim, tmp_path: Path) -> None:
    pid = victim("dirtier", "--size-mb", 4).pid
    what = only(run(tmp_path, PidsNeed(pids=(pid,))), "pids", Level.NO)
    assert what == f"PID {pid} is taken there by dirtier"
    only(run(tmp_path, PidsNeed(pids=(31_999,))), "pids", Level.OK)


@pytest.fixture
def address() -> Iterator[str]:
    """An address that this host has for a while."""
    words = ("ip", "address", "add", "198.51.100.7/32", "dev", "lo")
    subprocess.run(words, check=True)
    yield "198.51.100.7"
    subprocess.run([*words[:2], "del", *words[3:]], check=True)


def test_addresses(address: str, tmp_path: Path) -> None:
    def need(address: str, port: int = 4242, *, listening: bool = True) -> AddressNeed:
        return AddressNeed(
            address=address, port=port, protocol="tcp", listening=listening, pid=4242
        )

    only(run(tmp_path, need(address)), "listen", Level.OK)
    only(run(tmp_path, need("198.51.100.8")), "listen", Level.NO)
    only(run(tmp_path, need("198.51.100.8", listening=False)), "tcp", Level.NO)
    with socket.socket() as sock:
        sock.bind((address, 0))
        sock.listen()
        port = sock.getsockname()[1]
        for taken in (address, "0.0.0.0", "::"):
            what = only(run(tmp_path, need(taken, port)), "listen", Level.NO)
            assert f"(PID {os.getpid()})" in what
        only(run(tmp_path, need("127.0.0.1", port)), "listen", Level.OK)
        only(run(tmp_path, need(address, port, listening=False)), "tcp", Level.OK)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    words = ("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder))
    subprocess.run(words, check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_space_on_a_small_tmpfs(small: Path) -> None:
    mib = 1 << 20
    agent = small / "agent"
    only(run(agent, ImagesNeed(size=6 * mib)), "space", Level.OK)
    only(run(agent, ImagesNeed(size=8 * mib - 4096)), "space", Level.WARNING)
    only(run(agent, ImagesNeed(size=9 * mib)), "space", Level.NO)
    found = run(agent, ImagesNeed(size=6 * mib), MemoryNeed(resident=mib))
    assert "6.0 MiB for images" in only(found, "memory", Level.OK)


def files_of(pid: int) -> list[FileNeed]:
    """The files that a process has mapped, as needs."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    paths = dict.fromkeys(line.split(maxsplit=5)[5] for line in maps if " /" in line)
    found = []
    for path in (Path(path) for path in paths if not path.endswith(" (deleted)")):
        with path.open("rb") as file:
            built, info = build_id(file.fileno()), os.fstat(file.fileno())
        found.append(
            FileNeed(
                path=str(path),
                use="mapped",
                kind="file",
                mode=info.st_mode & 0o7777,
                pid=pid,
                size=info.st_size,
                build_id=built,
            )
        )
    return found


def restore(images: Path) -> str:
    """Restore with CRIU alone; its decisive line, "" if it succeeds."""
    log = images / "restore.log"
    done = subprocess.run(
        ["criu", "restore", "-d", "-D", images, "-o", log.name, "-v1"], check=False
    )
    return decisive_line(log) if done.returncode else ""


def other_mode(program: Path) -> None:
    program.chmod(0o700)


def other_size(program: Path) -> None:
    with program.open("ab") as file:
        file.write(b"x")


def other_build(program: Path) -> None:
    with program.open("rb") as file:
        built = bytes.fromhex(build_id(file.fileno()))
    data = program.read_bytes()
    assert data.count(built) == 1
    program.write_bytes(data.replace(built, built[::-1]))


@pytest.mark.parametrize(
    ("change", "ours", "criu_says"),
    [
        (lambda _program: None, "", ""),
        (other_mode, "has mode 0700 there, not 0755", "has bad mode"),
        (other_size, "bytes there, not", "has bad size"),
        (other_build, "is another build there", "has bad build-ID"),
        (Path.unlink, "is not there", "Can't open"),
    ],
    ids=["unchanged", "mode", "size", "build-id", "missing"],
)
def test_we_refuse_what_criu_refuses(
    tmp_path: Path, change: Callable[[Path], None], ours: str, criu_says: str
) -> None:
    program, images = tmp_path / "program", tmp_path / "images"
    shutil.copyfile(VICTIMS / "dirtier", program)
    program.chmod(0o755)
    images.mkdir()
    report = tmp_path / "report"
    victim = Victim(start([program, "--size-mb", "4", "--report", report], 60 * SLOW), report)
    try:
        needs = files_of(victim.pid)
        assert any(need.build_id for need in needs if need.path == str(program))
        subprocess.run(["criu", "dump", "-t", str(victim.pid), "-D", images], check=True)
        # As another file in its place: the one that is mapped is never written to.
        copy = tmp_path / "copy"
        shutil.copy(program, copy)
        copy.replace(program)
        change(program)
        level = Level.NO if ours else Level.OK
        assert ours in only(run(tmp_path, *needs), "files", level)
        said = restore(images)
        assert (criu_says in said) if criu_says else not said
    finally:
        # The one that was dumped, or restored; what a refused restore has made may just be ending.
        with suppress(VictimError):
            Victim(victim.pid, report).terminate(30 * SLOW)


@pytest.mark.parametrize("which", ["cwd", "fifo"])
def test_criu_compares_modes_of_more_than_files(tmp_path: Path, which: str) -> None:
    cwd, fifo, images = tmp_path / "cwd", tmp_path / "fifo", tmp_path / "images"
    cwd.mkdir(mode=0o755)
    os.mkfifo(fifo, 0o644)
    images.mkdir()
    needs = {
        "cwd": FileNeed(path=str(cwd), use="cwd", kind="directory", mode=0o755, pid=1),
        "fifo": FileNeed(path=str(fifo), use="open", kind="fifo", mode=0o644, pid=1),
    }
    with (
        fifo.open("r+b", buffering=0) as stdin,
        subprocess.Popen(
            ["sleep", "600"],
            cwd=cwd,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process,
    ):
        try:
            dump = ["criu", "dump", "-t", str(process.pid), "-D", str(images)]
            subprocess.run(dump, check=True)
        finally:
            process.kill()
    assert {one.level for one in run(tmp_path, *needs.values())} == {Level.OK}
    Path(needs[which].path).chmod(0o700)
    (found,) = run(tmp_path, needs[which])
    assert "has mode 0700 there" in found.what
    assert "has bad mode" in restore(images)


def test_a_whole_process_here(victim: StartVictim, tmp_path: Path) -> None:
    needs = files_of(victim("dirtier", "--size-mb", 4).pid)
    what = only(run(tmp_path, *needs), "files", Level.OK)
    assert what == f"{len(needs)} files are the same"
    another = msgspec.structs.replace(needs[0], size=1)
    only(run(tmp_path, another), "files", Level.NO)
