"""The table that settles a torn migration, over all that can be found."""

import itertools
from typing import Final

import pytest

from phaul.protocol.ownership import SourceOwner, SourceState
from phaul.protocol.settlement import Copy, Settlement, Source, Step, Tree, Verdict, settle

S: Final = SourceState

ALL: Final = [
    (source, copy, settle(source, copy))
    for source in (
        Source(state, tree, locked=locked, same_boot=same_boot)
        for state, tree, locked, same_boot in itertools.product(
            (None, *SourceState), Tree, (False, True), (False, True)
        )
    )
    for copy in Copy
]
KEPT: Final = (Copy.HELD, Copy.IMAGES)
OVER_THERE: Final = {Step.RESTORE, Step.COMMIT, Step.DISCARD}


def found(verdict: Verdict) -> list[tuple[Source, Copy, Settlement]]:
    return [one for one in ALL if one[2].verdict is verdict]


def test_it_is_never_both_let_go_here_and_there() -> None:
    for _, _, said in ALL:
        there = {Step.COMMIT, Step.RESTORE, Step.KILL_REST} & set(said.steps)
        assert not (there and {Step.RESUME, Step.DISCARD} & set(said.steps))


def test_commit_comes_after_the_last_task_is_gone() -> None:
    for source, _, said in ALL:
        if Step.COMMIT in said.steps and source.same_boot and source.tree is not Tree.GONE:
            assert said.steps.index(Step.KILL_REST) < said.steps.index(Step.COMMIT)


def test_what_needs_the_destination_is_not_done_unreached() -> None:
    for _, copy, said in ALL:
        if copy is Copy.UNREACHED:
            assert not OVER_THERE & set(said.steps)
            assert Step.KILL_REST not in said.steps


def test_the_steps_come_in_their_order_and_once() -> None:
    order = list(Step)
    for _, _, said in ALL:
        places = [order.index(step) for step in said.steps]
        assert places == sorted(set(places))
        assert said.why


def test_a_restored_copy_is_let_go() -> None:
    for _, copy, said in ALL:
        if Step.RESTORE in said.steps:
            assert copy in (Copy.IMAGES, Copy.UNSURE)
            assert said.steps[-1] is Step.COMMIT


@pytest.mark.parametrize("verdict", [Verdict.UNKNOWN, Verdict.LOST])
def test_nothing_is_done_where_it_is_not_known(verdict: Verdict) -> None:
    assert found(verdict)
    assert all(said.steps == () for _, _, said in found(verdict))


def test_there_is_there() -> None:
    for source, copy, said in found(Verdict.THERE):
        assert Step.RESUME not in said.steps
        if Step.DISCARD in said.steps:  # of what a power cut left of one that ran there
            assert source.state is S.THERE
            assert copy in (Copy.IMAGES, Copy.UNSURE)
        runs = copy is Copy.RUNNING or source.state is S.THERE
        assert runs or said.steps[-1] is Step.COMMIT


def test_here_there_is_something_alive() -> None:
    for source, _, said in found(Verdict.HERE):
        assert source.same_boot
        assert source.tree is not Tree.GONE
        assert said.steps[0] is Step.RESUME


def test_whoever_goes_on_here_brings_back_to_the_disk() -> None:
    for _, _, said in (*found(Verdict.HERE), *found(Verdict.ENDED)):
        assert said.steps[0] is Step.RESUME


def test_a_copy_that_was_let_go_is_never_beside_the_source() -> None:
    for _, copy, said in ALL:
        if copy in (Copy.RUNNING, Copy.UNSURE):
            assert said.verdict in (Verdict.THERE, Verdict.UNKNOWN)


def test_the_only_whole_copy_is_not_thrown_away() -> None:
    """With nothing whole here, it goes only where a second history would begin."""
    for source, copy, said in ALL:
        if copy in KEPT and Step.DISCARD in said.steps and source.tree is not Tree.WHOLE:
            may_have_run = not source.locked and source.state in (S.LOCKED, S.DECIDED)
            assert source.state in (S.BACK, S.THERE) or may_have_run


@pytest.mark.parametrize("copy", KEPT)
@pytest.mark.parametrize("state", [S.LOCKED, S.DECIDED])
@pytest.mark.parametrize("tree", [Tree.ROOT, Tree.PART, Tree.GONE])
def test_under_the_lock_a_tree_that_lost_a_task_lives_on_there(
    copy: Copy, state: SourceState, tree: Tree
) -> None:
    said = settle(Source(state, tree, locked=True), copy)
    assert said.verdict is Verdict.THERE


def test_without_the_lock_what_was_not_decided_is_the_source_s() -> None:
    for source, copy, said in ALL:
        if source.state is S.LOCKED and not source.locked:
            assert not {Step.COMMIT, Step.RESTORE, Step.KILL_REST} & set(said.steps)
            assert said.verdict is not Verdict.THERE, copy


def test_tasks_that_are_alive_although_they_were_gone_are_not_touched() -> None:
    for source, _, said in ALL:
        alive = source.same_boot and source.tree is not Tree.GONE
        if alive and source.state in (S.GONE, S.THERE):
            assert said.verdict is Verdict.UNKNOWN


def test_the_source_s_end_allows_what_is_to_be_done() -> None:
    for source, _, said in ALL:
        owner = SourceOwner(source.state or S.RUNNING)
        if Step.RESUME in said.steps and owner.state is not S.BACK:
            owner.back(whole=source.tree in (Tree.WHOLE, Tree.ROOT))
        if Step.COMMIT in said.steps:
            if owner.state is S.LOCKED:
                owner.decide()
            if owner.state is S.DECIDED:
                owner.gone()
            assert owner.may_commit
