"""The steps of a migration by stop and copy, in their order, and which processes are there then.

Pure.  A lane's first case shows whether they still are these (see `Lane.steps_changed`).
"""

from typing import Final

__all__ = ["ASKED", "SETTLEMENT", "TIMELINE", "UNSETTLED", "steps_of"]

_NAMES: Final = """
event/connecting
ask/hello answer/hello
event/connected
ask/clock answer/clock ask/survey answer/survey
event/checked event/planned
journal/source/running
ask/prepare journal/destination/receiving answer/prepare
event/started event/pre-copy-stopped
ask/start-round answer/start-round
event/cutover-started
criu/dump/request criu/dump/pre-dump criu/dump/query-ext-files criu/dump/post-dump
ask/stop-round answer/stop-round
journal/source/locked
event/held
ask/image ask/image#5
ask/restore memory/ready criu/restore/request criu/restore/pre-restore criu/restore/post-restore
memory/guard journal/destination/ready journal/destination/ready#2 answer/restore
journal/source/decided
event/source-gone
ask/commit journal/destination/releasing
criu/restore/released criu/restore/pre-resume criu/restore/post-resume criu/restore/answer
journal/destination/running answer/commit
journal/source/there
criu/dump/released criu/dump/answer
event/running
ask/drain answer/drain
event/drained
ask/bye answer/bye
journal/source/there#2
event/finished
"""
ASKED: Final = tuple(name for name in _NAMES.split() if name.startswith("ask/"))
"""The messages of the source."""


def _both_sides(name: str) -> tuple[str, ...]:
    double = name.startswith(("ask/", "answer/", "journal/"))
    return (f"{name}-", f"{name}+") if double else (name,)


TIMELINE: Final = tuple(step for name in _NAMES.split() for step in _both_sides(name))
"""All steps; a message has one before and one after it is passed on, a record as it is written."""

UNSETTLED: Final = TIMELINE[TIMELINE.index("journal/source/locked+") :]
"""From here on a phaul that dies leaves something to be settled."""

_LIVES: Final = {
    "source": ("event/connecting", "event/finished"),
    "agent": ("ask/hello-", "answer/bye-"),
    "dump": ("criu/dump/request", "criu/dump/answer"),
    "restore": ("criu/restore/request", "criu/restore/answer"),
    "keeper": ("memory/ready", "journal/source/decided+"),  # soon after, its end is the process's
}

_SETTLEMENT: Final = """
ask/hello answer/hello
ask/ask answer/ask
ask/recover criu/restore/request criu/restore/post-restore journal/destination/ready answer/recover
journal/source/gone
ask/commit journal/destination/releasing criu/restore/released answer/commit
journal/source/back
ask/discard answer/discard
journal/source/there
ask/bye answer/bye
"""
SETTLEMENT: Final = tuple(
    f"settle/{step}" for name in _SETTLEMENT.split() for step in _both_sides(name)
)
"""The steps of a settlement that a second fault may come at; each takes some of them."""


def steps_of(role: str) -> tuple[str, ...]:
    """The steps at which a process in that role is there."""
    first, last = _LIVES[role]
    return TIMELINE[TIMELINE.index(first) : TIMELINE.index(last) + 1]
