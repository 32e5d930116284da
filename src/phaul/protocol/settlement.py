"""What is to be done about a migration that was torn apart, from what was found on both hosts.

Used by `phaul resolve`, and by a source whose last word found no answer.  Pure: `settle` is a
table.  It rests on three things that the two ends keep (see `phaul.protocol.ownership`): Commit is
sent only after the last task is gone from the source; the source's tree runs again only after BACK
is on the disk; a copy that was READY ends only by the source's word.  So:

    the tree is still whole on the source    nobody can have been told to run the copy:
                                             it is resumed here, the copy discarded
    it was decided, and the root is gone     the rest is killed, the copy released, or restored
    it never came so far, or BACK            it is the source's, alive or not: the copy is discarded

Whatever would contradict that is not acted upon.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from phaul.protocol.ownership import DestinationState, SourceState

__all__ = ["Copy", "Settlement", "Source", "Step", "Tree", "Verdict", "copy_of", "settle"]


class Tree(Enum):
    """What is left of the tree on the source: of the very processes that were frozen."""

    WHOLE = "whole"
    ROOT = "root"
    """The root and a part of the others."""
    PART = "part"
    """Not the root."""
    GONE = "gone"


class Copy(Enum):
    """What was found on the destination."""

    UNREACHED = "unreached"
    NOTHING = "nothing"
    BEGUN = "begun"
    """What a destination gives up by itself; it was not Ready."""
    HELD = "held"
    IMAGES = "images"
    UNSURE = "unsure"
    """It was let go, but nobody saw it run, and it is not there; its images are."""
    RUNNING = "running"


def copy_of(state: DestinationState, *, unsure: bool) -> Copy:
    """What a destination that lives has, in this state; `unsure` if it may have run."""
    match state:
        case DestinationState.RECEIVING | DestinationState.RESTORING:
            return Copy.BEGUN
        case DestinationState.READY | DestinationState.RELEASING:
            # One that is being let go may still fail to; to be told so again waits for that.
            return Copy.HELD
        case DestinationState.IMAGES | DestinationState.AGAIN:
            return Copy.UNSURE if unsure else Copy.IMAGES
        case DestinationState.DISCARDED:
            return Copy.NOTHING
        case _:
            return Copy.RUNNING


class Step(Enum):
    """What is to be done, in this order."""

    RESUME = "resume"
    """Write BACK, also where it stands already; on the disk, give the second lock back."""
    KILL_REST = "kill-rest"
    RESTORE = "restore"
    COMMIT = "commit"
    DISCARD = "discard"


class Verdict(Enum):
    """Where the process is after these steps."""

    HERE = "here"
    THERE = "there"
    ENDED = "ended"
    """On the source, by itself or with its machine, while it was the source's."""
    LOST = "lost"
    UNKNOWN = "unknown"
    """Nothing may be done before the destination is asked, or what was found is impossible."""


@dataclass(frozen=True)
class Source:
    """What was found on the source.

    `locked` says that the second lock was taken; `same_boot` that the machine has not started anew
    since then.  `state` is None without a journal.
    """

    state: SourceState | None
    tree: Tree
    locked: bool = False
    same_boot: bool = True


@dataclass(frozen=True)
class Settlement:
    """Steps, where they lead, and `why`, for a person."""

    verdict: Verdict
    steps: tuple[Step, ...]
    why: str


_OWN: Final = {None, SourceState.RUNNING, SourceState.FREEZING, SourceState.BACK}
_RAN: Final = {Copy.RUNNING, Copy.UNSURE}


def settle(source: Source, copy: Copy) -> Settlement:
    """What to do; the steps that need the destination are there only if it was reached."""
    if against := _contradiction(source, copy):
        return Settlement(Verdict.UNKNOWN, (), against)
    if source.state is SourceState.THERE:
        why = "the destination has said that it runs there"
        if copy in (Copy.IMAGES, Copy.UNSURE):
            # Its machine lost power before it had that on the disk: who ran there ended with it.
            return Settlement(Verdict.THERE, (Step.DISCARD,), f"{why}; what it kept is not needed")
        return Settlement(Verdict.THERE, (), why)
    if _is_source_s(source):
        return _ours(source, copy)
    return _theirs(source, copy)


