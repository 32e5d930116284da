"""Who this host is and whom it trusts: its identity, and the certificates that are pinned.

Used on both hosts, by all that speaks TLS.  In the state directory:

    identity.key, identity.pem   this host's key and certificate, made on first need
    trusted/NAME.pem             those who may migrate to here
    hosts/NAME.pem               those that this host may migrate to; its first line is the address
    token.json                   the token that is out, see `admission`
"""

import fcntl
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from phaul.errors import HostKeyUnknown, StateError, UsageError
from phaul.storage.admission import Admission
from phaul.storage.state_dir import StateDir, read_whole, sync_directory, write_whole
from phaul.transport.tls.certificate import Certificate, Identity, make_identity
from phaul.transport.tls.target import Address, KnownHost, TlsTarget, is_name

__all__ = ["Keyring", "host_name", "require_name"]

_TRUSTED: Final = "trusted"
_HOSTS: Final = "hosts"
_SUFFIX: Final = ".pem"
_ADDRESS: Final = "phaul-address: "
_MOST_BYTES: Final = 16 << 10
_MOST_SAME: Final = 1000

T = TypeVar("T")


class Keyring:
    """The identity and the pins in a state directory; a Door.

    Each method may raise StateError.
    """

    def __init__(self, state: StateDir | None = None) -> None:
        self._state = StateDir.open() if state is None else state
        self.admission = Admission(self._state.path)

    @property
    def path(self) -> Path:
        """The state directory."""
        return self._state.path

    def identity(self) -> Identity:
        """This host's identity, made if there is none yet; raises ExtraMissing if it cannot be."""
        certificate, key = self.path / "identity.pem", self.path / "identity.key"
        if not certificate.exists():
            with self._lock():
                if not certificate.exists():
                    pem, secret = make_identity(host_name())
                    # In this order: with the certificate the identity is whole.
                    _write(key, secret)
                    _write(certificate, pem)
        _require_secret(key)
        return Identity(certificate, key, _certificate(certificate))

    def trusted(self) -> dict[str, Certificate]:
        """Those who may migrate to here, by name."""
        return {path.stem: _certificate(path) for path in self._files(_TRUSTED)}

    def trust(self, host: str, certificate: Certificate) -> str:
        """Let a host migrate to here; returns the name that it has from now on.

        That is made of `host`, which may come from the network, and is nobody else's.
        """
        with self._lock():
            trusted = self.trusted()
            for name, known in trusted.items():
                if known == certificate:
                    return name
            name = _free_name(host, trusted)
            folder = self._state.directory(_TRUSTED)
            _write(folder / f"{name}{_SUFFIX}", certificate.pem.encode())
            return name

    def distrust(self, name: str) -> None:
        """Let it in no more; raises UsageError if there is no such host."""
        self._remove(_TRUSTED, name, "phaul hosts trusted")

    def hosts(self) -> dict[str, KnownHost]:
        """Those that this host may migrate to, by name."""
        return {path.stem: _known(path) for path in self._files(_HOSTS)}

    def add_host(self, known: KnownHost) -> None:
        """Pin a destination, or give it a new address; raises UsageError if the name is taken."""
        require_name(known.name)
        with self._lock():
            self.require_free(known.name, known.certificate)
            text = f"{_ADDRESS}{known.address}\n{known.certificate.pem}"
            folder = self._state.directory(_HOSTS)
            _write(folder / f"{known.name}{_SUFFIX}", text.encode())

    def require_free(self, name: str, certificate: Certificate | None = None) -> None:
        """Raise UsageError if another host has the name (with `certificate`: another than that)."""
        require_name(name)
        there = self.hosts().get(name)
        if there is not None and there.certificate != certificate:
            raise UsageError(
                f"there is a host {name} already, at {there.address}",
                remedy=f"choose another name, or `phaul hosts remove {name}` first",
            )

    def remove_host(self, name: str) -> None:
        """Forget a destination; raises UsageError if there is no such host."""
        self._remove(_HOSTS, name, "phaul hosts")

    def resolve(self, target: TlsTarget) -> KnownHost:
        """The host that is meant, by its name or its address; raises HostKeyUnknown."""
        hosts = self.hosts()
        if target.name in hosts:
            return hosts[target.name]
        for known in hosts.values():
            if known.address == target.address:
                return known
        raise HostKeyUnknown(
            f"this host has not joined {target.name or target.address}: "
            "no certificate is pinned for it",
            host=str(target),
            remedy="let it join: `phaul serve --token` over there, "
            "then here `phaul hosts add NAME TOKEN`; `phaul hosts` lists those that are known",
        )

    def joinable(self) -> bool:
        """Whether a token is out."""
        return self.admission.is_out()

    def admit(self, secret: bytes, certificate: Certificate, host: str) -> str:
        """Trust the certificate if the secret is right; see Door."""
        self.admission.use(secret)
        return self.trust(host, certificate)

    def _files(self, folder: str) -> list[Path]:
        """The certificates in a folder; what has no name of ours is none of them."""
        try:
            found = sorted((self.path / folder).iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unusable(self.path / folder, error) from error
        return [path for path in found if path.suffix == _SUFFIX and is_name(path.stem)]

    def _remove(self, folder: str, name: str, listed_by: str) -> None:
        path = self.path / folder / f"{name}{_SUFFIX}"
        if not is_name(name) or not path.exists():
            raise UsageError(f"there is no host {name!a}", remedy=f"`{listed_by}` lists them")
        try:
            path.unlink(missing_ok=True)
            sync_directory(path.parent)
        except OSError as error:
            raise _unusable(path, error) from error

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Keep other processes from changing what is there; it is held for moments only."""
        path = self.path / "keyring.lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def host_name() -> str:
    """This host's name, as it may be in a message and in a certificate."""
    name = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:200].strip("-.")
    return name or "unnamed"


