"""`list`, `status` and `cancel`, as another terminal sees a migration."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from phaul.cli.main import main
from phaul.errors import Cancelled, OutcomeUnknown, RoundFailed
from phaul.incarnation import Incarnation
from phaul.protocol.ownership import SourceState
from phaul.report import Round
from phaul.source import owed
from phaul.storage.aftermath import OWED
from phaul.storage.entry import State
from phaul.storage.registry import Handle, Registry
from phaul.subjects.slow import SlowedGroup
from tests.unit.cli.conftest import DEAD, Phaul, Running, rewrite, write_journal

pytestmark = pytest.mark.usefixtures("registry", "no_leaks")
Begin = Callable[[], Handle]


def a_round(number: int, predicted: float | None = 0.36) -> Round:
    return Round(
        number=number,
        pages=10_240,
        shared_pages=0,
        skipped_pages=0,
        frozen_s=0.01,
        seconds=0.5,
        dirty_rate=9.5 * (1 << 20),
        predicted_downtime_s=predicted,
    )


def test_no_migrations(phaul: Phaul) -> None:
    said = phaul("list")
    assert (said.status, said.out) == (0, "")
    assert said.err == "no migrations on this machine yet\n"
    assert json.loads(phaul("list", "--json").out) == {
        "version": 1,
        "migrations": [],
        "incoming": [],
        "damaged": [],
    }
    for verb in (["status"], ["status", "k3v9"], ["cancel", "last"], ["resolve", "k3v9"]):
        said = phaul(*verb)
        assert said.status == 2
        assert said.err.startswith("error     there is no migration")


def test_to_look_makes_no_directory(
    phaul: Phaul, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHAUL_STATE", str(tmp_path / "other"))
    assert phaul("list").status == 0
    assert not (tmp_path / "other").exists()


def test_list(phaul: Phaul, begin: Begin) -> None:
    first, second = begin(), begin()
    first.finish(b"{}")
    rewrite(first, started_unix=0.0)
    second.update(state=State.PRE_COPY, rounds=[a_round(0), a_round(1)])
    said = phaul("list")
    head, *rows = said.out.splitlines()
    assert (said.status, said.err) == (0, "")
    assert head.split() == ["ID", "STATE", "PROCESS", "TARGET", "STARTED", "DOWNTIME"]
    assert [row.split()[:2] for row in rows] == [[second.id, "pre-copy"], [first.id, "done"]]
    whole = json.loads(phaul("list", "--json").out)
    assert [m["id"] for m in whole["migrations"]] == [second.id, first.id]
    assert whole["migrations"][0]["rounds"][1]["sent_bytes"] == 40 << 20


def test_list_leaves_out_what_is_long_over(phaul: Phaul, begin: Begin) -> None:
    handles = [begin() for _ in range(14)]
    for age, handle in enumerate(handles):
        error = OutcomeUnknown("?") if age == 0 else Cancelled("cancelled")
        if age != 1:
            handle.finish(error)
        rewrite(handle, started_unix=float(age))
    said = phaul("list")
    shown = [row.split()[0] for row in said.out.splitlines()[1:]]
    assert shown == [h.id for h in reversed(handles[4:])] + [handles[1].id, handles[0].id]
    assert said.err == "2 older not shown: `phaul list --all`\n"
    assert len(phaul("list", "--all").out.splitlines()) == 15


def test_list_with_damaged_ones(phaul: Phaul, begin: Begin) -> None:
    good, bad = begin(), begin()
    (bad.directory / "entry.json").write_text("{")
    said = phaul("list")
    assert (said.status, len(said.out.splitlines())) == (0, 2)
    assert good.id in said.out
    assert said.err.startswith(f"{bad.id}: its entry is damaged: ")
    assert json.loads(phaul("list", "--json").out)["damaged"][0]["id"] == bad.id


def test_a_name_cannot_command_the_terminal(phaul: Phaul, begin: Begin) -> None:
    handle = begin()
    rewrite(handle, name="\x1b[2Jx\ny", error="\x1b]0;x\x07", state="failed", fate="a\rb")
    for verb in (["list"], ["status"], ["resolve", handle.id], ["cancel", handle.id]):
        said = phaul(*verb)
        assert not {"\x1b", "\r", "\x07"} & set(said.out + said.err)
    assert "?[2Jx y" in phaul("list").out


def test_an_unsafe_state_directory_is_refused(phaul: Phaul, tmp_path: Path) -> None:
    (tmp_path / "state").chmod(0o777)
    said = phaul("list")
    assert said.status == 3
    assert "can be written by others" in said.err


def test_status_of_a_running_one(phaul: Phaul, running: Running) -> None:
    running.handle.update(rounds=[a_round(0), a_round(1, 0.2)], destination="dst")
    said = phaul("status")
    assert said.status == 0
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert lines[0].startswith(f"migration {running.handle.id}: victim, PID ")
    assert lines[0].endswith("to dst")
    rounds = [line for line in lines if line.startswith("round")]
    assert rounds[0] == "round 0 40.0 MiB 80.0 MiB/s dirtied 9.5 MiB/s downtime now about 360 ms"
    assert rounds[1].endswith("downtime now about 200 ms")
    assert rounds[2] == "round 1 5.0 MiB of 10.0 MiB, 10.0 MiB/s"
    assert any(line.startswith("state pre-copy") for line in lines)
    assert any(line.endswith("to be at most 300 ms") for line in lines)
    found = json.loads(phaul("status", running.handle.id[:3], "--json").out)
    assert (found["v"], found["id"]) == (1, running.handle.id)
    assert (found["round"], found["round_sent_bytes"]) == (1, 5 << 20)


def test_status_sets_the_downtime(phaul: Phaul, running: Running) -> None:
    said = phaul("status", running.handle.id, "--set", "max-downtime=1.5s")
    assert (said.status, running.max_downtime_s) == (0, 1.5)
    assert "to be at most 1.50 s" in said.out


@pytest.mark.parametrize(
    "change", ["max-downtime", "max-downtime=", "max-downtime=3", "timeout=1s", "=", "a=b=c"]
)
def test_status_sets_nothing_else(phaul: Phaul, running: Running, change: str) -> None:
    said = phaul("status", "--set", change)
    assert said.status == 2
    assert "--set max-downtime=1s" in said.err
    assert running.max_downtime_s == 0.3


def test_status_of_one_that_does_not_answer(phaul: Phaul, begin: Begin) -> None:
    handle = begin()
    said = phaul("status", handle.id)
    assert said.status == 0
    assert "connecting" in said.out
    assert "does not answer" in said.out
    said = phaul("status", handle.id, "--set", "max-downtime=1s")
    assert said.status == 4


def test_status_of_one_that_failed(phaul: Phaul, begin: Begin) -> None:
    handle = begin()
    handle.finish(RoundFailed("round 2 failed", fate="still running here, PID 4242"))
    said = phaul("status")
    assert said.status == 0
    assert [line.split(maxsplit=1) for line in said.out.splitlines()[-2:]] == [
        ["error", "round 2 failed"],
        ["process", "still running here, PID 4242"],
    ]
    said = phaul("status", "--set", "max-downtime=1s")
    assert said.status == 2
    assert "is over (failed)" in said.err


def test_status_of_one_whose_phaul_died(phaul: Phaul, begin: Begin) -> None:
    handle = begin()
    handle.update(state=State.CUTOVER)
    write_journal(handle, SourceState.LOCKED)
    rewrite(handle, phaul=DEAD)
    said = phaul("status")
    assert "its phaul, PID 1, died in the state 'cutover'" in said.out
    assert f"`phaul resolve {handle.id}`" in said.out
    assert f"still running here, PID {handle.entry.pid}" in said.out


def test_one_whose_phaul_died_before_the_cutover_has_failed(phaul: Phaul, begin: Begin) -> None:
    handle = begin()
    handle.update(state=State.PRE_COPY)
    write_journal(handle, SourceState.RUNNING)
    rewrite(handle, phaul=DEAD)
    said = phaul("status")
    assert "failed" in said.out
    assert f"still running here, PID {handle.entry.pid}" in said.out
    assert "resolve" not in said.out
    assert phaul("cancel", handle.id).status == 7


@pytest.mark.parametrize("as_json", [True, False])
def test_follow_ends_with_the_migration(phaul: Phaul, begin: Begin, as_json: bool) -> None:
    handle = begin()
    handle.update(state=State.PRE_COPY, rounds=[a_round(0)])

    def go_on() -> None:
        handle.update(rounds=[a_round(0), a_round(1)])
        handle.update(state=State.CUTOVER)
        handle.finish(Cancelled("cancelled", fate="still running here, PID 4242"))

    timer = threading.Timer(0.5, go_on)
    timer.start()
    said = phaul("status", "--follow", *(["--json"] if as_json else []))
    timer.join()
    assert said.status == 130
    lines = said.out.splitlines()
    if as_json:
        assert json.loads(lines[-1])["phase"] == "cancelled"
        return
    assert [line.split()[:2] for line in lines if line.startswith("round")] == [
        ["round", "0"],
        ["round", "1"],
    ]
    assert lines[-1].split(maxsplit=1) == ["process", "still running here, PID 4242"]


def test_ctrl_c_ends_the_following_only(
    phaul: Phaul, running: Running, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ctrl_c(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("phaul.cli.migrations.time.sleep", ctrl_c)
    said = phaul("status", "-f")
    assert said.status == 130
    assert said.err == f"{running.handle.id} goes on: `phaul cancel {running.handle.id}` ends it\n"
    assert not registry.find(running.handle.id).over


def test_cancel(phaul: Phaul, running: Running) -> None:
    said = phaul("cancel", running.handle.id)
    assert said.status == 130
    assert said.out == "cancelled; still running here, PID 4242\n"
    again = phaul("cancel", running.handle.id)
    assert (again.status, again.out) == (130, said.out)
    assert "is over already" in again.err


def test_cancel_that_comes_too_late(phaul: Phaul, running: Running) -> None:
    running.late = True
    said = phaul("cancel", "last")
    assert said.status == 0
    assert "too late" in said.err
    assert said.out == "done; runs on other, PID 7\n"


def test_cancel_of_one_that_has_only_begun(phaul: Phaul, begin: Begin) -> None:
    handle = begin()
    timer = threading.Timer(0.3, handle.finish, [RoundFailed("no", fate="here")])
    timer.start()
    said = phaul("cancel", handle.id)
    timer.join()
    assert said.status == 7
    assert said.out.endswith("; here\n")


def test_cancel_does_not_wait_for_ever(phaul: Phaul, begin: Begin) -> None:
    said = phaul("cancel", begin().id, "--wait", "1ms")
    assert said.status == 4


def test_one_that_takes_the_cancel_and_goes_on(
    phaul: Phaul, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "cancel", lambda: True)
    said = phaul("cancel", running.handle.id, "--wait", "300ms")
    assert said.status == 8
    assert "has not ended within 0.3 s" in said.err


def test_cancel_of_one_whose_phaul_died(phaul: Phaul, begin: Begin) -> None:
    handle = begin()
    write_journal(handle, SourceState.DECIDED)
    rewrite(handle, phaul=DEAD)
    said = phaul("cancel", handle.id)
    assert said.status == 8
    assert "phaul resolve" in said.err


def test_ids_are_completed(
    begin: Begin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = begin()
    for words in (f"phaul cancel {handle.id[:2]}", "phaul compl"):
        monkeypatch.setenv("_PHAUL_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        with pytest.raises(SystemExit):
            main([])
    assert capsys.readouterr().out.splitlines() == [f"plain,{handle.id}", "plain,completion"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(phaul: Phaul, shell: str) -> None:
    said = phaul("completion", shell)
    assert said.status == 0
    assert "_PHAUL_COMPLETE" in said.out
    assert phaul("completion", "tcsh").status == 2


@pytest.mark.parametrize("verb", [["list"], ["status"], ["resolve", "last"]])
def test_what_a_dead_phaul_has_left_slow_is_given_back(
    phaul: Phaul, begin: Begin, monkeypatch: pytest.MonkeyPatch, verb: list[str]
) -> None:
    given: list[Path] = []
    handle = begin()
    handle.finish(RoundFailed("x"))
    file = handle.directory / OWED
    file.touch()

    def give_back(left: Path) -> owed.Owed:
        given.append(left)
        left.unlink()
        me = Incarnation.of(os.getpid())
        assert me is not None
        group = SlowedGroup(group="/unit", home="/unit", before="max 100000")
        return owed.Owed(phaul=me, groups=(group,), khugepaged_ms=10_000)

    monkeypatch.setattr(owed, "give_back_left", give_back)
    said = phaul(*verb)
    assert given == [file]
    assert f"{handle.id}: its phaul died while the process was slowed down" in said.err
    assert f"{handle.id}: its phaul died while khugepaged waited for it; it goes on" in said.err
    assert "CPU time back" not in phaul(*verb).err


def test_what_is_damaged_of_it_is_said_and_no_more(phaul: Phaul, begin: Begin) -> None:
    handle = begin()
    handle.finish(RoundFailed("x"))
    (handle.directory / OWED).write_text("{")
    said = phaul("list")
    assert said.status == 0
    assert handle.id in said.out
    assert "owed.json cannot be read" in said.err
