"""tmp."""

from dataclasses import dataclass

from phaul.facts import Survey
from phaul.plan.wishes import Wishes


@dataclass(frozen=True)
class WantedOptions:
    tcp_established: bool = False
    file_locks: bool = False


def options_for(survey: Survey, wishes: Wishes) -> WantedOptions:
    return WantedOptions()
