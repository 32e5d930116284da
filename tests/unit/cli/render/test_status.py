import json
from datetime import UTC

import msgspec

from phaul.cli.render.look import Look, cells
from phaul.cli.render.status import status_json, status_of, status_text
from phaul.cli.render.table import Line, line_of, table_text
from phaul.incarnation import Incarnation
from phaul.report import Phase, Status
from phaul.report.status import RoundDone
from phaul.source.steering import Standing
from phaul.storage.entry import Entry, RoundFigures, State
from tools.sample import REPORT, events

change = msgspec.structs.replace
SELF = Incarnation(pid=7, start=1, boot="b")
ENTRY = Entry(
    id="k3v9",
    state=State.PRE_COPY,
    process=change(SELF, pid=4242),
    name="postgres",
    target="root@beta",
    destination="beta",
    started_unix=1000.0,
    updated_unix=1028.0,
    phaul=SELF,
    rounds=tuple(RoundFigures.of(r) for r in REPORT.rounds[:2]),
    max_downtime_s=0.3,
)
STANDING = Standing(
    state=State.PRE_COPY,
    number=2,
    sent_bytes=26 << 20,
    expected_bytes=42 << 20,
    round_s=0.5,
    max_downtime_s=0.5,
)


def test_one_that_runs() -> None:
    status = status_of(ENTRY, 1030.0, STANDING)
    assert status_text(status, 1030.0).splitlines() == [
        "migration  k3v9: postgres, PID 4242 to beta",
        "state      pre-copy",
        "time       30.0 s in all",
        "round 0    2.94 GiB    110 MiB/s   dirtied  9.7 MiB/s   downtime now about 2.74 s",
        "round 1     258 MiB    107 MiB/s   dirtied 10.4 MiB/s   downtime now about 520 ms",
        "round 2    26.0 MiB of 42.0 MiB, 52.0 MiB/s",
        "sent       3.19 GiB",
        "downtime   now about 520 ms, to be at most 500 ms",
    ]


def test_its_first_rounds_are_left_out() -> None:
    text = status_text(status_of(ENTRY, 1030.0), 1030.0, most_rounds=1)
    assert "... 1 before these" in text
    assert "round 0" not in text


def test_one_that_is_done() -> None:
    entry = change(ENTRY, state=State.DONE, exit_code=0, destination_pid=4242)
    status = status_of(entry, 2000.0, report=REPORT)
    text = status_text(status, 2000.0)
    assert "state      done\n" in text
    assert "time       28.0 s in all" in text
    assert text.endswith("downtime   284 ms")
    assert "downtime" not in status_text(status_of(entry, 2000.0), 2000.0).splitlines()[-1]


def test_one_that_failed() -> None:
    fate = "still running here, PID 4242"
    entry = change(
        ENTRY, state=State.FAILED, exit_code=7, error=f"it broke\nlog: /x\n{fate}", fate=fate
    )
    assert status_text(status_of(entry, 2000.0), 2000.0).splitlines()[-3:] == [
        "error      it broke",
        "           log: /x",
        f"process    {fate}",
    ]


def test_of_its_own_events() -> None:
    status = Status()
    for event in list(events())[:8]:
        status = status.after(event, 1000.0)
    text = status_text(status, 1002.0)
    assert "state      pre-copy, for 2.00 s" in text
    assert "round 0    669 MiB of 2.94 GiB, 335 MiB/s" in text


def test_as_json() -> None:
    status = status_of(ENTRY, 1030.0, STANDING)
    found = json.loads(status_json(status))
    assert (found["v"], found["phase"], found["round"]) == (1, "pre-copy", 2)
    assert msgspec.json.decode(status_json(status), type=Status) == status
    assert status.rounds[0] == RoundDone.of(REPORT.rounds[0])


def test_each_state_has_its_phase() -> None:
    for state in State:
        phase = status_of(change(ENTRY, state=state), 1.0).phase
        assert phase.value == state.value
        assert phase.ended == state.over


LINES = [
    Line("k3v9", "pre-copy", "postgres, PID 4242", "root@beta", "2026-11-24 14:40"),
    Line("a2b7", "done", "dirtier, PID 7", "phaul://gamma.example.org:7777", "", "3.56 s"),
]


def test_a_table() -> None:
    assert table_text(LINES).splitlines() == [
        "ID     STATE      PROCESS              TARGET                           STARTED"
        "            DOWNTIME",
        "k3v9   pre-copy   postgres, PID 4242   root@beta                        2026-11-24 14:40"
        "   -",
        "a2b7   done       dirtier, PID 7       phaul://gamma.example.org:7777   -"
        "                  3.56 s",
    ]
    assert table_text([]) == "no migrations on this machine"


def test_a_narrow_table() -> None:
    lines = table_text(LINES, Look(width=90)).splitlines()
    assert all(cells(line) <= 90 for line in lines)
    assert ".." in lines[2]
    assert [line.split()[0] for line in lines] == ["ID", "k3v9", "a2b7"]


def test_colours_change_no_column() -> None:
    painted = table_text(LINES, Look(colour=True))
    assert "\x1b[32mdone\x1b[0m       dirtier" in painted


def test_a_line_of_a_status() -> None:
    entry = change(ENTRY, state=State.DONE, started_unix=1_795_531_200.0)
    line = line_of(status_of(entry, 2e9, report=REPORT), UTC)
    assert line == Line(
        "k3v9", "done", "postgres, PID 4242", "root@beta", "2026-11-24 14:40", "284 ms"
    )
    assert line_of(status_of(ENTRY, 2e9), UTC).downtime == ""
    assert Phase(line.state) is Phase.FINISHED


def test_a_name_steers_no_terminal() -> None:
    status = change(status_of(ENTRY, 1030.0), name="a\x1b[2J\nb")
    assert table_text([line_of(status, UTC)]).count("\n") == 1
    assert "\x1b" not in table_text([line_of(status, UTC)]) + status_text(status, 1030.0)
