"""Results that were never measured, for the tests of what is made of results."""

from bench.peers.results import Facts, Line, PlaceResults, Sample, Taken, gathered
from bench.peers.scenarios import Place, Scenario

__all__ = ["place_of", "taken"]


def taken(scenario: Scenario, contender: str, *samples: Sample) -> list[Line]:
    """The lines of a contender's turns."""
    return [
        Taken(scenario=scenario, turn=turn, contender=contender, sample=sample)
        for turn, sample in enumerate(samples, 1)
    ]


def place_of(place: Place, *lines: list[Line]) -> PlaceResults:
    """A place with these."""
    facts = Facts(facts={"CRIU": "4.2.1", "kernel": "<b>6.18</b>"})
    return gathered(place, [facts, *(line for some in lines for line in some)])
