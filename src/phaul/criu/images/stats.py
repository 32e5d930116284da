"""`stats-dump` and `stats-restore`: what CRIU counted, read after each round and after a restore.

Used on the source (dump) and the destination (restore).  CRIU writes them into its work directory
anew each run; a final dump's is written only after `post-dump` was answered, so its `frozen_us`
holds all that was done while the process was held there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from phaul.criu.images.container import SERVICE_MAGIC, read_messages
from phaul.criu.messages import parse
from phaul.errors import ImageError

__all__ = ["DumpStats", "RestoreStats", "read_dump_stats", "read_restore_stats"]

_MAGICS: Final = (SERVICE_MAGIC, 0x57093306)
_LIMIT: Final = 1 << 16


@dataclass(frozen=True)
class DumpStats:
    """The counts of one dump or pre-dump: times in microseconds, memory in pages of 4 KiB.

    `pages_*` is private memory, `shpages_*` memory shared between processes; what a round wrote
    is both.
    """

    freezing_us: int
    frozen_us: int
    memdump_us: int
    memwrite_us: int
    pages_scanned: int
    pages_skipped_parent: int
    pages_written: int
    pages_lazy: int
    shpages_scanned: int
    shpages_skipped_parent: int
    shpages_written: int


@dataclass(frozen=True)
class RestoreStats:
    """The counts of one restore: times in microseconds, memory in pages of 4 KiB."""

    pages_compared: int
    pages_skipped_cow: int
    pages_restored: int
    forking_us: int
    restore_us: int


def _read(path: Path, kind: str) -> Any:  # noqa: ANN401
    messages = list(read_messages(path, _MAGICS, _LIMIT))
    if len(messages) != 1:
        raise ImageError(f"{path}: {len(messages)} messages, expected 1")
    stats = parse("Stats", messages[0], str(path))
    if not stats.HasField(kind):
        raise ImageError(f"{path}: has no statistics of a {kind}")
    return getattr(stats, kind)


def read_dump_stats(path: Path) -> DumpStats:
    """The statistics in the file `path` (`stats-dump`); raises ImageError."""
    wire = _read(path, "dump")
    return DumpStats(
        freezing_us=wire.freezing_time,
        frozen_us=wire.frozen_time,
        memdump_us=wire.memdump_time,
        memwrite_us=wire.memwrite_time,
        pages_scanned=wire.pages_scanned,
        pages_skipped_parent=wire.pages_skipped_parent,
        pages_written=wire.pages_written,
        pages_lazy=wire.pages_lazy,
        shpages_scanned=wire.shpages_scanned,
        shpages_skipped_parent=wire.shpages_skipped_parent,
        shpages_written=wire.shpages_written,
    )


def read_restore_stats(path: Path) -> RestoreStats:
    """The statistics in the file `path` (`stats-restore`); raises ImageError."""
    wire = _read(path, "restore")
    return RestoreStats(
        pages_compared=wire.pages_compared,
        pages_skipped_cow=wire.pages_skipped_cow,
        pages_restored=wire.pages_restored,
        forking_us=wire.forking_time,
        restore_us=wire.restore_time,
    )
