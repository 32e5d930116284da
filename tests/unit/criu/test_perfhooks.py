"""An event that keeps the kernel's hooks on, and what is left of it."""

import platform

import pytest

from phaul.criu.perfhooks import PerfHooks
from tests.unit.conftest import descriptors

pytestmark = pytest.mark.usefixtures("no_leaks")


def events() -> int:
    """How many perf events this process has open."""
    return sum("perf_event" in what for what in descriptors().values())


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


def test_where_the_call_is_not_known_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    hooks = PerfHooks()
    hooks.on()
    hooks.off()
    assert events() == 0
