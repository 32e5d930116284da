"""What the journal says of a migration whose phaul has died."""

import os
from pathlib import Path

import pytest

from phaul.incarnation import Incarnation
from phaul.protocol.ownership import SourceState
from phaul.storage.aftermath import after_death, is_open
from phaul.storage.entry import State
from phaul.storage.journal import NAME, Journal, SourceRecord


def write(
    folder: Path, state: SourceState, *, settled: bool = False, follows: bool = False
) -> None:
    root = Incarnation.of(os.getpid())
    assert root is not None
    record = SourceRecord(
        id="k3v9", key="0" * 32, state=state, root=root, settled=settled, follows=follows
    )
    Journal(folder, SourceRecord).write(record, sync=False)


S = SourceState


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (S.RUNNING, (State.FAILED, 7)),
        (S.FREEZING, (State.FAILED, 7)),
        (S.LOCKED, (State.UNKNOWN, 8)),
        (S.DECIDED, (State.UNKNOWN, 8)),
        (S.GONE, (State.UNKNOWN, 8)),
        (S.THERE, (State.DONE, 0)),
        (S.BACK, (State.FAILED, 7)),
    ],
)
def test_where_the_process_is(tmp_path: Path, state: SourceState, found: tuple[State, int]) -> None:
    write(tmp_path, state)
    assert after_death(tmp_path)[:2] == found
    assert is_open(tmp_path) is (state is not S.RUNNING)
    write(tmp_path, state, settled=True)
    assert after_death(tmp_path)[:2] == found
    assert not is_open(tmp_path)


def test_without_a_journal_it_never_came_so_far(tmp_path: Path) -> None:
    assert after_death(tmp_path)[:2] == (State.FAILED, 7)
    assert not is_open(tmp_path)


def test_a_damaged_one_is_never_taken_for_an_end(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("{")
    assert after_death(tmp_path)[:2] == (State.UNKNOWN, 8)
    assert is_open(tmp_path)


def test_one_whose_memory_followed_is_not_known_to_run_there(tmp_path: Path) -> None:
    write(tmp_path, S.THERE, follows=True)
    state, code, fate = after_death(tmp_path)
    assert (state, code) == (State.UNKNOWN, 8)
    assert "its memory followed" in fate
    write(tmp_path, S.THERE, follows=True, settled=True)
    assert after_death(tmp_path) == (State.DONE, 0, "")
