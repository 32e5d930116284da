"""The command `phaul`: the agent without the command line's libraries, all else with them.

Runs on both hosts.
"""

import gc
import sys

__all__ = ["main"]


def main() -> int:
    """Run the command of `sys.argv`; returns its exit status."""
    status = _run()
    # At its end Python looks for garbage among all that was ever imported: some 40 ms.
    gc.freeze()
    return status


def _run() -> int:
    if sys.argv[1:2] == ["agent"]:
        from phaul.agent import main as agent

        return agent(sys.argv[2:])
    from phaul.cli.main import main as cli

    return cli()


if __name__ == "__main__":
    sys.exit(main())
