"""The plan that follows from what preflight has measured.

Made on the source.  Pure.
"""

from typing import Final

from phaul.facts import AMPLIFIED
from phaul.plan.plan import Plan, Way
from phaul.plan.wishes import OnTimeout, Wishes
from phaul.policy.prediction import (
    ASSUMED_BANDWIDTH,
    Costs,
    expect_rounds,
    post_copy,
    stop_and_copy,
)

__all__ = ["make_plan"]

_MIB = 1 << 20
BOTH_NEEDED: Final = (
    "until the last page is there both hosts are needed: a source that is lost loses the process"
)


def make_plan(
    costs: Costs,
    wishes: Wishes,
    *,
    tracked: bool,
    leaves_all: bool = False,
    splits: int | None = None,
    times: float | None = None,
) -> Plan:
    """What is going to be done; `tracked` says whether the kernel tracks dirty memory.

    With `leaves_all` there are no rounds: the process moves first.  `splits` are the bytes in huge
    pages that are going to be split, None if none are; `times` is about how many times as much of
    what is in huge pages is dirtied as is written.
    """
    because = [_bandwidth(costs), _restore(costs)]
    if leaves_all:
        way, rounds = Way.POST_COPY, 0
        downtime = post_copy(costs)
        seconds = downtime + costs.memory_bytes / max(costs.bandwidth, 1.0)
        reason = "the process moves first, its memory follows when it runs there"
        because[-1] = BOTH_NEEDED
    elif tracked:
        way = Way.PRE_COPY
        rounds, seconds, downtime = expect_rounds(costs, wishes.max_downtime_s, wishes.max_rounds)
        because.insert(0, _dirty(costs, splits, times))
        if splits is not None:
            because.insert(1, _SPLITS.format(splits / _MIB))
        reason = "the memory is copied while the process runs, then only what is dirty"
        if wishes.on_timeout is OnTimeout.POSTCOPY:
            because.append(f"if the rounds do not lead there, the rest follows: {BOTH_NEEDED}")
    else:
        way, rounds = Way.STOP_AND_COPY, 0
        downtime = stop_and_copy(costs)
        seconds = downtime
        reason = "the source's kernel does not track dirty memory (soft-dirty)"
    if costs.shared_bytes >= _MIB:
        because.append(
            f"{costs.shared_bytes / _MIB:.1f} MiB of shared memory are sent while it is down"
        )
    return Plan(
        way=way,
        reason=reason,
        memory_bytes=costs.memory_bytes,
        shared_bytes=costs.shared_bytes,
        dirty_rate=costs.dirty_rate,
        bandwidth=costs.bandwidth,
        rounds=rounds,
        seconds=seconds,
        downtime_s=downtime,
        because=tuple(because),
    )


_SPLITS: Final = (
    "{:.1f} MiB of huge pages are split before the first round; until the end khugepaged, which "
    "puts pages together, waits, on the whole machine"
)


def _dirty(costs: Costs, splits: int | None, times: float | None) -> str:
    if costs.dirty_rate is None:
        return "how fast it dirties its memory is not known yet"
    said = f"it dirties {costs.dirty_rate / _MIB:.1f} MiB/s, measured"
    if times is None or times < AMPLIFIED:
        return said
    if splits is not None:
        return f"{said}, when its huge pages are split"
    return f"{said}; huge pages count whole, about {times:.0f} times what is written to them"


def _bandwidth(costs: Costs) -> str:
    how = "assumed" if costs.bandwidth == ASSUMED_BANDWIDTH else "as it was the last time"
    return f"{costs.bandwidth / _MIB:.0f} MiB/s to the destination, {how}"


def _restore(costs: Costs) -> str:
    if costs.restores_lazily:
        return (
            f"{costs.memory_bytes / _MIB:.1f} MiB are restored when it runs there, "
            f"instead of {costs.full_restore_s * 1e3:.0f} ms while it is down"
        )
    return (
        f"the restore reads all {costs.memory_bytes / _MIB:.1f} MiB while it is down, "
        f"{costs.restore_s * 1e3:.0f} ms over there"
    )
