import json

from phaul.cli.render.findings import checks_json, findings_text, problems_text
from phaul.cli.render.look import Look, cells
from phaul.cli.render.outcome import Checks
from phaul.protocol.preflight import Finding, Level, Where
from tools.sample import FINDINGS

NO = Finding(
    check="tcp",
    level=Level.NO,
    where=Where.SOURCE,
    what="3 connections, and 10.0.0.1 is not there",
    remedy="move the address, or --tcp close",
)
MANY = (NO, FINDINGS[4], FINDINGS[0], FINDINGS[1])


def test_one_host_in_a_pipe() -> None:
    assert findings_text((NO, FINDINGS[0]), source="alpha").splitlines() == [
        "ok        criu   CRIU 4.2.1, passes its check",
        "no        tcp    3 connections, and 10.0.0.1 is not there",
        "                 > move the address, or --tcp close",
        "checks    1 ok, 1 no: refused",
    ]


def test_two_hosts_in_a_pipe() -> None:
    assert findings_text(MANY, source="alpha", destination="beta").splitlines() == [
        "ok        criu    alpha   CRIU 4.2.1, passes its check",
        "ok        criu    beta    CRIU 4.2.1, passes its check",
        "warning   clock   beta    is 2.3 s behind the source",
        "                          > start a time service on both hosts: timers of the process"
        " will jump",
        "no        tcp     alpha   3 connections, and 10.0.0.1 is not there",
        "                          > move the address, or --tcp close",
        "checks    2 ok, 1 warning, 1 no: refused",
    ]


def test_two_hosts_beside_each_other() -> None:
    text = findings_text(MANY, Look(width=110), source="alpha", destination="beta")
    lines = text.splitlines()
    assert [line[:59].rstrip() for line in lines[:-1]] == [
        "        here: alpha",
        "criu    ok      CRIU 4.2.1, passes its check",
        "clock",
        "",
        "",
        "tcp     no      3 connections, and 10.0.0.1 is not there",
        "                > move the address, or --tcp close",
    ]
    assert [line[59:].strip() for line in lines[:-1]] == [
        "there: beta",
        "ok      CRIU 4.2.1, passes its check",
        "warning is 2.3 s behind the source",
        "> start a time service on both hosts:",
        "timers of the process will jump",
        "",
        "",
    ]
    assert lines[-1] == "checks    2 ok, 1 warning, 1 no: refused"
    assert all(cells(line) <= 110 for line in text.splitlines())


def test_a_narrow_terminal_has_one_column() -> None:
    text = findings_text(MANY, Look(width=60), source="alpha", destination="beta")
    assert "there:" not in text
    assert all(cells(line) <= 60 for line in text.splitlines())


def test_problems_in_full_and_the_rest_as_a_number() -> None:
    assert problems_text(FINDINGS, destination="beta").splitlines() == [
        "warning   clock   beta     is 2.3 s behind the source",
        "                           > start a time service on both hosts: timers of the process"
        " will jump",
        "warning   thp     source   1.2 GiB of the memory is in transparent huge pages",
        "                           > --thp off, or echo madvise >"
        " /sys/kernel/mm/transparent_hugepage/enabled",
        "checks    7 ok, 2 warnings",
    ]
    everything = problems_text(FINDINGS, everything=True)
    assert all(f.what in everything for f in FINDINGS)


def test_colours_change_no_column() -> None:
    for width in (60, 140):
        plain = findings_text(MANY, Look(width=width), source="a", destination="b")
        painted = findings_text(MANY, Look(width=width, colour=True), source="a", destination="b")
        assert "\x1b[" in painted
        for code in ("1;31", "1", "2", "32", "33", "36", "0"):
            painted = painted.replace(f"\x1b[{code}m", "")
        assert [line.rstrip() for line in painted.splitlines()] == plain.splitlines()


def test_no_findings() -> None:
    assert findings_text((), source="alpha") == "checks    0 ok"


def test_what_the_other_host_says_steers_no_terminal() -> None:
    bad = Finding(
        check="cpu", level=Level.NO, where=Where.DESTINATION, what="a\x1b[2J", remedy="\r"
    )
    for width in (0, 60, 140):
        text = findings_text((bad,), Look(width=width), source="a", destination="b")
        assert text.replace("\n", "").isprintable()


def test_as_json() -> None:
    found = json.loads(checks_json(Checks(exit_code=3, source="alpha", findings=(NO,))))
    assert (found["v"], found["exit_code"]) == (1, 3)
    assert found["findings"][0]["remedy"] == NO.remedy
