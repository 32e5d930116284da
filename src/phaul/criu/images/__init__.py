"""Readers of the image files that phaul looks into itself.

A reader raises nothing but ImageError, and believes no length that its file does not have: it reads
message by message.  A `Pagemap` holds all its ranges, some 100 bytes each.
"""

from phaul.criu.images.inventory import Inventory, read_inventory
from phaul.criu.images.memory import Area, read_areas
from phaul.criu.images.pagemap import PAGE_SIZE, PageFlags, Pagemap, PageRange, read_pagemap
from phaul.criu.images.stats import DumpStats, RestoreStats, read_dump_stats, read_restore_stats

__all__ = [
    "PAGE_SIZE",
    "Area",
    "DumpStats",
    "Inventory",
    "PageFlags",
    "PageRange",
    "Pagemap",
    "RestoreStats",
    "read_areas",
    "read_dump_stats",
    "read_inventory",
    "read_pagemap",
    "read_restore_stats",
]
