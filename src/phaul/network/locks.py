"""CRIU's network lock: the nftables table that keeps packets from a frozen tree's connections.

Used on the source, after the commit.  CRIU takes its table away when a tree thaws, but not when it
is killed: the packets of connections that have moved must not meet a kernel without their sockets,
which would reset them.  Once their address is no longer here, nothing can, and the table is litter.
"""

import re
import subprocess
from typing import Final

import anyio
import anyio.to_thread

__all__ = ["remove_table", "table_name"]

_MOST: Final = 31 - len("inet ")
"""CRIU (netfilter.c) cuts the table's name to a buffer of 32 bytes, with its family."""
_RUN_ID: Final = re.compile(r"[0-9A-Za-z-]{1,64}")
_NFT_S: Final = 10.0


def table_name(run_id: str) -> str:
    """The table of the dump `run_id`, which its inventory names; "" if that is no such id."""
    return f"CRIU-{run_id}"[:_MOST] if _RUN_ID.fullmatch(run_id) else ""


async def remove_table(name: str) -> str:
    """Remove the table; returns what went wrong, "" if nothing did or it was not there."""

    def run() -> str:
        try:
            done = subprocess.run(
                ["nft", "delete", "table", "inet", name],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_NFT_S,
                check=False,
            )
        except FileNotFoundError:
            return "nft is not installed here"
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        said = done.stderr.decode(errors="replace").strip()
        gone = not done.returncode or "No such file or directory" in said
        return "" if gone else said.splitlines()[0] if said else f"status {done.returncode}"

    return await anyio.to_thread.run_sync(run)
