"""The error tree of phaul: every error that a caller can meet, and its exit code.

Used in every phase, on both hosts, and pure: no I/O, no CRIU.

    PhaulError                       1
     +-- UsageError                  2   a value that cannot be meant
     |    +-- ConfigurationError         one in a file of the configuration
     +-- PreflightError              3   found before anything was frozen
     |    +-- SubjectError               the process cannot be taken
     |    +-- WorkDirError               the work directory cannot be used
     |    +-- StateError                 the state directory cannot be used, or is damaged
     |    +-- ExtraMissing               a package that only some ways need is not installed
     |    +-- DescriptorError            the memory channel cannot be used
     |    +-- FeatureMissing             kernel or CRIU lack what was asked for
     |    +-- Refused                    preflight found what would make it fail
     |    +-- CriuUnusable
     |         +-- CriuNotFound
     |         +-- CriuTooOld
     |         +-- CriuUnfit             it fails its own check
     +-- PeerError                   4   the other side cannot be reached or spoken to
     |    +-- ProtocolError              it sent what is no message, or one out of turn
     |    +-- ConnectionLost             the channel ended, or was silent for too long
     |    +-- ConnectFailed              it was not reached
     |         +-- HostUnknown           its name has no address
     |         +-- HostUnreachable       no way leads there
     |         +-- ConnectionRefused     nobody listens there
     |         +-- ConnectTimeout        it did not answer in time
     |         +-- HostKeyUnknown        its key was never seen before
     |         +-- HostKeyChanged        its key is another one than before
     |         +-- AuthenticationFailed  it does not let this user in
     |         +-- SshMissing            there is no ssh on this host
     |         +-- AgentMissing          there is no phaul over there
     |         +-- AgentFailed           phaul over there ended before it said a word
     |         +-- CertificateChanged    its certificate is another one than the pinned one
     |         +-- NotTrusted            it does not trust this host's certificate
     |         +-- JoinFailed            it did not let this host join
     |              +-- TokenExpired     no token is out there, or not any more
     |              +-- TokenWrong       the token's secret is wrong
     +-- IncompatiblePeer            5   the two ends cannot speak to each other
     |    +-- IncompatibleTarget         preflight found a host that cannot take the process
     |    +-- VersionMismatch            no version of the protocol is spoken by both
     +-- ImageError                  5   an image file is truncated, foreign or damaged
     +-- CriuError                   7   CRIU refused or failed a request
     |    +-- CriuDied                   it ended, or was killed, without an answer
     |    +-- CriuTimeout                it did not answer in time
     +-- CgroupError                 7   a cgroup refused what was asked of it
     |    +-- LockUnavailable            the tree cannot be held still by a frozen one
     +-- MemoryChannelError          7   the channel of the memory broke
     +-- PageStoreError              7   memory that is restored on demand could not be given
     +-- MigrationError              7   a migration was rolled back
     |    +-- RoundFailed                in a round of the pre-copy
     |    +-- CutoverFailed              in the cutover, before the commit
     |    +-- NotConverged            6   the downtime asked for was not to be had
     +-- OutcomeUnknown              8   nobody can say by itself where the process is
     +-- Cancelled                 130   by the user, before the commit

The codes answer the question "where is my process?": 2 to 7 and 130 say still here, untouched.
"""

from typing import ClassVar

__all__ = [
    "AgentFailed",
    "AgentMissing",
    "AuthenticationFailed",
    "Cancelled",
    "CertificateChanged",
    "CgroupError",
    "ConfigurationError",
    "ConnectFailed",
    "ConnectTimeout",
    "ConnectionLost",
    "ConnectionRefused",
    "CriuDied",
    "CriuError",
    "CriuNotFound",
    "CriuTimeout",
    "CriuTooOld",
    "CriuUnfit",
    "CriuUnusable",
    "CutoverFailed",
    "DescriptorError",
    "ExtraMissing",
    "FeatureMissing",
    "HostKeyChanged",
    "HostKeyUnknown",
    "HostUnknown",
    "HostUnreachable",
    "ImageError",
    "IncompatiblePeer",
    "IncompatibleTarget",
    "JoinFailed",
    "LockUnavailable",
    "MemoryChannelError",
    "MigrationError",
    "NotConverged",
    "NotTrusted",
    "OutcomeUnknown",
    "PageStoreError",
    "PeerError",
    "PhaulError",
    "PreflightError",
    "ProtocolError",
    "Refused",
    "RoundFailed",
    "SshMissing",
    "StateError",
    "SubjectError",
    "TokenExpired",
    "TokenWrong",
    "UsageError",
    "VersionMismatch",
    "WorkDirError",
]


