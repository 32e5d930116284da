"""`inventory.img`: what kind of images a directory holds; read before images are restored.

Used on the destination at the start of the cutover's restore, and on the source in tests.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from phaul.criu.images.container import read_messages
from phaul.criu.messages import parse
from phaul.errors import ImageError

__all__ = ["Inventory", "read_inventory"]

_MAGICS: Final = (0x58313116,)
_LIMIT: Final = 1 << 20


@dataclass(frozen=True)
class Inventory:
    """What a dump says of itself.

    `dump_uptime_us` is 0 and `run_id` "" where CRIU did not write it.  `run_id` names the run that
    dumped; its network lock is called after it.
    """

    img_version: int
    lsm_type: int
    dump_uptime_us: int
    pre_dump_mode: int
    tcp_close: bool
    run_id: str = ""


def read_inventory(path: Path) -> Inventory:
    """The inventory in the file `path`; raises ImageError."""
    messages = list(read_messages(path, _MAGICS, _LIMIT))
    if len(messages) != 1:
        raise ImageError(f"{path}: {len(messages)} messages, expected 1")
    wire = parse("Inventory", messages[0], str(path))
    return Inventory(
        img_version=wire.img_version,
        lsm_type=wire.lsmtype,
        dump_uptime_us=wire.dump_uptime,
        pre_dump_mode=wire.pre_dump_mode,
        tcp_close=wire.tcp_close,
        run_id=text if isinstance(text := wire.dump_criu_run_id, str) else "",
    )
