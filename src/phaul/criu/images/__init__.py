"""Readers of the image files that phaul looks into itself.

A reader never takes more memory than its file is long, and raises nothing but ImageError.
"""

from phaul.criu.images.inventory import Inventory, read_inventory
from phaul.criu.images.pagemap import Pagemap, PageRange, read_pagemap
from phaul.criu.images.stats import DumpStats, RestoreStats, read_dump_stats, read_restore_stats

__all__ = [
    "DumpStats",
    "Inventory",
    "PageRange",
    "Pagemap",
    "RestoreStats",
    "read_dump_stats",
    "read_inventory",
    "read_pagemap",
    "read_restore_stats",
]
