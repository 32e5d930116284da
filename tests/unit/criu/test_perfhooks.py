"""An event that keeps the kernel's hooks on, and what is left of it."""

import platform
from pathlib import Path

import pytest

from phaul.criu.perfhooks import PerfHooks

pytestmark = pytest.mark.usefixtures("no_leaks")


def events() -> int:
    """How many perf events this process has open."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            found += "perf_event" in str(link.readlink())
        except FileNotFoundError:  # the one of this listing
            continue
    return found


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(platform, "machine", lambda: names[0])
    return names


def test_there_is_one_event_until_they_are_off() -> None:
    hooks = PerfHooks()
    for _ in range(2):
        hooks.on()
        hooks.on()
        assert hooks._thread is not None
        hooks._thread.join()
        assert events() == (hooks._descriptor >= 0)  # a kernel may refuse it
        hooks.off()
        hooks.off()
        assert events() == 0


def test_where_the_call_is_not_known_there_is_none(machine: list[str]) -> None:
    machine.append("pdp11")
    hooks = PerfHooks()
    hooks.on()
    hooks.off()
    assert events() == 0
