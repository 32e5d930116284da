"""The identity and the pins: whole files, private, and no name that could leave the directory."""

import builtins
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaul.errors import ExtraMissing, HostKeyUnknown, StateError, UsageError
from phaul.storage.keyring import Keyring, _free_name, host_name
from phaul.storage.state_dir import StateDir
from phaul.transport.tls.certificate import MOST_BYTES, Certificate
from phaul.transport.tls.target import Address, KnownHost, TlsTarget, is_name


def keyring(path: Path) -> Keyring:
    return Keyring(StateDir.open(path))


@pytest.fixture
def ours(tmp_path: Path) -> Keyring:
    return keyring(tmp_path / "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Certificate:
    return keyring(tmp_path / "theirs").identity().certificate


def test_the_identity_is_made_once(ours: Keyring) -> None:
    first = ours.identity()
    assert first.key_file.stat().st_mode & 0o777 == 0o600
    assert ours.identity() == first
    assert keyring(ours.path).identity() == first


def test_two_that_make_it_at_once_agree(ours: Keyring) -> None:
    made: list[Certificate] = []
    threads = [
        threading.Thread(target=lambda: made.append(keyring(ours.path).identity().certificate))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
    assert len(set(made)) == 1


def test_a_crash_between_the_two_files(ours: Keyring) -> None:
    (ours.path / "identity.key").write_text("half")
    assert ours.identity().key_file.read_text() != "half"


def test_a_key_that_others_can_read(ours: Keyring) -> None:
    ours.identity().key_file.chmod(0o640)
    with pytest.raises(StateError, match="read by others") as caught:
        ours.identity()
    assert "chmod 600" in caught.value.remedy


def test_without_cryptography(ours: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fails(name: str, *rest: object) -> object:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", fails)
    with pytest.raises(ExtraMissing) as caught:
        ours.identity()
    assert "pip install 'phaul[tls]'" in caught.value.remedy
    assert not (ours.path / "identity.pem").exists()


def test_one_that_exists_needs_no_cryptography(
    ours: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ours.identity()
    monkeypatch.setattr("phaul.storage.keyring.make_identity", None)
    assert ours.identity() == made


def test_trust_and_distrust(ours: Keyring, theirs: Certificate) -> None:
    assert ours.trusted() == {}
    assert ours.trust("Host2", theirs) == "host2"
    assert ours.trusted() == {"host2": theirs}
    assert (ours.path / "trusted").stat().st_mode & 0o777 == 0o700
    ours.distrust("host2")
    assert ours.trusted() == {}
    with pytest.raises(UsageError, match="no host"):
        ours.distrust("host2")


@settings(deadline=None)
@given(st.text(max_size=300))
def test_a_name_from_the_network_is_a_file_s(host: str) -> None:
    assert is_name(_free_name(host, {}))


def test_hosts(ours: Keyring, theirs: Certificate) -> None:
    known = KnownHost("host2", Address("fe80::1%eth0", 99), theirs)
    ours.add_host(known)
    assert ours.hosts() == {"host2": known}
    moved = KnownHost("host2", Address("10.0.0.7", 7433), theirs)
    ours.add_host(moved)
    assert ours.hosts() == {"host2": moved}
    assert ours.resolve(TlsTarget.parse("phaul://host2")) == moved
    assert ours.resolve(TlsTarget.parse("phaul://10.0.0.7:7433")) == moved
    with pytest.raises(HostKeyUnknown) as caught:
        ours.resolve(TlsTarget.parse("phaul://10.0.0.7:7434"))
    assert "phaul hosts add" in caught.value.remedy
    ours.remove_host("host2")
    assert ours.hosts() == {}


def test_a_name_that_is_taken(ours: Keyring, theirs: Certificate) -> None:
    ours.add_host(KnownHost("host2", Address("a", 1), theirs))
    with pytest.raises(UsageError, match="already") as caught:
        ours.add_host(KnownHost("host2", Address("b", 1), ours.identity().certificate))
    assert "phaul hosts remove host2" in caught.value.remedy


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-x", "x" * 64, "a\n", "a\0", "ä"])
def test_names_that_could_leave(ours: Keyring, theirs: Certificate, name: str) -> None:
    with pytest.raises(UsageError):
        ours.add_host(KnownHost(name, Address("a", 1), theirs))
    for remove in (ours.remove_host, ours.distrust):
        with pytest.raises(UsageError):
            remove(name)


@pytest.mark.parametrize("text", ["", "phaul-address: a:1\n", "x" * 20_000, "\xff"])
def test_a_damaged_file_says_which(ours: Keyring, theirs: Certificate, text: str) -> None:
    ours.add_host(KnownHost("host2", Address("a", 1), theirs))
    path = ours.path / "hosts/host2.pem"
    path.write_text(text, "latin-1")
    with pytest.raises(StateError, match="damaged") as caught:
        ours.hosts()
    assert str(path) in str(caught.value)


def test_what_is_no_certificate(theirs: Certificate) -> None:
    for der in (b"", b"x", theirs.der + theirs.der, theirs.der[:-1], b"0" * (MOST_BYTES + 1)):
        with pytest.raises(ValueError):
            Certificate(der)
    for text in ("", theirs.pem * 2, theirs.pem.replace("M", "", 1), theirs.pem[:-30]):
        with pytest.raises(ValueError):
            Certificate.from_pem(text)
    assert Certificate.from_pem(f"words\n{theirs.pem}more") == theirs


def test_what_is_no_host_is_left_alone(ours: Keyring, theirs: Certificate) -> None:
    ours.trust("host2", theirs)
    (ours.path / "trusted/.host3.pem.0a").write_text("half")
    (ours.path / "trusted/README").write_text("words")
    assert list(ours.trusted()) == ["host2"]


def test_this_host_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, cleaned in (("host-1.a", "host-1.a"), ("..", "unnamed"), ("a b/c", "a-b-c")):
        monkeypatch.setattr("socket.gethostname", lambda name=name: name)
        assert host_name() == cleaned
