"""ssh is started ahead of the migration, and never left behind when that does not come."""

import os
import signal

import pytest

from phaul.cli.targets import dialled
from phaul.errors import SshMissing, UsageError
from phaul.transport.local import local_ends
from phaul.transport.ssh import SshSource
from phaul.transport.target import Target


class Ssh(SshSource):
    """Notes what is asked of it."""

    def __init__(self, *, missing: bool = False) -> None:
        super().__init__(Target("host2"))
        self.missing = missing
        self.asked: list[str] = []

    def dial(self) -> None:
        self.asked.append("dial")
        if self.missing:
            raise SshMissing("there is no ssh")

    def hang_up(self) -> None:
        self.asked.append("hang_up")


def test_the_connection_is_the_one_that_was_dialled() -> None:
    ssh = Ssh()
    with dialled(lambda: ssh) as connect:
        assert ssh.asked == ["dial"]
        assert connect() is ssh
    assert ssh.asked == ["dial", "hang_up"]


def test_an_error_before_the_migration_hangs_up() -> None:
    ssh = Ssh()
    with pytest.raises(UsageError), dialled(lambda: ssh):
        raise UsageError("something else is wrong")
    assert ssh.asked == ["dial", "hang_up"]


def test_sigterm_before_the_migration_hangs_up() -> None:
    ssh, before = Ssh(), signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, dialled(lambda: ssh):
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143
    assert ssh.asked == ["dial", "hang_up"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_keeps_ssh_from_starting_is_told_by_the_migration() -> None:
    ssh = Ssh(missing=True)
    with dialled(lambda: ssh) as connect:
        assert connect() is ssh


def test_nothing_is_dialled_where_nothing_can_be_moved_or_nothing_is_to_dial() -> None:
    ssh = Ssh()
    with dialled(lambda: ssh, wanted=False):
        pass
    assert ssh.asked == []
    local = local_ends()[0]
    with dialled(lambda: local) as connect:
        assert connect() is local
