"""The plan, in four to six lines.

Said on the source after preflight, before anything is done.  Pure.
"""

from phaul.cli.render.look import PLAIN, Look, Row, labelled
from phaul.plan import Plan, Way
from phaul.report.units import duration, plural, rate, size

__all__ = ["plan_text"]


def plan_text(plan: Plan, look: Look = PLAIN, *, everything: bool = False) -> str:
    """`plan` in labelled lines; with `everything`, a line for each thing that it rests on."""
    way = plan.way.value
    if plan.reason:
        way += f": {plan.reason}"
    memory = size(plan.memory_bytes)
    if plan.shared_bytes:
        memory += f", of it {size(plan.shared_bytes)} shared, which only the final dump sends"
    speeds = f"dirties {rate(plan.dirty_rate)}" if plan.dirty_rate is not None else ""
    if plan.bandwidth > 0:
        speeds += (", " if speeds else "") + f"the way there takes {rate(plan.bandwidth)}"
    expected = [f"downtime about {duration(plan.downtime_s)}"]
    if plan.way not in (Way.STOP_AND_COPY, Way.POST_COPY):
        expected.insert(0, plural(plan.rounds, "round"))
    expected.append(f"about {duration(plan.seconds)} in all")
    rows: list[Row] = [
        ("plan", way, "bold"),
        ("memory", memory, "dim"),
        ("speed", speeds, "dim"),
        ("expected", ", ".join(expected), "dim"),
    ]
    if everything:
        rows += [("because" if i == 0 else "", line, "dim") for i, line in enumerate(plan.because)]
    else:
        rows.append(("because", "; ".join(plan.because), "dim"))
    return labelled(rows, look)
