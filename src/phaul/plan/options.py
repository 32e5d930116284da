"""Which of CRIU's options a tree needs, by CRIU's names.

Made on the source, after the survey, for both ends: the restore needs the same.  Pure.
"""

from dataclasses import dataclass

from phaul.facts import Fate, Survey
from phaul.plan.judges.files import GHOST_LIMIT, MOST_GHOST
from phaul.plan.wishes import Tcp, Wishes

__all__ = ["WantedOptions", "options_for"]


@dataclass(frozen=True)
class WantedOptions:
    """The options that follow from the tree and the wishes; `ghost_limit` None is CRIU's default.

    `ext_unix_sk` is never among them: it restores a socket whose other end is not there.
    """

    shell_job: bool = False
    tcp_established: bool = False
    tcp_close: bool = False
    tcp_skip_in_flight: bool = False
    file_locks: bool = True
    link_remap: bool = False
    ghost_limit: int | None = None


def options_for(survey: Survey, wishes: Wishes) -> WantedOptions:
    """The options for this tree.

    What may still change until the cutover is asked for in any case: locks may be taken, and
    connections made.  The ghost limit is raised, with room to grow, only where `unlinked` is
    allowed.
    """
    largest = max((f.disk for f in survey.files if f.fate is Fate.UNLINKED), default=0)
    raise_limit = largest > GHOST_LIMIT and "unlinked" in wishes.allow
    return WantedOptions(
        shell_job=survey.joins_session,
        tcp_established=wishes.tcp is Tcp.KEEP,
        tcp_close=wishes.tcp is Tcp.CLOSE,
        # What is not accepted yet is refused with the rest; who keeps connections keeps all.
        tcp_skip_in_flight=wishes.tcp is Tcp.CLOSE,
        link_remap=any(f.fate is Fate.ELSEWHERE for f in survey.files),
        ghost_limit=min(2 * largest, MOST_GHOST) if raise_limit else None,
    )
