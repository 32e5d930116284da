"""Two hosts side by side: what differs, and what that means for a migration.

Made on the source in preflight, from what each end says of itself.  Pure.
"""

import re
from dataclasses import dataclass
from typing import Final

from phaul.protocol.messages import CriuVersion, HostFacts
from phaul.protocol.preflight import Finding, Level, Where

__all__ = ["CLOCKS_AGREE_S", "ClockOffset", "alone", "compare", "compare_clocks"]

CLOCKS_AGREE_S: Final = 0.05
"""Seconds; below it a jump of the wall clock is as long as a short downtime."""

_WIDE_FROM: Final = (4, 2)
"""From this CRIU on the page server's header has 32 bytes, before it 24; no field tells."""


@dataclass(frozen=True)
class ClockOffset:
    """By how much the destination's CLOCK_REALTIME is ahead of the source's; seconds.

    `uncertainty` is the most by which that may be wrong: half of the round trip.
    """

    seconds: float
    uncertainty: float

    @classmethod
    def measured(cls, asked_ns: int, told_ns: int, answered_ns: int) -> "ClockOffset":
        """From one question: our time before and after it, and theirs in the answer; nanoseconds.

        Of several, take the one with the smallest uncertainty.
        """
        middle = (asked_ns + answered_ns) / 2
        return cls((told_ns - middle) / 1e9, abs(answered_ns - asked_ns) / 2e9)


def compare(source: HostFacts, destination: HostFacts) -> tuple[Finding, ...]:
    """The findings of `criu`, `page-server`, `features`, `cpu` (another machine) and `kernel`."""
    return (
        _criu(source.criu, destination.criu),
        _page_server(source.criu, destination.criu),
        *_features(source, destination),
        *_machine(source.machine, destination.machine),
        _kernel(source.kernel, destination.kernel),
    )


def alone(host: HostFacts) -> tuple[Finding, ...]:
    """The findings of `criu` and `features` for one host, which is called the source."""

    def found(check: str, good: bool, right: str, wrong: str, remedy: str) -> Finding:
        level = Level.OK if good else Level.WARNING
        what, remedy = (right, "") if good else (wrong, remedy)
        return Finding(check=check, level=level, where=Where.SOURCE, what=what, remedy=remedy)

    return (
        found("criu", True, f"CRIU {host.criu}, which finds nothing wrong", "", ""),
        found(
            "features",
            host.mem_track,
            "the kernel tracks dirty memory (soft-dirty)",
            "the kernel does not track dirty memory (soft-dirty): from here, a process is stopped "
            "and copied as a whole",
            "boot a kernel with CONFIG_MEM_SOFT_DIRTY",
        ),
        found(
            "features",
            host.lazy_pages,
            "memory can be restored lazily (userfaultfd)",
            "memory cannot be restored lazily (userfaultfd)",
            "boot a kernel with CONFIG_USERFAULTFD",
        ),
    )


def compare_clocks(offset: ClockOffset) -> Finding:
    """The finding of `clock`."""
    size = _seconds(abs(offset.seconds))
    about = f"by {size} +- {_seconds(offset.uncertainty)}"
    if abs(offset.seconds) < CLOCKS_AGREE_S:
        return _found("clock", Level.OK, f"the clocks differ {about}")
    way = "ahead" if offset.seconds > 0 else "behind"
    return _found(
        "clock",
        Level.WARNING,
        f"the clock there is {way} {about}: the process sees the time of day jump so far, with its "
        "time stamps and timers that are set to it; its monotonic clock goes on only where the "
        "kernel has time namespaces",
        "set both clocks by NTP (`chronyc tracking` on both hosts)",
    )


def _found(
    check: str,
    level: Level,
    what: str,
    remedy: str = "",
    where: Where = Where.DESTINATION,
) -> Finding:
    return Finding(check=check, level=level, where=where, what=what, remedy=remedy)


def _seconds(amount: float) -> str:
    return f"{amount * 1000:.1f} ms" if amount < 1 else f"{amount:.1f} s"


def _numbers(version: CriuVersion) -> tuple[int, int, int]:
    return version.major, version.minor, version.sublevel


def _criu(here: CriuVersion, there: CriuVersion) -> Finding:
    if _numbers(there) < _numbers(here):
        return _found(
            "criu",
            Level.WARNING,
            f"CRIU {there} is older there than {here} on the source, whose images it "
            "may not understand",
            f"install CRIU {here} or newer there",
        )
    if here == there:
        return _found("criu", Level.OK, f"CRIU {here} on both hosts")
    return _found("criu", Level.OK, f"CRIU {here} on the source, {there} there")


def _page_server(here: CriuVersion, there: CriuVersion) -> Finding:
    wide = [(version.major, version.minor) >= _WIDE_FROM for version in (here, there)]
    if wide[0] == wide[1]:
        return _found("page-server", Level.OK, "both CRIUs send memory in the same form")
    return _found(
        "page-server",
        Level.NO,
        f"CRIU {here} on the source and {there} there send memory in different forms "
        "(it changed with 4.2)",
        "install the same CRIU on both hosts",
    )


def _features(source: HostFacts, destination: HostFacts) -> list[Finding]:
    found = []
    if not source.mem_track:
        found.append(
            _found(
                "features",
                Level.WARNING,
                "the kernel does not track dirty memory (soft-dirty): no pre-copy, the process is "
                "stopped and copied as a whole",
                "boot a kernel with CONFIG_MEM_SOFT_DIRTY",
                Where.SOURCE,
            )
        )
    if not destination.lazy_pages:
        found.append(
            _found(
                "features",
                Level.WARNING,
                "memory cannot be restored lazily there (userfaultfd): all of it is read while the "
                "process is down",
                "boot a kernel with CONFIG_USERFAULTFD there, and a CRIU that is built for it",
            )
        )
    what = "dirty memory is tracked on the source, memory can be restored lazily there"
    return found or [_found("features", Level.OK, what)]


def _machine(here: str, there: str) -> list[Finding]:
    if here == there:
        return []  # what their CPUs can do is CRIU's to compare
    what = f"the CPU is {there} there, {here} on the source"
    return [_found("cpu", Level.NO, what, "move to a host of the same kind")]


def _kernel(here: str, there: str) -> Finding:
    ours, theirs = _release(here), _release(there)
    both = f"{there} there, {here} on the source"
    if ours is None or theirs is None:
        what = f"the kernels cannot be compared: {both}"
        return _found("kernel", Level.WARNING, what, "see that it is not an older one")
    if theirs < ours:
        return _found(
            "kernel",
            Level.WARNING,
            f"an older kernel: {both}; what the process uses of the newer one is missing there",
            "boot a kernel there that is at least as new",
        )
    return _found("kernel", Level.OK, f"kernel {both}")


def _release(kernel: str) -> tuple[int, int] | None:
    """The first two numbers of a release: a process does not see the third."""
    match = re.match(r"([0-9]{1,4})\.([0-9]{1,4})(?![0-9])", kernel)
    return (int(match[1]), int(match[2])) if match else None
