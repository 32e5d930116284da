import json

import msgspec

from phaul.cli.render.look import Look
from phaul.cli.render.plan import plan_text
from phaul.cli.render.result import report_text, result_json, result_text, round_text
from phaul.plan import Way
from phaul.report import Slowdown, SlowStep
from tools.sample import PLAN, REPORT

change = msgspec.structs.replace


def test_the_three_things() -> None:
    assert result_text(REPORT).splitlines() == [
        "process   postgres runs on beta, PID 4242; it is gone from alpha",
        "downtime  284 ms = freeze 11 ms + dump 98 ms + copy and restore 141 ms + kill 26 ms"
        " + release 8.0 ms",
        "sent      3.27 GiB in 32.7 s, 1.09 times the memory's 3.00 GiB",
    ]


def test_what_the_library_does_not_know() -> None:
    bare = change(REPORT, source="", destination="", destination_pid=None, memory_bytes=0)
    first, _, last = result_text(bare).splitlines()
    assert first == "process   postgres runs on the destination, PID 4242; it is gone from here"
    assert last == "sent      3.27 GiB in 32.7 s"


def test_warnings_and_a_downtime_that_was_too_long() -> None:
    text = result_text(change(REPORT, warnings=("images are left",), max_downtime_s=0.1))
    assert "release 8.0 ms; more than the 100 ms that were asked for\n" in text
    assert text.splitlines()[-1] == "warning   images are left"


def test_a_process_that_was_slowed_down() -> None:
    steps = (SlowStep(number=2, share=0.5), SlowStep(number=3, share=0.25))
    slow = Slowdown(cpus=1.5, steps=steps, share=0.25, seconds=4.2)
    kept = change(slow, given_back=False)
    said = "slowed    to 25 % of its CPU time, in 2 steps, for 4.20 s; "
    assert said + "it has all of it again" in result_text(change(REPORT, slowdown=slow))
    assert said + "it could not be given back" in result_text(change(REPORT, slowdown=kept))
    assert "slowed" not in result_text(REPORT)
    one = change(REPORT.rounds[1], share=0.25)
    assert round_text(one).endswith("   slowed to 25 %")


def test_on_a_narrow_terminal() -> None:
    lines = result_text(REPORT, Look(width=50)).splitlines()
    assert all(len(line) <= 50 for line in lines)
    assert len(lines) > 3


def test_as_json() -> None:
    found = json.loads(result_json(REPORT))
    assert (found["v"], found["outcome"], found["process"]) == (1, "moved", "destination")
    assert found["exit_code"] == 0
    assert found["report"]["downtime"]["freeze_s"] == 0.011
    warned = json.loads(result_json(change(REPORT, warnings=("x",))))
    assert warned["exit_code"] == 1


def test_a_round() -> None:
    assert round_text(REPORT.rounds[2]) == (
        "42.1 MiB    103 MiB/s   dirtied  9.1 MiB/s   downtime now about 360 ms"
    )
    assert round_text(REPORT.rounds[2], verbose=True).endswith(
        "   frozen 38 ms   took 410 ms   42.2 MiB on the wire"
    )
    unknown = change(REPORT.rounds[2], seconds=0.0, dirty_rate=None, predicted_downtime_s=None)
    assert round_text(unknown) == "42.1 MiB"


def test_the_whole_report() -> None:
    lines = report_text(REPORT).splitlines()
    assert lines[3:5] == [
        "way       pre-copy: a cutover now costs about 270 ms, and 300 ms are allowed",
        "criu      4.2.1",
    ]
    assert [line.split("  ")[0] for line in lines[5:]] == [
        *(f"round {n}" for n in range(5)),
        "final",
    ]


def test_the_plan() -> None:
    assert plan_text(PLAN).splitlines() == [
        "plan      pre-copy: the kernel tracks dirty memory",
        "memory    3.00 GiB, of it 128 MiB shared, which only the final dump sends",
        "speed     dirties 9.7 MiB/s, the way there takes 112 MiB/s",
        "expected  5 rounds, downtime about 310 ms, about 34.0 s in all",
        "because   the dirty rate was measured for 2 s; the bandwidth was measured with 64 MiB;"
        " restoring took 140 ms for a process like this one",
    ]
    assert len(plan_text(PLAN, everything=True).splitlines()) == 7


def test_a_plan_of_what_is_not_known() -> None:
    plan = change(
        PLAN,
        way=Way.STOP_AND_COPY,
        reason="",
        shared_bytes=0,
        dirty_rate=None,
        bandwidth=0.0,
        because=(),
    )
    assert plan_text(plan).splitlines() == [
        "plan      stop and copy",
        "memory    3.00 GiB",
        "expected  downtime about 310 ms, about 34.0 s in all",
    ]