class PhaulError(Exception):
    """The base of all errors that phaul raises on purpose.

    `what` says what failed, `host` on which host ("source", "destination", a name; empty where
    there is but one), `remedy` what to do about it, and `fate` where the process is now.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, host: str = "", remedy: str = "", fate: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.host = host
        self.remedy = remedy
        self.fate = fate

    def __str__(self) -> str:
        head = f"{self.host}: {self.what}" if self.host else self.what
        return "\n".join(
            part for part in (head, *self.details(), self.remedy, *self._notes(), self.fate) if part
        )

    def details(self) -> tuple[str, ...]:
        """More lines on what failed, between what it was and what to do."""
        return ()

    def _notes(self) -> list[str]:
        return getattr(self, "__notes__", [])


class UsageError(PhaulError):
    """A value was given that cannot be meant."""

    exit_code = 2


class ConfigurationError(UsageError):
    """A file of the configuration cannot be read, or says what cannot be meant."""


class PreflightError(PhaulError):
    """Something that would make the migration fail was found before anything was frozen."""

    exit_code = 3


class SubjectError(PreflightError):
    """The process does not exist, or is not one that can be taken."""


class WorkDirError(PreflightError):
    """The work directory holds images already, or cannot be written."""


class StateError(PreflightError):
    """The state directory is unsafe or cannot be written, or what lies in it is damaged."""


class ExtraMissing(PreflightError):
    """A package that only some ways of using phaul need is not installed."""


class DescriptorError(PreflightError):
    """The descriptor of the memory channel is closed, or is no connected stream socket."""


class FeatureMissing(PreflightError):
    """The kernel, or CRIU on it, lacks a feature that was asked for."""


class Refused(PreflightError):
    """Preflight found what would make the migration fail, and it was not allowed by name."""


class CriuUnusable(PreflightError):
    """There is no CRIU that this version of phaul can work with."""


class CriuNotFound(CriuUnusable):
    """No such program, or it cannot be executed."""


class CriuTooOld(CriuUnusable):
    """CRIU is older than the oldest version that phaul was tried with."""


class CriuUnfit(CriuUnusable):
    """CRIU's own check says that it does not work on this kernel."""


class PeerError(PhaulError):
    """The other side cannot be reached, or cannot be spoken to."""

    exit_code = 4


class ProtocolError(PeerError):
    """The other side sent what is no message of the protocol, or one out of turn."""


class ConnectFailed(PeerError):
    """The other side was not reached."""


class HostUnknown(ConnectFailed):
    """The host's name has no address."""


class HostUnreachable(ConnectFailed):
    """No way leads to the host."""


class ConnectionRefused(ConnectFailed):
    """Nobody listens there, or a firewall says so."""


class ConnectTimeout(ConnectFailed):
    """The host did not answer in time."""


class HostKeyUnknown(ConnectFailed):
    """The host's key was never seen before, and nobody was there to accept it."""


class HostKeyChanged(ConnectFailed):
    """The host's key is another one than before, or was revoked."""


class AuthenticationFailed(ConnectFailed):
    """The host does not let this user in."""


class SshMissing(ConnectFailed):
    """There is no ssh on this host, or it cannot be executed."""


class AgentMissing(ConnectFailed):
    """There is no phaul over there, or it cannot be executed."""


class AgentFailed(ConnectFailed):
    """Phaul over there ended before it said a word."""


class CertificateChanged(ConnectFailed):
    """The host's certificate is another one than the pinned one, or than the token's."""


class NotTrusted(ConnectFailed):
    """The host does not trust this host's certificate."""


class JoinFailed(ConnectFailed):
    """The host did not let this host join."""


class TokenExpired(JoinFailed):
    """No token is out there: it has expired, was used, or was guessed at too often."""


class TokenWrong(JoinFailed):
    """The secret of the token is wrong."""


class ConnectionLost(PeerError):
    """The channel ended, or was silent for too long."""


class IncompatiblePeer(PhaulError):
    """The other end speaks another version of something that both must speak alike."""

    exit_code = 5


class IncompatibleTarget(IncompatiblePeer):
    """Preflight found a host that cannot run the process, or whose CRIU cannot take it."""


class VersionMismatch(IncompatiblePeer):
    """There is no version of the protocol that both sides speak."""


class ImageError(PhaulError):
    """An image file is truncated, foreign or damaged."""

    exit_code = 5


class CriuError(PhaulError):
    """CRIU refused or failed a request.

    `request` names the request, `line` is the log line that decided (empty where none was found),
    `log_path` the whole log, and `errno` CRIU's own error number, 0 if it gave none.  `log_text` is
    the end of a log that is on another host, and is not going to stay there.
    """

    exit_code = 7

    def __init__(
        self,
        what: str,
        *,
        request: str,
        line: str = "",
        log_path: str = "",
        errno: int = 0,
        host: str = "",
        remedy: str = "",
        fate: str = "",
    ) -> None:
        super().__init__(what, host=host, remedy=remedy, fate=fate)
        self.request = request
        self.line = line
        self.log_path = log_path
        self.errno = errno
        self.log_text = ""

    def details(self) -> tuple[str, ...]:
        """CRIU's own line, and where its log is."""
        said = f"criu: {self.line}" if self.line else ""
        return said, f"log: {self.log_path}" if self.log_path else ""


class CriuDied(CriuError):
    """CRIU ended without an answer."""


class CriuTimeout(CriuError):
    """CRIU did not answer in time, and was ended."""


class CgroupError(PhaulError):
    """A cgroup refused what was asked of it, or did not do it in time."""

    exit_code = 7


class LockUnavailable(CgroupError):
    """The tree cannot be held still by frozen cgroups; the message says why."""


class MemoryChannelError(PhaulError):
    """The channel that carries the memory broke, or was closed by the other side."""

    exit_code = 7


class PageStoreError(PhaulError):
    """Memory that is restored on demand could not be given, or was asked for in no known way."""

    exit_code = 7


class MigrationError(PhaulError):
    """A migration failed and was rolled back: the process is where it was."""

    exit_code = 7


class RoundFailed(MigrationError):
    """A round of the pre-copy failed; the process was never stopped for longer than a round."""


class CutoverFailed(MigrationError):
    """The cutover failed before the source was given up."""


class NotConverged(MigrationError):
    """The process dirties its memory faster than it can be sent: the target was not to be met."""

    exit_code = 6


class OutcomeUnknown(PhaulError):
    """Contact was lost at a moment where only looking at both hosts can settle who owns."""

    exit_code = 8


class Cancelled(PhaulError):
    """The migration was cancelled before the commit."""

    exit_code = 130
