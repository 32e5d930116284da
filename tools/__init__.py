"""Tools for those who work on phaul; not part of the package."""
