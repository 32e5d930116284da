"""`phaul hosts`: what is listed and removed, and what is refused before a token is used up."""

from pathlib import Path

import pytest

from phaul.cli.main import main
from phaul.storage.keyring import Keyring
from phaul.storage.state_dir import StateDir
from phaul.transport.tls.certificate import Certificate
from phaul.transport.tls.invitation import Invitation
from phaul.transport.tls.target import Address, KnownHost

WHERE = Address("10.77.0.2", 7433)


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keyring:
    monkeypatch.setenv("PHAUL_STATE", str(tmp_path / "ours"))
    return Keyring()


@pytest.fixture
def theirs(tmp_path: Path) -> Certificate:
    return Keyring(StateDir.open(tmp_path / "theirs")).identity().certificate


def test_nobody_is_known(ours: Keyring, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hosts"]) == main(["hosts", "trusted"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "phaul hosts add" in said.err
    assert "phaul serve --token" in said.err


def test_lists(ours: Keyring, theirs: Certificate, capsys: pytest.CaptureFixture[str]) -> None:
    ours.add_host(KnownHost("host2", WHERE, theirs))
    ours.add_host(KnownHost("a-longer-name", WHERE, ours.identity().certificate))
    ours.trust("host1", theirs)
    assert main(["hosts"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == ["a-longer-name", "10.77.0.2:7433"]
    assert second == f"host2          10.77.0.2:7433  {theirs.fingerprint}"
    assert main(["hosts", "trusted"]) == 0
    assert capsys.readouterr().out == f"host1  {theirs.fingerprint}\n"


def test_removal(ours: Keyring, theirs: Certificate, capsys: pytest.CaptureFixture[str]) -> None:
    ours.add_host(KnownHost("host2", WHERE, theirs))
    ours.trust("host1", theirs)
    assert main(["hosts", "remove", "host2"]) == main(["hosts", "distrust", "host1"]) == 0
    assert "host2 is forgotten" in capsys.readouterr().out
    assert ours.hosts() == {}
    assert ours.trusted() == {}
    assert main(["hosts", "remove", "host2"]) == main(["hosts", "distrust", "../x"]) == 2
    assert "`phaul hosts` lists them" in capsys.readouterr().err


def test_a_taken_name_is_refused_before_anything_is_sent(
    ours: Keyring, theirs: Certificate, capsys: pytest.CaptureFixture[str]
) -> None:
    ours.add_host(KnownHost("host2", WHERE, ours.identity().certificate))
    token = str(Invitation.to(theirs, b"0" * 16, Address("127.0.0.1", 1)))
    assert main(["hosts", "add", "host2", token]) == 2
    assert "already" in capsys.readouterr().err
    assert main(["hosts", "add", "..", token]) == 2
    assert main(["hosts", "add", "host3", token]) == 4
    assert "nobody listens there" in capsys.readouterr().err


def test_a_token_with_a_mistake(ours: Keyring, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hosts", "add", "host2", "AAAAA-AAAAA"]) == 2
    assert "copy it as a whole" in capsys.readouterr().err
