"""Compares the rules of when to stop the pre-copy, on made up and on recorded processes.

python -m bench.policy             prints the tables
python -m bench.policy --write     puts them into docs/policy.md
python -m bench.policy --drawn N   the same summary for N processes drawn at random (slow)
"""

import argparse
from typing import Final

from bench.policy.rules import compare
from bench.policy.scenarios import drawn
from bench.policy.tables import DOCUMENT, compare_all, replaced, summary, tables

_FIRST_SEED: Final = 10_000
"""Far from those that were looked at while the policy was made."""


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.policy", description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--drawn", type=int, metavar="N")
    asked = parser.parse_args()
    if asked.drawn:
        seeds = range(_FIRST_SEED, _FIRST_SEED + asked.drawn)
        print("\n".join(summary(compare([drawn(seed) for seed in seeds]))))
    elif asked.write:
        DOCUMENT.write_text(replaced(DOCUMENT.read_text(), compare_all()))
    else:
        print(tables(compare_all()))


if __name__ == "__main__":
    main()
