"""The plan that follows from what preflight has measured.

Made on the source.  Pure.
"""

from phaul.plan.plan import Plan, Way
from phaul.plan.wishes import Wishes
from phaul.policy.prediction import ASSUMED_BANDWIDTH, Costs, expect_rounds, stop_and_copy

__all__ = ["make_plan"]

_MIB = 1 << 20


def make_plan(costs: Costs, wishes: Wishes, *, tracked: bool) -> Plan:
    """What is going to be done; `tracked` says whether the kernel tracks dirty memory."""
    because = [_bandwidth(costs), _restore(costs)]
    if tracked:
        rounds, seconds, downtime = expect_rounds(costs, wishes.max_downtime_s, wishes.max_rounds)
        because.insert(0, _dirty(costs))
        reason = "the memory is copied while the process runs, then only what is dirty"
    else:
        rounds = 0
        downtime = stop_and_copy(costs)
        seconds = downtime
        reason = "the source's kernel does not track dirty memory (soft-dirty)"
    if costs.shared_bytes >= _MIB:
        because.append(
            f"{costs.shared_bytes / _MIB:.1f} MiB of shared memory are sent while it is down"
        )
    return Plan(
        way=Way.PRE_COPY if tracked else Way.STOP_AND_COPY,
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


def _dirty(costs: Costs) -> str:
    if costs.dirty_rate is None:
        return "how fast it dirties its memory is not known yet"
    return f"it dirties {costs.dirty_rate / _MIB:.1f} MiB/s, measured"


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
