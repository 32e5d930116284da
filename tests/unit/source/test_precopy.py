"""Rounds that fail: the error tells the cause and the fate, and a new chain works."""

import errno
import os
import signal
from pathlib import Path

import pytest

from phaul import Client, Timeouts
from phaul.errors import CriuDied, CriuTimeout, ImageError, MemoryChannelError, RoundFailed
from phaul.pages.receiving import PagesFile
from tests.unit.conftest import Ends, running
from tests.unit.scenario import Dump, Fault

LOG = (
    "(00.000100) Error (criu/rlimit.c:1): rlimit: Can't setup RLIMIT_NOFILE for self\n"
    "(00.012345) Error (criu/mem.c:9): Can't read the page map of 7\n"
    "(00.012399) Error (criu/cr-dump.c:2): Pre-dumping FAILED.\n"
)
SMALL = (Dump(pages_written=10),)


def fail(ends: Ends, client: Client | None = None) -> RoundFailed:
    """The error of a migration that fails in a round."""
    with pytest.raises(RoundFailed) as caught:
        (client or ends.client()).migrate()
    assert running(ends.victim)
    assert caught.value.fate == f"still running here, PID {ends.victim}"
    assert str(caught.value).endswith(caught.value.fate)
    assert "DUMP" not in ends.source.names()
    return caught.value


def test_a_failed_round_tells_the_cause(ends: Ends, tmp_path: Path) -> None:
    ends.source.play(rounds=(Dump(), Dump(fault=Fault(kind="fail", log=LOG, errno=5))))
    error = fail(ends)
    log = tmp_path / "src/1/pre-dump.log"
    assert "round 1" in error.what
    assert "Can't read the page map of 7" in str(error)
    assert "RLIMIT" not in str(error)
    assert str(log) in str(error)
    assert log.read_text() == LOG
    assert [path.name for path in (tmp_path / "src").rglob("*") if path.is_file()] == [log.name]
    assert ends.remote.calls == ["start", "stop"] * 2


def test_the_images_are_dropped_on_the_other_side_too(ends: Ends, tmp_path: Path) -> None:
    ends.source.play(rounds=(Dump(fault=Fault(kind="fail", log=LOG)),))
    fail(ends)
    assert ends.server.last_images_dir is None
    left = [path.name for path in (tmp_path / "dst").rglob("*") if path.is_file()]
    assert left == []


def test_a_new_chain_has_no_parent(ends: Ends, tmp_path: Path) -> None:
    ends.source.play(rounds=(Dump(), Dump(fault=Fault(kind="fail", log=LOG))))
    client = ends.client()
    fail(ends, client)
    with pytest.raises(MemoryChannelError, match="new_chain"):
        client.migrate()
    ends.source.play(rounds=SMALL)
    client.new_chain(ends.fresh())
    client.migrate()
    last = ends.source.notes("SINGLE_PRE_DUMP")[-1]
    assert "parent_img" not in last.options
    assert not (tmp_path / "dst/2/parent").is_symlink()
    assert (tmp_path / "dst/3/parent").readlink() == Path("../2")
    assert running(ends.local.restored)


def test_the_other_side_refuses_to_go_on_without_a_new_chain(ends: Ends) -> None:
    ends.source.play(rounds=(Dump(fault=Fault(kind="fail", log=LOG)),))
    fail(ends)
    with pytest.raises(MemoryChannelError, match="new_chain"):
        ends.server.start_iteration()


def test_a_destination_without_room_fails_the_round(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: PagesFile, _source: object, _length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PagesFile, "take", full)
    error = fail(ends)
    assert "write pages to socket" in str(error)
    assert "the other side says" in str(error)
    assert "No space left" in str(error)
    assert "make room" in str(error)


def test_what_both_sides_say_is_told(ends: Ends) -> None:
    ends.source.play(rounds=(Dump(unfounded=True),))
    text = str(fail(ends))
    assert "Can't write pages to socket" in text
    assert "the other side says" in text
    assert "in the round before" in text


def test_a_destination_that_cannot_begin_a_round(ends: Ends, tmp_path: Path) -> None:
    (tmp_path / "dst/0").touch()
    assert "dst/0 cannot be made" in str(fail(ends))
    assert "SINGLE_PRE_DUMP" not in ends.source.names()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(kind="signal", number=11, log=LOG), "killed by SIGSEGV"),
        (Fault(kind="exit", number=3), "ended with status 3"),
        (Fault(kind="garbage"), "cannot be read"),
        (Fault(kind="truncated"), "cannot be read"),
    ],
)
def test_a_worker_that_gives_no_answer(ends: Ends, fault: Fault, said: str) -> None:
    ends.source.play(rounds=(Dump(fault=fault),))
    error = fail(ends)
    assert said in str(error)
    assert isinstance(error.__cause__, CriuDied)


def test_a_worker_that_died_left_the_cause_in_its_log(ends: Ends) -> None:
    ends.source.play(rounds=(Dump(fault=Fault(kind="signal", number=11, log=LOG)),))
    assert "Can't read the page map" in str(fail(ends))


def test_a_round_that_hangs_is_ended(ends: Ends) -> None:
    ends.source.play(rounds=(Dump(fault=Fault(kind="hang")),))
    error = fail(ends, ends.client(timeouts=Timeouts(round=0.2)))
    assert isinstance(error.__cause__, CriuTimeout)
    assert "within 0.2 s" in str(error)


def test_a_message_that_is_no_utf8(ends: Ends) -> None:
    said = b"Can't open /tmp/caf\xe9".hex()
    ends.source.play(rounds=(Dump(fault=Fault(kind="fail", raw_message=said)),))
    text = str(fail(ends))
    assert "Can't open /tmp/caf" in text
    assert "b'" not in text


def test_a_round_without_statistics(ends: Ends) -> None:
    ends.source.play(rounds=(Dump(write_stats=False),))
    error = fail(ends)
    assert "stats-dump" in str(error)
    assert isinstance(error.__cause__, ImageError)


def test_a_remote_that_cannot_be_reached(ends: Ends) -> None:
    def unreachable(name: str, count: int) -> None:
        if (name, count) == ("start", 2):
            raise ConnectionError("no route")

    ends.remote.before = unreachable
    assert "no route" in str(fail(ends))


def test_a_broken_channel_fails_the_round(ends: Ends) -> None:
    def cut(name: str, count: int) -> None:
        if (name, count) == ("start", 2):
            ends.server._session._channel.break_off()

    ends.remote.after = cut
    ends.source.play(rounds=(Dump(send_pages=256),))
    error = fail(ends)
    assert "round 1" in error.what
    assert "memory channel broke" in str(error)


def test_a_vanished_directory_does_not_hide_the_cause(ends: Ends, tmp_path: Path) -> None:
    def vanish(name: str, _count: int) -> None:
        if name == "stop":
            (tmp_path / "src/0").rename(tmp_path / "elsewhere")
            raise ConnectionError("the real cause")

    ends.remote.after = vanish
    assert "the real cause" in str(fail(ends))


def test_a_process_that_ends_in_a_round(ends: Ends) -> None:
    log = "(00.1) Error (criu/seize.c:1): no such task\n"
    ends.source.play(rounds=(Dump(fault=Fault(kind="fail", log=log)),))

    def end(_name: str, _count: int) -> None:
        os.kill(ends.victim, signal.SIGKILL)

    ends.remote.before = end
    with pytest.raises(RoundFailed) as caught:
        ends.client().migrate()
    assert "no longer here" in caught.value.fate
