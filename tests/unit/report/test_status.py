import pytest

from phaul.report import Failed, Held, Phase, RoundProgress, RoundStarted, SlowedDown, Status
from tools.sample import REPORT, events


def test_a_whole_migration() -> None:
    status = Status()
    phases: list[Phase] = []
    for second, event in enumerate(events()):
        status = status.after(event, 1000.0 + second)
        if not phases or phases[-1] is not status.phase:
            phases.append(status.phase)
    assert phases == [
        Phase.CONNECTING,
        Phase.CHECKING,
        Phase.STARTING,
        Phase.PRE_COPY,
        Phase.CUTOVER,
        Phase.RESTORING,
        Phase.RELEASING,
        Phase.RUNNING_THERE,
        Phase.FINISHED,
    ]
    assert status.started_unix == 1000.0
    assert status.sent_bytes == REPORT.sent_bytes
    assert status.downtime_s == REPORT.downtime.total_s
    assert [r.number for r in status.rounds] == [r.number for r in REPORT.rounds]
    assert (status.id, status.pid, status.destination) == ("k3v9", 4242, "beta")
    assert status.exit_code == 0


def test_a_round_under_way() -> None:
    status = Status().after(RoundStarted(number=2), 10.0)
    status = status.after(RoundProgress(number=2, sent_bytes=5, expected_bytes=9), 12.0)
    assert (status.round, status.round_unix) == (2, 10.0)
    assert (status.round_sent_bytes, status.round_expected_bytes) == (5, 9)


def test_how_much_cpu_time_it_has() -> None:
    status = Status().after(RoundStarted(number=2), 10.0)
    assert status.share == 1.0
    slow = status.after(SlowedDown(share=0.4, cpus=1.0), 11.0)
    assert slow.after(RoundStarted(number=3), 12.0).share == 0.4
    assert slow.after(Held(seconds=1.0), 13.0).share == 1.0
    failed = Failed(kind="Cancelled", message="x", fate="y", exit_code=130)
    assert slow.after(failed, 13.0).share == 1.0


def test_progress_without_a_beginning() -> None:
    status = Status().after(RoundProgress(number=7, sent_bytes=5, expected_bytes=9), 12.0)
    assert (status.round, status.round_unix) == (7, 12.0)


def test_the_prediction_is_kept_where_a_round_has_none() -> None:
    status = Status()
    for event in list(events())[:20]:
        status = status.after(event, 1.0)
    assert status.downtime_s == REPORT.rounds[0].predicted_downtime_s


@pytest.mark.parametrize(
    ("code", "phase"),
    [(7, Phase.FAILED), (8, Phase.UNKNOWN), (130, Phase.CANCELLED), (143, Phase.CANCELLED)],
)
def test_the_ends_that_are_none(code: int, phase: Phase) -> None:
    event = Failed(kind="X", message="no", fate="still running here", exit_code=code)
    status = Status().after(RoundStarted(number=1), 1.0).after(event, 2.0)
    assert status.phase is phase
    assert phase.ended
    assert not phase.cancellable
    assert status.round is None
    assert (status.message, status.fate) == ("no", "still running here")
