"""The end of CRIU's network lock on the source.

Runs on the source, after the commit of a migration that has kept TCP connections, and after its
rollback.
"""

from collections.abc import Iterable
from pathlib import Path

import anyio

from phaul.criu.images import read_inventory
from phaul.errors import ImageError
from phaul.network.addresses import IPAddress, local_addresses
from phaul.network.locks import remove_table, table_name

__all__ = ["unlock", "unlock_here"]


async def unlock_here(images: Path) -> tuple[str, ...]:
    """Take the lock of the last dump away: the process runs on here.  Returns what failed.

    CRIU does so itself, unless it died; then the connections would be dead.
    """
    with anyio.CancelScope(shield=True):
        try:
            table = _table(images)
        except (OSError, ImageError) as error:
            return (f"CRIU's network lock may still be there (`nft list tables`): {error}",)
        failed = await remove_table(table) if table else ""
    return (f"nft table inet {table} cannot be removed: {failed}",) if failed else ()


def _table(images: Path) -> str:
    dumps = sorted(images.glob("*/inventory.img"), key=lambda path: int(path.parent.name))
    return table_name(read_inventory(dumps[-1]).run_id) if dumps else ""


async def unlock(images: Path, addresses: Iterable[IPAddress]) -> tuple[str, ...]:
    """Take the lock away, unless it still protects something; returns what a person should know.

    `images` has the directories of the dumps, `addresses` are the connections' own.
    """
    with anyio.CancelScope(shield=True):
        try:
            table = _table(images)
            here = local_addresses(a for a in addresses if not a.is_loopback)
        except (OSError, ImageError) as error:
            return (f"CRIU's network lock may still be there (`nft list tables`): {error}",)
        if here:
            names = ", ".join(sorted(map(str, here)))
            return (
                f"the connections' address {names} is still on this host, so their packets are "
                f"locked out: move it, then `nft delete table inet {table}`",
            )
        failed = await remove_table(table) if table else ""
    return (f"nft table inet {table} cannot be removed: {failed}",) if failed else ()
