"""The one token that may be out: its secret is good for one host, for a while, for few guesses.

Used on the destination: `phaul serve --token` issues it, the process of a connection uses it up.
Both find it in a file, which is gone before anybody is told that the secret was right.
"""

import fcntl
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from phaul.errors import StateError, TokenExpired, TokenWrong, UsageError
from phaul.storage.state_dir import read_whole, sync_directory, write_whole
from phaul.transport.tls.invitation import SECRET_BYTES

__all__ = ["LONGEST_S", "MOST_GUESSES", "Admission"]

MOST_GUESSES: Final = 5
"""So many wrong guesses make a token void."""

LONGEST_S: Final = 86_400.0
"""A token is out for a day at most, in seconds."""

_MOST_BYTES: Final = 1024


class _Issued(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is in the file: of the secret only its SHA-256; the time is that of CLOCK_REALTIME."""

    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    expires: float
    guesses: int = 0


_decoder: Final = msgspec.json.Decoder(_Issued)


class Admission:
    """The token of the state directory `folder`.  Each method may raise StateError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "token.json"

    def issue(self, lifetime: float) -> bytes:
        """Issue a token for `lifetime` seconds, in place of any other; returns its secret.

        Raises UsageError.
        """
        if not 0 < lifetime <= LONGEST_S:
            raise UsageError(f"a token is out for more than 0 s and {LONGEST_S:g} s at most")
        secret = secrets.token_bytes(SECRET_BYTES)
        with self._lock():
            self._write(_Issued(digest=_digest(secret), expires=time.time() + lifetime))
        return secret

    def is_out(self) -> bool:
        """Whether a token is out that can still be used."""
        issued = self._read()
        return issued is not None and _is_good(issued)

    def use(self, secret: bytes) -> None:
        """Use the token up.  Raises TokenExpired if none is out, TokenWrong."""
        with self._lock():
            issued = self._read()
            if issued is None or not _is_good(issued):
                self._remove()
                raise TokenExpired("no token is out: it has expired, or was used")
            if hmac.compare_digest(_digest(secret), issued.digest):
                self._remove()
                return
            guesses = issued.guesses + 1
            if guesses >= MOST_GUESSES:
                self._remove()
                raise TokenWrong("the token is wrong, and void now after too many wrong ones")
            self._write(msgspec.structs.replace(issued, guesses=guesses))
            raise TokenWrong("the token is wrong")

    def withdraw(self, secret: bytes) -> None:
        """Make the token with this secret void, if it is still out."""
        with self._lock():
            issued = self._read()
            if issued is not None and issued.digest == _digest(secret):
                self._remove()

    def _read(self) -> _Issued | None:
        try:
            return _decoder.decode(read_whole(self._path, _MOST_BYTES))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        except (msgspec.MsgspecError, ValueError) as error:
            raise StateError(f"{self._path} is damaged", remedy="remove it") from error

    def _write(self, issued: _Issued) -> None:
        try:
            write_whole(self._path, msgspec.json.encode(issued))
        except OSError as error:
            raise self._unusable(error) from error

    def _remove(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
            sync_directory(self._folder)
        except OSError as error:
            raise self._unusable(error) from error

    @contextmanager
    def _lock(self) -> Iterator[None]:
        path = self._folder / "token.lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _unusable(self, error: OSError) -> StateError:
        return StateError(f"{self._path} cannot be used: {error.strerror}")


def _is_good(issued: _Issued) -> bool:
    # One that lasts longer than any may was issued before the clock was set back.
    return 0 < issued.expires - time.time() <= LONGEST_S


def _digest(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()