def require_name(name: str) -> None:
    """Raise UsageError if this cannot be a host's name here."""
    if not is_name(name):
        raise UsageError(
            f"{name[:100]!a} cannot be the name of a host",
            remedy="take letters, digits, `.`, `_` and `-`, 63 at most, a letter or digit first",
        )


def _free_name(host: str, taken: dict[str, Certificate]) -> str:
    base = re.sub(r"[^a-z0-9._-]", "-", host.lower())[:50].strip("-._") or "host"
    for number in range(1, _MOST_SAME):
        name = base if number == 1 else f"{base}-{number}"
        if name not in taken:
            return name
    raise StateError(
        f"there are {_MOST_SAME} trusted hosts of the name {base}",
        remedy="`phaul hosts distrust` those that are no more",
    )


def _known(path: Path) -> KnownHost:
    def read(text: str) -> KnownHost:
        first = text.partition("\n")[0]
        if not first.startswith(_ADDRESS):
            raise ValueError("its first line is no address")
        address = Address.parse(first.removeprefix(_ADDRESS))
        return KnownHost(path.stem, address, Certificate.from_pem(text))

    return _read(path, read)


def _certificate(path: Path) -> Certificate:
    return _read(path, Certificate.from_pem)


def _read(path: Path, parse: Callable[[str], T]) -> T:
    try:
        return parse(read_whole(path, _MOST_BYTES).decode("ascii"))
    except OSError as error:
        raise _unusable(path, error) from error
    except (ValueError, UsageError) as error:
        raise StateError(
            f"{path} is damaged: {error}", remedy="remove it, and let the two hosts join again"
        ) from error


def _write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        raise _unusable(path, error) from error


def _require_secret(key: Path) -> None:
    try:
        found = key.lstat()
    except OSError as error:
        raise _unusable(key, error) from error
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StateError(
            f"{key} can be read by others", remedy=f"chmod 600 {key}, and see who may have read it"
        )


def _unusable(path: Path, error: OSError) -> StateError:
    return StateError(f"{path} cannot be used: {error.strerror}")
