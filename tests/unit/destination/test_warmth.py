"""Cgroups that are kept as if changed just now: begun, ended, and where they cannot be."""

import threading
import time

import pytest

from phaul.destination.warmth import Warmth
from phaul.subjects.apart import Apart

pytestmark = pytest.mark.usefixtures("no_leaks")


class Changes(Apart):
    """Counts them, and makes none; there are none to be made if it is not `able`."""

    def __init__(self, *, able: bool = True) -> None:
        super().__init__(".cage", freeze=False, host="here")
        self.able = able
        self.made = 0
        self.seen = threading.Event()

    def warm(self) -> bool:
        self.made += 1
        if self.made == 3 or not self.able:
            self.seen.set()
        return self.able


def test_it_goes_on_until_it_is_ended() -> None:
    changes = Changes()
    warmth = Warmth(changes)
    for _ in range(2):
        changes.made = 0
        changes.seen.clear()
        warmth.begin()
        warmth.begin()
        assert changes.seen.wait(30)
        warmth.end()
        warmth.join()
    after = changes.made
    time.sleep(0.02)
    assert changes.made == after


def test_where_it_is_of_no_use_it_ends_by_itself() -> None:
    changes = Changes(able=False)
    warmth = Warmth(changes)
    warmth.begin()
    assert changes.seen.wait(30)
    warmth.join()
    assert changes.made == 1


def test_what_never_began_is_ended_all_the_same() -> None:
    Warmth(Changes()).join()
