"""The judgement of what can be judged on the source alone.

Made in preflight, on the source, from the survey of the tree.  Pure.  What CRIU does with each kind
of thing was read in its sources; each judge's docstring says where.
"""

from phaul.facts import Survey
from phaul.plan.catalogue import CHECKS
from phaul.plan.judges.descriptors import judge_descriptors
from phaul.plan.judges.files import judge_files
from phaul.plan.judges.sockets import judge_sockets
from phaul.plan.judges.system import judge_system
from phaul.plan.sourcecriu import SourceCriu
from phaul.plan.wishes import Wishes
from phaul.protocol.preflight import Finding

__all__ = ["judge"]

_ORDER = {name: number for number, name in enumerate(CHECKS)}


def judge(survey: Survey, wishes: Wishes, criu: SourceCriu) -> tuple[Finding, ...]:
    """The findings, in the order of the catalogue.

    One for each thing that is wrong or worth knowing, one that is ok for each check in which there
    is none.  Huge pages are judged by themselves (`judges.huge`), when it is known what they add to
    the rounds.  `wishes.allow` is not applied: a `no` stays one, and whoever decides looks there.
    """
    found = (
        *judge_files(survey),
        *judge_descriptors(survey),
        *judge_sockets(survey, wishes, criu),
        *judge_system(survey),
    )
    return tuple(sorted(found, key=lambda finding: _ORDER[finding.check]))
