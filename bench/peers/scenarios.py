"""What is moved over what: the scenarios of `bench.peers`, and which of them where.  Pure."""

from typing import Final, Literal

import msgspec

__all__ = [
    "PLACES",
    "PLAIN_MB",
    "Place",
    "Scenario",
    "churning",
    "scales",
    "scaling",
    "scenarios",
    "thinned",
]

Place = Literal["native", "guest"]
PLACES: Final[tuple[Place, ...]] = ("native", "guest")
PLAIN_MB: Final = 256
_SET_PAGES: Final = 2000
_RATE: Final = 2000
_MBIT: Final = 1e6 / 8
_SMALL_MB: Final = 64
_USUAL: Final = (_RATE, 0)


class Scenario(msgspec.Struct, frozen=True):
    """A process of `size_mb` MiB that dirties `rate` pages a second of `working_set` pages.

    A working set of 0 is all of its memory.  `mbit` is the link's rate, None for one that is as
    fast as memory.  `contenders` are names; those that a place cannot have are left out there.
    """

    size_mb: int
    rate: int
    working_set: int = 0
    mbit: float | None = None
    contenders: tuple[str, ...] = ("by hand", "original", "phaul")

    @property
    def same(self) -> tuple[int, int, int, float | None]:
        """What tells it from others, whoever takes part."""
        return self.size_mb, self.rate, self.working_set, self.mbit

    @property
    def link_rate(self) -> float | None:
        """Bytes a second, None for no limit."""
        return None if self.mbit is None else self.mbit * _MBIT

    def __str__(self) -> str:
        size = f"{self.size_mb} MB" if self.size_mb < 1024 else f"{self.size_mb / 1024:g} GB"
        dirty = "idle"
        if self.rate:
            of = f" of {self.working_set}" if self.working_set else ""
            dirty = f"{self.rate} pages/s{of}"
        if self.mbit is None:
            return f"{size}, {dirty}"
        link = f"{self.mbit:g} Mbit/s" if self.mbit < 1000 else f"{self.mbit / 1000:g} Gbit/s"
        return f"{size}, {dirty}, {link}"


_NATIVE: Final = ("by hand", "original", "phaul", "phaul full", "post-copy")
_GUEST: Final = ("by hand", "original", "phaul", "post-copy")


def scaling(size_mb: int, place: Place) -> Scenario:
    """One of those that differ in nothing but their size."""
    return Scenario(size_mb, _RATE, _SET_PAGES, None, _NATIVE if place == "native" else _GUEST)


def scales(scenario: Scenario, place: Place) -> bool:
    """Whether it is one of those."""
    return scenario.same == scaling(scenario.size_mb, place).same


def churning(rate: int, place: Place, working_set: int = 0) -> Scenario:
    """One of those that differ in what they dirty."""
    return Scenario(
        PLAIN_MB, rate, working_set, None, _NATIVE if place == "native" else (*_GUEST, "phaul full")
    )


def _over(mbit: float, size_mb: int, place: Place) -> Scenario:
    return msgspec.structs.replace(scaling(size_mb, place), mbit=mbit)


def scenarios(place: Place) -> tuple[Scenario, ...]:
    """All of a place, in the order in which they are run.

    A size, a rate, a working set and a link at a time; what a link of 100 Mbit/s makes of much
    memory can be calculated.  Where dirty memory is not tracked a working set changes nothing.
    """
    sizes = (64, 256, 1024, 2048, *((4096,) if place == "native" else ()))
    sets = () if place == "native" else (500, 5000)
    return (
        *(scaling(size, place) for size in sizes),
        *(churning(rate, place) for rate in (0, 200, 2000, 20_000)),
        *(churning(20_000, place, pages) for pages in sets),
        _over(100, 64, place),
        _over(1000, 256, place),
    )


def thinned(of: tuple[Scenario, ...]) -> tuple[Scenario, ...]:
    """So few and so small that they take a minute natively: to see that the bench works.

    One of each kind, of those where it is there.
    """
    usual = [s for s in of if s.size_mb <= _SMALL_MB or s.mbit or (s.rate, s.working_set) == _USUAL]
    small = {one.same: one for one in map(_shrunk, usual)}
    return tuple(small.values())


def _shrunk(scenario: Scenario) -> Scenario:
    return msgspec.structs.replace(scenario, size_mb=min(scenario.size_mb, _SMALL_MB))
