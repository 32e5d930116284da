"""Findings of the preflight in the order in which they are shown.  Pure."""

from collections.abc import Iterable
from typing import Final

from phaul.plan.catalogue import CHECKS
from phaul.protocol.preflight import Finding, Where

__all__ = ["in_order"]

_PLACES: Final = {name: place for place, name in enumerate(CHECKS)}


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """In the catalogue's order, the source before the destination; unknown checks last."""
    return sorted(
        findings,
        key=lambda f: (_PLACES.get(f.check, len(_PLACES)), f.where is Where.DESTINATION),
    )