def _contradiction(source: Source, copy: Copy) -> str:
    """What cannot be where both ends kept to the rules; "" if there is nothing of the kind."""
    alive = source.same_boot and source.tree is not Tree.GONE
    if source.state in (SourceState.GONE, SourceState.THERE) and alive:
        return f"the source was {_word(source)}, and yet tasks of it are alive"
    if _is_source_s(source) and copy in _RAN:
        return f"the source was {_word(source)} and never sent Commit, and yet the copy was let go"
    early = source.state in _OWN and source.state is not SourceState.BACK
    if early and source.tree is not Tree.WHOLE and copy in (Copy.HELD, Copy.IMAGES):
        return f"the source was {_word(source)} and never asked for a copy, and yet there is one"
    return ""


def _is_source_s(source: Source) -> bool:
    """Whether the process is, or was until it ended, the source's."""
    if source.state in _OWN:
        return True
    if source.state is SourceState.GONE:
        return False
    if source.locked:
        # None of it has run since the dump: what is missing was killed as it stood still.
        return source.same_boot and source.tree is Tree.WHOLE
    if source.state is SourceState.LOCKED:
        # It was not decided, and may have run since CRIU let it go, to its end even.
        return True
    # CRIU kills the root first: with the root alive it has killed none, and let all go since.
    return source.same_boot and source.tree in (Tree.WHOLE, Tree.ROOT)


def _ours(source: Source, copy: Copy) -> Settlement:
    if source.tree is Tree.GONE or not source.same_boot:
        verdict = Verdict.ENDED
        why = "it ended on the source, whose it was"
        if not source.same_boot:
            why = "it ended with the source's machine, before it was handed over"
    else:
        verdict = Verdict.HERE
        why = "it is the source's: the copy cannot have been told to run"
    # Also where BACK is read: who wrote it may have died before it was on the disk.
    drop = (Step.DISCARD,) if copy in (Copy.BEGUN, Copy.HELD, Copy.IMAGES) else ()
    return Settlement(verdict, (Step.RESUME, *drop), why)


def _theirs(source: Source, copy: Copy) -> Settlement:
    rest = (Step.KILL_REST,) if source.same_boot and source.tree is not Tree.GONE else ()
    said = f"it was {_word(source)}, and is gone from the source"
    match copy:
        case Copy.UNREACHED:
            return Settlement(Verdict.UNKNOWN, (), f"{said}; the destination has to be asked")
        case Copy.RUNNING:
            return Settlement(Verdict.THERE, rest, f"{said}; the copy runs")
        case Copy.HELD:
            return Settlement(Verdict.THERE, (*rest, Step.COMMIT), f"{said}; the copy is held")
        case Copy.IMAGES | Copy.UNSURE:
            kept = "its images are kept"
            if copy is Copy.UNSURE:
                kept = "the copy was let go and is not there: it may have run for a moment"
            return Settlement(Verdict.THERE, (*rest, Step.RESTORE, Step.COMMIT), f"{said}; {kept}")
        case _ if source.state is SourceState.LOCKED:
            # Never Ready, so never decided: what is left of it here is the source's.
            drop = (Step.DISCARD,) if copy is Copy.BEGUN else ()
            if rest:
                return Settlement(
                    Verdict.HERE, (Step.RESUME, *drop), "a part of it was killed before that"
                )
            return Settlement(
                Verdict.ENDED, (Step.RESUME, *drop), "it ended before there was a copy"
            )
        case _:
            return Settlement(Verdict.LOST, (), f"{said}; nothing of it is on the destination")


def _word(source: Source) -> str:
    return source.state.value if source.state is not None else "never written down"
