import pytest

from phaul import __version__
from phaul.cli.version import version_text
from tests.unit.conftest import Fake

pytestmark = pytest.mark.usefixtures("no_leaks")


def test_both_versions(fake: Fake) -> None:
    fake.play(version=(4, 2, 1))
    phaul, criu = version_text(fake.command).splitlines()
    assert phaul == f"phaul {__version__}"
    assert criu == f"criu 4.2.1 ({fake.path})"


def test_one_that_is_too_old(fake: Fake) -> None:
    fake.play(version=(3, 17, 1))
    assert version_text(fake.command).endswith(", too old: at least 4.1 is needed)")


def test_no_criu() -> None:
    said = version_text(["/nowhere/criu"])
    assert said.startswith(f"phaul {__version__}\nno criu here: /nowhere/criu cannot be started")
    assert "install CRIU" in said


def test_what_is_no_criu() -> None:
    assert "\ncriu does not say its version: " in version_text(["/bin/false"])


def test_one_that_does_not_say(fake: Fake) -> None:
    fake.play(tell_version=False)
    assert version_text(fake.command).endswith("\ncriu does not say its version")


def test_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phaul.cli.version._ASK_S", 0.05)
    said = version_text(["bash", "-c", 'exec cat <&"$1"'])
    assert said.endswith("\ncriu does not say its version: it did not answer within 0.05 s")
