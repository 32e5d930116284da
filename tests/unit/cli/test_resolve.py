"""`phaul resolve`, as another terminal sees a migration: what it says, what it does, its status."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from phaul.errors import ConnectFailed, OutcomeUnknown, RoundFailed
from phaul.incarnation import Incarnation
from phaul.protocol.ownership import SourceState
from phaul.storage.entry import State
from phaul.storage.journal import Journal, SourceRecord
from phaul.storage.registry import Handle, Registry
from phaul.transport.base import SourceEnd
from tests.unit.cli.conftest import DEAD, Phaul, Running, rewrite, write_journal

pytestmark = pytest.mark.usefixtures("registry", "no_leaks")
Begin = Callable[[], Handle]


class Unreachable:
    async def __aenter__(self) -> SourceEnd:
        raise ConnectFailed("no way leads there")

    async def __aexit__(self, *_error: object) -> None:
        """Nothing was opened."""


@pytest.fixture(autouse=True)
def targets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nobody is reached; the targets that were tried."""
    tried: list[str] = []

    def reach(target: str) -> Callable[[], Unreachable]:
        tried.append(target)
        return Unreachable

    monkeypatch.setattr("phaul.cli.resolve.reach", reach)
    return tried


def torn(handle: Handle, state: SourceState, victim: "subprocess.Popen[bytes]") -> Incarnation:
    """The phaul of this migration of `victim` died when its journal said `state`."""
    root = Incarnation.of(victim.pid)
    assert root is not None
    process = {"pid": root.pid, "start": root.start, "boot": root.boot}
    rewrite(handle, phaul=DEAD, process=process, state="cutover")
    write_journal(handle, state, (root,))
    return root


def test_nothing_to_settle(phaul: Phaul, begin: Begin, targets: list[str]) -> None:
    done, failed = begin(), begin()
    done.finish(b"{}", fate="runs on other, PID 7")
    failed.finish(RoundFailed("no", fate="still running here, PID 4242"))
    write_journal(failed, SourceState.BACK, settled=True)
    said = phaul("resolve", done.id)
    assert (said.status, said.out.split(", ")[0]) == (0, "nothing to settle")
    assert "runs on other, PID 7" in said.out
    said = phaul("resolve", failed.id)
    assert said.status == 0
    assert "still running here, PID 4242" in said.out
    assert targets == []


def test_one_that_is_under_way(phaul: Phaul, running: Running) -> None:
    for words in ((), ("--yes",)):
        said = phaul("resolve", running.handle.id, *words)
        assert said.status == 2
        assert f"phaul cancel {running.handle.id}" in said.err


def test_one_that_does_not_answer_is_ended_with_yes_only(phaul: Phaul, begin: Begin) -> None:
    handle = begin()  # this very process, which does not listen
    said = phaul("resolve", handle.id)
    assert said.status == 8
    assert "with --yes it is ended first" in said.out


def test_to_look_does_nothing(
    phaul: Phaul, begin: Begin, registry: Registry, victim: "subprocess.Popen[bytes]"
) -> None:
    handle = begin()
    torn(handle, SourceState.LOCKED, victim)
    before = registry.scan()
    said = phaul("resolve", handle.id)
    assert said.status == 8
    assert "here     all of it is still there; the journal says 'locked'" in said.out
    assert "to do    let it run on here" in said.out
    assert f"`phaul resolve {handle.id} --yes` does it" in said.out
    assert registry.scan() == before


def test_it_runs_on_here(
    phaul: Phaul,
    begin: Begin,
    registry: Registry,
    targets: list[str],
    victim: "subprocess.Popen[bytes]",
) -> None:
    handle = begin()
    torn(handle, SourceState.LOCKED, victim)
    said = phaul("resolve", handle.id, "--yes")
    assert said.status == 7
    assert f"still running here, PID {victim.pid}" in said.out
    assert "may hold a copy, which never runs: resolve again" in said.out
    record = Journal(handle.directory, SourceRecord).read()
    assert record is not None
    assert (record.state, record.settled) == (SourceState.BACK, False)
    entry = registry.find(handle.id)
    assert (entry.state, entry.exit_code) == (State.FAILED, 7)
    # The copy is still to be removed, by whatever way the other host is reached now.
    assert phaul("resolve", handle.id, "phaul://elsewhere:7", "--yes").status == 7
    assert targets == ["root@other", "phaul://elsewhere:7"]


def test_one_that_is_gone_is_not_guessed_at(
    phaul: Phaul, begin: Begin, registry: Registry, victim: "subprocess.Popen[bytes]"
) -> None:
    handle = begin()
    torn(handle, SourceState.DECIDED, victim)
    victim.kill()
    victim.wait()
    said = phaul("resolve", handle.id, "--yes")
    assert said.status == 8
    assert "no way leads there" in said.out
    assert "nothing was done: try again when root@other can be reached" in said.out
    assert registry.find(handle.id).state is State.UNKNOWN


def test_the_machine_has_started_anew(phaul: Phaul, begin: Begin) -> None:
    handle = begin()
    rewrite(handle, phaul=DEAD, state="cutover")
    other = Incarnation(pid=4242, start=1, boot="another")
    record = SourceRecord(
        id=handle.id, key="0" * 32, state=SourceState.GONE, root=other, tree=(other,)
    )
    Journal(handle.directory, SourceRecord).write(record, sync=False)
    said = phaul("resolve", handle.id)
    assert said.status == 8
    assert "this machine has started anew since" in said.out


def test_a_migration_that_is_unknown_without_a_journal(phaul: Phaul, begin: Begin) -> None:
    handle = begin()
    handle.finish(OutcomeUnknown("contact was lost"))
    assert f"PID {handle.entry.pid}" in phaul("resolve", handle.id).out


def test_for_programs(phaul: Phaul, begin: Begin, victim: "subprocess.Popen[bytes]") -> None:
    handle = begin()
    torn(handle, SourceState.LOCKED, victim)
    found = json.loads(phaul("resolve", handle.id, "--json").out)
    assert found["source"] == {
        "journal": "locked", "tree": "whole", "locked": False, "same_boot": True
    }  # fmt: skip
    assert (found["copy"], found["verdict"], found["done"]) == ("unreached", "here", False)
    assert (found["steps"], found["exit_code"]) == (["resume"], 8)
    found = json.loads(phaul("resolve", handle.id, "--yes", "--json").out)
    assert (found["done"], found["exit_code"]) == (True, 7)
    assert "0123456789abcdef" not in str(found)  # whoever has the key may settle


def test_names_cannot_command_the_terminal(
    phaul: Phaul, begin: Begin, victim: "subprocess.Popen[bytes]"
) -> None:
    handle = begin()
    torn(handle, SourceState.LOCKED, victim)
    rewrite(handle, name="\x1b[2Jx", target="a\rb", destination="")
    said = phaul("resolve", handle.id, "--yes")
    assert not {"\x1b", "\r"} & set(said.out + said.err)


def test_a_damaged_journal_settles_nothing(phaul: Phaul, begin: Begin, tmp_path: Path) -> None:
    handle = begin()
    rewrite(handle, phaul=DEAD, state="cutover")
    (handle.directory / "journal.json").write_text("{")
    said = phaul("resolve", handle.id, "--yes")
    assert said.status == 3
    assert "is damaged" in said.err
