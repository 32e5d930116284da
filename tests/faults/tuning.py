"""The code under test with shorter waits, so that a fault is noticed in seconds.

Applied once in each zygote.  What is no parameter yet is set where it stands.
"""

import importlib
from typing import Final

from phaul.config import Timeouts

__all__ = ["SILENCE_S", "apply"]

SILENCE_S: Final = 2.0
"""The control channel's silence, a parameter of both its ends."""

_CONSTANTS: Final = {
    "phaul.cli.resolve": {"_ANSWER_S": 1.0, "_END_S": 4.0},
    "phaul.source.migration": {"_ASK_S": 5.0, "_LEAVE_S": 3.0, "_GLANCE_S": 0.01},
    "phaul.source.parting": {"_LEAVE_S": 3.0, "_AGAIN_S": 0.3},
    "phaul.source.introduction": {"_HELLO_S": 5.0},
    "phaul.source.preflight": {"_ASK_S": 5.0},
    "phaul.source.resolution": {"_HELLO_S": 5.0, "_ASK_S": 6.0, "_LET_GO_S": 2.0},
    "phaul.source.ownership": {"_GONE_S": 5.0},
    "phaul.destination.agent": {"_MEMORY_S": 3.0},
    "phaul.destination.cage": {"_WAIT_S": 3.0},
    "phaul.destination.custody": {"_TALK_S": 2.0},
    "phaul.destination.memory": {"_ASK_S": 3.0, "_END_S": 3.0},
    "phaul.destination.leftovers": {"_BY_ITSELF_S": 1.0},
    "phaul.destination.ending": {"_KILL_S": 3.0},
    "phaul.destination.settling": {
        "_PATIENCE_S": 1.5,
        "_WORK_S": 6.0,
        "_FENCE_S": 3.0,
        "_CRIU_S": 3.0,
    },
    "phaul.transport.answering": {"_FIRST_S": 3.0},
    "phaul.subjects.apart": {"_WAIT_S": 3.0},
    "phaul.criu.swrk": {"_END_GRACE_S": 1.5},
    "phaul.criu.operation": {"_REFUSED_S": 4.0},
    "phaul.criu.engine": {"_QUERY_S": 4.0},
}
_TIMEOUTS: Final = {
    "round": 5.0, "dump": 5.0, "page_server": 4.0, "restore": 5.0, "finish": 4.0,
}  # fmt: skip


def apply() -> None:
    """Set them; raises AttributeError for one that is no longer there."""
    for name, values in _CONSTANTS.items():
        module = importlib.import_module(name)
        for constant, value in values.items():
            getattr(module, constant)
            setattr(module, constant, value)
    fields = Timeouts.__dataclass_fields__
    init = Timeouts.__init__
    init.__defaults__ = tuple(_TIMEOUTS.get(name, field.default) for name, field in fields.items())
