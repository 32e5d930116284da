"""The steps of a migration by stop and copy, in their order, and which processes are there then.

Pure.  A lane's first case shows whether they still are these (see `Lane.steps_changed`).
"""

from typing import Final

__all__ = ["ASKED", "SETTLEMENT", "TIMELINE", "steps_of"]

_NAMES: Final = """
event/connecting
ask/hello answer/hello
event/connected
ask/clock answer/clock ask/survey answer/survey
event/checked event/planned
ask/prepare answer/prepare
event/started event/pre-copy-stopped
ask/start-round criu/pages/request criu/pages/answer criu/pages/wait answer/start-round
event/cutover-started
criu/dump/request criu/dump/pre-dump criu/dump/query-ext-files criu/dump/post-dump
ask/stop-round criu/pages/ended answer/stop-round
event/held
ask/image ask/image#5
ask/restore criu/restore/request criu/restore/pre-restore criu/restore/post-restore answer/restore
criu/dump/released criu/dump/answer
event/source-gone
ask/release criu/restore/released criu/restore/pre-resume criu/restore/post-resume
criu/restore/answer answer/release
event/running
ask/bye answer/bye
event/finished
"""
ASKED: Final = tuple(name for name in _NAMES.split() if name.startswith("ask/"))
"""The messages of the source."""


def _both_sides(name: str) -> tuple[str, ...]:
    return (f"{name}-", f"{name}+") if name.startswith(("ask/", "answer/")) else (name,)


TIMELINE: Final = tuple(step for name in _NAMES.split() for step in _both_sides(name))
"""All steps; a message has one before and one after it is passed on."""

_LIVES: Final = {
    "source": ("event/connecting", "event/finished"),
    "agent": ("ask/hello-", "answer/bye-"),
    "pages": ("criu/pages/request", "criu/pages/ended"),
    "dump": ("criu/dump/request", "criu/dump/answer"),
    "restore": ("criu/restore/request", "criu/restore/answer"),
}

SETTLEMENT: Final[tuple[str, ...]] = ()
"""The steps of a settlement that a second fault may come at."""


def steps_of(role: str) -> tuple[str, ...]:
    """The steps at which a process in that role is there."""
    first, last = _LIVES[role]
    return TIMELINE[TIMELINE.index(first) : TIMELINE.index(last) + 1]
