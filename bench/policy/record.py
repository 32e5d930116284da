"""Records which pages of its heap a process writes, tick by tick, without CRIU and soft-dirty.

    python -m bench.policy.record               records all workloads anew; root, Linux 6.7
    python -m bench.policy.record NAME...       these
    python -m bench.policy.record --inside NAME is the process that is recorded

The process has the kernel protect its own heap against writing (userfaultfd, in the mode in which
the kernel takes the protection away by itself).  The recorder asks the kernel each tick what was
written, and has it protected again in the same call (PAGEMAP_SCAN, the kernel's
Documentation/admin-guide/mm/pagemap.rst).  So that all memory is in the one heap, malloc is told to
take it from there, and Python to take all of it from malloc.
"""

import ctypes
import fcntl
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from bench.policy.recorded import FOLDER, Recorded, Runs, save
from bench.policy.workloads import WORKLOADS

TICK_S: Final = 0.05
SECONDS: Final = 6.0
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_HEAP: Final = 96 << 20
_ENVIRONMENT: Final = {
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": f"glibc.malloc.top_pad={_HEAP}:glibc.malloc.mmap_threshold={1 << 40}:"
    f"glibc.malloc.trim_threshold={1 << 40}:glibc.malloc.arena_max=1",
}
_USERFAULTFD: Final = 323
"""The system call's number on x86-64."""
_USER_MODE_ONLY: Final = 1
_UFFD_API: Final = 0xC018AA3F
_UFFD_REGISTER: Final = 0xC020AA00
_UFFD_VERSION: Final = 0xAA
_WP_ASYNC: Final = 1 << 15
_REGISTER_WP: Final = 2
_PAGEMAP_SCAN: Final = 0xC0606610
_WP_MATCHING: Final = 1
_CHECK_WPASYNC: Final = 2
_WRITTEN_AND_PRESENT: Final = 2 | 8
_REGIONS: Final = 4096


def inside(name: str) -> None:
    """Protect the heap, say where it is, and work until stdin ends."""
    start, end = _heap()
    libc = ctypes.CDLL(None, use_errno=True)
    uffd = libc.syscall(_USERFAULTFD, os.O_CLOEXEC | _USER_MODE_ONLY)
    if uffd < 0:
        raise OSError(ctypes.get_errno(), "userfaultfd")
    api = struct.pack("3Q", _UFFD_VERSION, _WP_ASYNC, 0)
    fcntl.ioctl(uffd, _UFFD_API, bytearray(api))
    work = WORKLOADS[name]()
    fcntl.ioctl(
        uffd, _UFFD_REGISTER, bytearray(struct.pack("4Q", start, end - start, _REGISTER_WP, 0))
    )
    print(start, end, flush=True)
    deadline = time.monotonic() + SECONDS + 5
    while time.monotonic() < deadline:
        work()


def _heap() -> tuple[int, int]:
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith("[heap]"):
            start, end = line.split()[0].split("-")
            return int(start, 16), int(end, 16)
    raise SystemExit("this process has no heap")


class _Scanner:
    """Asks for the pages of one process that were written since the last time."""

    def __init__(self, pid: int, start: int, end: int) -> None:
        self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        self._start, self._end = start, end
        self._regions = (ctypes.c_uint64 * (3 * _REGIONS))()

    def close(self) -> None:
        os.close(self._pagemap)

    def scan(self) -> list[int]:
        """The numbers of the pages, counted from the heap's start."""
        found: list[int] = []
        at = self._start
        while at < self._end:
            argument = bytearray(
                struct.pack(
                    "12Q",
                    96,
                    _WP_MATCHING | _CHECK_WPASYNC,
                    at,
                    self._end,
                    0,
                    ctypes.addressof(self._regions),
                    _REGIONS,
                    0,
                    0,
                    _WRITTEN_AND_PRESENT,
                    0,
                    _WRITTEN_AND_PRESENT,
                )
            )
            count = fcntl.ioctl(self._pagemap, _PAGEMAP_SCAN, argument)
            at = struct.unpack_from("Q", argument, 32)[0]
            for index in range(count):
                begin, stop = self._regions[3 * index : 3 * index + 2]
                found += range((begin - self._start) // _PAGE, (stop - self._start) // _PAGE)
        return found


def record(name: str) -> Recorded:
    """Run the workload `name` in a process of its own, and record it."""
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.policy.record", "--inside", name],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **_ENVIRONMENT},
    )
    try:
        assert child.stdout is not None
        words = child.stdout.readline().split()
        if len(words) != 2:
            raise SystemExit(f"the workload {name} did not start")
        scanner = _Scanner(child.pid, int(words[0]), int(words[1]))
        try:
            held = set(scanner.scan())
            ticks: list[list[int]] = []
            due = time.monotonic()
            while len(ticks) < SECONDS / TICK_S:
                due += TICK_S
                time.sleep(max(due - time.monotonic(), 0))
                ticks.append(scanner.scan())
        finally:
            scanner.close()
    finally:
        child.kill()
        child.communicate(timeout=10)
    held.update(page for tick in ticks for page in tick)
    number = {page: index for index, page in enumerate(sorted(held))}
    about = (WORKLOADS[name].__doc__ or "").splitlines()[0]
    runs = [_runs([number[page] for page in tick]) for tick in ticks]
    return Recorded(about, len(held), TICK_S, runs)


def _runs(pages: list[int]) -> Runs:
    made: list[tuple[int, int]] = []
    for page in pages:
        if made and made[-1][1] == page:
            made[-1] = (made[-1][0], page + 1)
        else:
            made.append((page, page + 1))
    return tuple(made)


def main(arguments: list[str]) -> None:
    """See the module."""
    if arguments[:1] == ["--inside"]:
        inside(arguments[1])
        return
    FOLDER.mkdir(exist_ok=True)
    for name in arguments or list(WORKLOADS):
        trace = record(name)
        path = FOLDER / f"{name}.json"
        save(path, trace)
        written = sum(stop - begin for tick in trace.ticks for begin, stop in tick)
        print(
            f"{name}: {trace.pages} pages, {written / SECONDS:.0f} a second written, "
            f"{path.stat().st_size} bytes"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
