"""A whole migration through the public surface, both ends in one process, CRIU faked."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from phaul import Client, Criu, Report, StopReason, StopRule, Version, Way
from phaul.errors import (
    CriuNotFound,
    CriuTooOld,
    CriuUnfit,
    FeatureMissing,
    IncompatiblePeer,
    MemoryChannelError,
    SubjectError,
    UsageError,
    WorkDirError,
)
from phaul.pages.store.index import PAGE
from phaul.report import RoundFinished, Started
from tests.unit.conftest import Ends, descriptors, running, state
from tests.unit.scenario import Dump, Fault


def test_moves_a_process(ends: Ends) -> None:
    report = ends.client().migrate()
    assert state(ends.victim) in {"", "Z"}
    assert running(ends.local.restored)
    assert ends.local.steps == ["held T", "restored", "release Z"]
    assert [r.pages for r in report.rounds] == [100, 10]
    assert report.way is Way.PRE_COPY
    assert report.reason == StopReason.SMALL.value
    assert report.final.pages == 5
    assert report.final.number == 2
    assert report.downtime.freeze_s == pytest.approx(0.001)
    asked = ends.source.names()
    assert set(asked[:3]) == {"VERSION", "FEATURE_CHECK", "CHECK"}
    assert asked[3:] == [
        "SINGLE_PRE_DUMP",
        "SINGLE_PRE_DUMP",
        "DUMP",
        "answer:pre-dump",
        "answer:query-ext-files",
        "answer:post-dump",
        "thawed",
    ]


def test_the_report_goes_through_json(ends: Ends) -> None:
    report = ends.client().migrate()
    assert Report.from_json(report.to_json()) == report


def test_rounds_until_the_rule_stops(ends: Ends) -> None:
    ends.source.play(rounds=(Dump(pages_written=1000),))
    report = ends.client(stop_rule=StopRule(max_rounds=4)).migrate()
    assert len(report.rounds) == 4
    assert report.reason == StopReason.MOST_ROUNDS.value
    assert ends.remote.calls == ["start", "stop"] * 5


def test_shared_pages_count(ends: Ends) -> None:
    ends.source.play(
        rounds=(
            Dump(pages_written=100),
            Dump(pages_written=0, shpages_written=90),
            Dump(pages_written=0, shpages_written=500),
        )
    )
    report = ends.client().migrate()
    assert [r.sent_pages for r in report.rounds] == [100, 90, 500]
    assert report.reason == StopReason.GROWTH.value


def test_parents_are_relative_on_both_ends(ends: Ends, tmp_path: Path) -> None:
    seen: dict[str, str] = {}
    move = ends.local.work

    def look(criu: Criu) -> Callable[[], None] | None:
        release = move(criu)
        for side in ("src", "dst"):
            for link in (tmp_path / side).glob("*/parent"):
                seen[f"{side}/{link.parent.name}"] = str(link.readlink())
        return release

    ends.local.work = look
    ends.client().migrate()
    expected = {"1": "../0", "2": "../1"}
    assert seen == {f"{side}/{n}": to for side in ("src", "dst") for n, to in expected.items()}
    assert ends.local.last == tmp_path / "src/1"


def test_what_criu_is_asked(ends: Ends, tmp_path: Path) -> None:
    ends.client().migrate()
    first, second = ends.source.notes("SINGLE_PRE_DUMP")
    assert first.options["track_mem"] is True
    assert "parent_img" not in first.options
    assert "notify_scripts" not in first.options
    assert second.options["parent_img"] == "../0"
    assert first.images == str(tmp_path / "src/0")
    # One worker each: CRIU's statistics add up over a worker's life.
    assert len({note.worker for note in (first, second, *ends.source.notes("DUMP"))}) == 3
    (dump,) = ends.source.notes("DUMP")
    assert dump.options["notify_scripts"] is True
    assert dump.options["track_mem"] is True
    assert "leave_running" not in dump.options
    assert all(note.pid == ends.victim for note in (first, second, dump))


def test_events_come_in_order(ends: Ends) -> None:
    ends.client().migrate()
    assert [type(event).__name__ for event in ends.events] == [
        "Started",
        "RoundStarted",
        "RoundFinished",
        "RoundStarted",
        "RoundFinished",
        "PreCopyStopped",
        "CutoverStarted",
        "Held",
        "SourceGone",
    ]


def test_without_tracking_it_is_stop_and_copy(ends: Ends) -> None:
    ends.source.play(mem_track=False)
    report = ends.client().migrate()
    assert report.way is Way.STOP_AND_COPY
    assert report.reason == StopReason.NO_TRACKING.value
    assert "does not track" in report.explanation
    assert report.rounds == ()
    assert "SINGLE_PRE_DUMP" not in ends.source.names()
    assert "track_mem" not in ends.source.notes("DUMP")[0].options
    assert isinstance(ends.events[0], Started)
    assert "does not track" in ends.events[0].reason
    assert ends.local.last is None


def test_tcp_is_relayed_and_counted(ends: Ends) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = ends.stack.enter_context(socket.create_connection(listener.getsockname()))
        far = ends.stack.enter_context(listener.accept()[0])
    ends.server.new_chain(far.fileno())
    report = ends.client(memory_fd=near.fileno()).migrate()
    # Three headers and two pages; later a header more.  What comes back, five bytes, may be counted
    # a moment late.
    first, *later = [r.wire_bytes or 0 for r in (*report.rounds, report.final)]
    sent = 3 * 32 + 2 * PAGE
    assert sent <= first <= sent + 5
    assert all(sent + 32 <= count <= sent + 32 + 2 * 5 for count in later), later
    assert running(ends.local.restored)


def test_nothing_leaks(ends: Ends) -> None:
    before = descriptors()
    ends.client().migrate()
    # The Server's spare worker is used up, and the last one is reaped beside what comes next; its
    # event for the kernel's hooks, which it has until its end, may have come only now.
    deadline = time.monotonic() + 30
    while left := [what for _, what in descriptors().items() - before.items()]:
        if left == ["anon_inode:[perf_event]"]:
            break
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def test_a_success_spends_the_channel(ends: Ends) -> None:
    client = ends.client()
    client.migrate()
    with pytest.raises(MemoryChannelError, match="new_chain"):
        client.migrate()


def test_needs_a_pid(ends: Ends) -> None:
    with pytest.raises(UsageError, match="pid"):
        ends.client(pid=None)


def test_preflight_refuses_missing_tracking(ends: Ends) -> None:
    ends.source.play(mem_track=False)
    with pytest.raises(FeatureMissing, match="soft-dirty"):
        ends.client(require_pre_copy=True).migrate()
    assert_untouched(ends)


def test_preflight_refuses_another_protocol(ends: Ends, tmp_path: Path) -> None:
    with pytest.raises(IncompatiblePeer, match=r"4\.2\.1 here and 4\.1\.1 there"):
        ends.client(peer_criu=Version(4, 1, 1)).migrate()
    assert_untouched(ends)
    assert not (tmp_path / "src").exists()


def test_a_peer_of_the_same_protocol_will_do(ends: Ends) -> None:
    ends.client(peer_criu=Version(4, 3)).migrate()


def test_preflight_refuses_an_old_criu(ends: Ends) -> None:
    ends.source.play(version=(4, 0, 0))
    with pytest.raises(CriuTooOld, match=r"criu is 4\.0, at least 4\.1"):
        ends.client().migrate()
    assert_untouched(ends)


def test_preflight_refuses_an_unfit_criu(ends: Ends) -> None:
    ends.source.play(check=Fault(kind="fail", message="no such kernel"))
    with pytest.raises(CriuUnfit, match="no such kernel"):
        ends.client().migrate()
    assert_untouched(ends)


def test_preflight_refuses_a_missing_criu(ends: Ends) -> None:
    with pytest.raises(CriuNotFound):
        ends.client(criu="/no/criu").migrate()
    assert_untouched(ends)


def test_preflight_refuses_a_missing_process(ends: Ends) -> None:
    with pytest.raises(SubjectError):
        ends.client(pid=2**22 + 1).migrate()
    assert_untouched(ends)


def test_preflight_refuses_a_used_directory(ends: Ends, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/old.img").touch()
    with pytest.raises(WorkDirError, match=r"old\.img"):
        ends.client().migrate()
    assert_untouched(ends)


def test_every_error_says_where_the_process_is(ends: Ends) -> None:
    ends.source.play(version=(4, 0, 0))
    with pytest.raises(CriuTooOld) as caught:
        ends.client().migrate()
    assert caught.value.fate == f"still running here, PID {ends.victim}"


def assert_untouched(ends: Ends) -> None:
    assert running(ends.victim)
    assert ends.remote.calls == []
    assert ends.events == []
    assert not {"SINGLE_PRE_DUMP", "DUMP"} & set(ends.source.names())


def test_a_client_without_events(ends: Ends) -> None:
    assert Client(ends.local, ends.remote, ends.config).migrate().pid == ends.victim


def test_a_stopped_process_is_not_said_to_run(ends: Ends) -> None:
    os.kill(ends.victim, signal.SIGSTOP)
    ends.source.play(check=Fault(kind="fail"))
    with pytest.raises(CriuUnfit) as caught:
        ends.client().migrate()
    assert "running" not in caught.value.fate


def test_round_events_carry_the_round(ends: Ends) -> None:
    report = ends.client().migrate()
    finished = [event.round for event in ends.events if isinstance(event, RoundFinished)]
    assert tuple(finished) == report.rounds
