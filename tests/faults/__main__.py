"""`python -m tests.faults`: at least a thousand faults, each judged; see `plan` for their texts.

python -m tests.faults [--seed N] [--cases N] [--case TEXT] [--lanes N]
"""

import argparse
import secrets
import sys
from collections.abc import Iterable
from typing import Any

from tests.faults.generate import cases
from tests.faults.plan import FaultPoint
from tests.faults.runner import Summary, be_interruptible, run


def main() -> int:
    """Run the cases; the status is 0 if the oracle has nothing to say against any."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--seed", type=int, default=None, help="the cases are chosen by it")
    parser.add_argument("--cases", type=int, default=1000, help="so many faults that happened")
    parser.add_argument("--case", action="append", default=[], help="this one, by its text")
    parser.add_argument("--lanes", type=int, default=5, help="so many beside each other")
    parser.add_argument("--verbose", action="store_true", help="a line for each case")
    words = parser.parse_args()
    be_interruptible()
    seed = words.seed if words.seed is not None else secrets.randbelow(1 << 31)
    chosen: Iterable[FaultPoint] = cases(seed)
    wanted, lanes = words.cases, words.lanes
    if words.case:
        chosen = [FaultPoint.parse(text) for text in words.case]
        wanted, lanes = len(words.case) + 1, min(lanes, len(words.case))
    else:
        print(f"seed {seed}", flush=True)

    def on_result(summary: Summary, result: dict[str, Any]) -> None:
        tell(summary, result, verbose=words.verbose or bool(words.case))

    try:
        summary = run(chosen, wanted, lanes, on_result)
    except (KeyboardInterrupt, SystemExit):
        print("interrupted; all that was started has ended", file=sys.stderr)
        return 130
    print("\n".join(summary.table()))
    rate = len(summary.results) / summary.seconds
    print(
        f"{len(summary.results)} cases in {summary.seconds:.0f} s, {rate:.1f} a second: "
        f"{summary.fired} faults happened, {len(summary.failed)} failed"
    )
    for result in summary.failed:
        print(f"\nmake faults CASE='{result['case']}'")
        print("\n".join(f"    {line}" for line in result["found"]))
    for text in summary.broken:
        print(f"\nbroken: {text}")
    enough = bool(words.case) or summary.fired >= wanted
    return 0 if enough and not summary.failed and not summary.broken else 1


def tell(summary: Summary, result: dict[str, Any], *, verbose: bool) -> None:
    """Say what came of a case."""
    if verbose or result["found"]:
        seen = result["seen"]
        print(
            f"{result['case']}: status {seen['status']}, ran {seen['first']}, "
            f"{seen['settlements']}, runs {seen['last']}, {result['seconds']} s"
            f"{'' if result['fired'] else ', NOT REACHED'}",
            flush=True,
        )
        for line in result["found"]:
            print(f"    {line}", flush=True)
        if result["found"] and verbose:
            for name, text in result["logs"].items():
                print(f"  {name}: {text}")
            print(f"  {result['said']}\n  {' '.join(result['steps'])}")
    if len(summary.results) % 50 == 0:
        failed, fired = len(summary.failed), summary.fired
        print(f"{len(summary.results)} cases, {fired} happened, {failed} failed", flush=True)


if __name__ == "__main__":
    sys.exit(main())
