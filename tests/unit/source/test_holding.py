"""Whether memory can be left, and follow."""

import resource

import pytest

from phaul.criu import lazydump
from phaul.errors import FeatureMissing
from phaul.protocol.preflight import Level, Where
from phaul.source import holding
from phaul.source.holding import can_follow, can_hold, needed_descriptors


@pytest.fixture
def pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipes can be as large as they have to be."""
    monkeypatch.setattr(lazydump, "PIPE", 1 << 16)


def test_a_gigabyte_takes_some_five_hundred_descriptors() -> None:
    assert 512 < needed_descriptors(1 << 30) - needed_descriptors(0) < 560


@pytest.mark.usefixtures("pipes")
def test_it_can_be_held() -> None:
    found = can_hold(1 << 20, "here")
    assert (found.check, found.level, found.where) == ("post-copy", Level.OK, Where.SOURCE)


@pytest.mark.usefixtures("pipes")
def test_too_few_descriptors_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, 1024))
    found = can_hold(1 << 30, "here")
    assert found.level is Level.NO
    assert "may open 1024" in found.what
    assert "ulimit -Hn" in found.remedy


def test_too_small_pipes_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: str) -> None:
        raise FeatureMissing("too small", host=host, remedy="sysctl -w fs.pipe-max-size=4194304")

    monkeypatch.setattr(holding, "require_pipes", refuse)
    found = can_hold(1 << 20, "here")
    assert found.level is Level.NO
    assert "fs.pipe-max-size" in found.remedy


def test_a_destination_without_userfaultfd_is_found() -> None:
    assert can_follow(lazy_pages=True).level is Level.OK
    found = can_follow(lazy_pages=False)
    assert (found.level, found.where) == (Level.NO, Where.DESTINATION)
