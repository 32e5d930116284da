"""Post-copy, cut at its steps: what may be lost is said, and two never run."""

import pytest

from tests.faults.plan import FaultPoint
from tests.faults.runner import Summary, run
from tests.pipes import restored

CASES = """
none
kill who=source at=criu/dump/post-dump
kill who=source at=answer/restore+
kill who=source at=event/source-gone
kill who=source at=answer/commit+
kill who=source at=event/draining
kill who=agent at=ask/follow+
kill who=agent at=answer/restore-
kill who=agent at=ask/commit-
kill who=agent at=answer/commit+
kill who=agent at=event/draining
kill who=dump at=criu/dump/post-dump
kill who=dump at=answer/restore+
kill who=dump at=event/draining
kill who=keeper at=memory/guard
kill who=keeper at=event/running
kill who=restore at=criu/restore/post-restore
stop who=source at=event/running time=0.2
stop who=agent at=event/running time=0.2
cut who=both channel=memory flow=ask at=event/running
cut who=both channel=control flow=ask at=event/running
cut who=both channel=control flow=ask at=ask/commit-
cut who=both channel=memory flow=ask at=ask/restore+
link at=event/running time=0.3
"""


@pytest.fixture(scope="module")
def summary() -> Summary:
    """The cases, done once."""
    faults = []
    for line in CASES.split("\n"):
        if line:
            kind, *rest = line.split()
            faults.append(
                FaultPoint.parse(" ".join((kind, "victim=dirtier", "way=post-copy", *rest)))
            )
    with restored():  # the lanes raise it
        return run(faults, len(faults), lanes=2)


@pytest.mark.timeout(600)
def test_what_is_lost_is_said_and_all_else_is_whole(summary: Summary) -> None:
    assert summary.broken == []
    assert {result["case"]: result["found"] for result in summary.failed} == {}
