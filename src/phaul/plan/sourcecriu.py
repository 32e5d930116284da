"""What the judges have to know of the CRIU that dumps: its version, and the kernel that it is on.

Used in preflight, on the source.  Pure.
"""

import re
from dataclasses import dataclass
from typing import Self

__all__ = ["SourceCriu"]


@dataclass(frozen=True)
class SourceCriu:
    """CRIU's version as (major, minor, sublevel), the kernel's as (major, minor)."""

    version: tuple[int, int, int]
    kernel: tuple[int, int]

    @classmethod
    def on(cls, version: tuple[int, int, int], release: str) -> Self:
        """CRIU on a kernel of that release, as "6.12.1-cloud"; one that is none counts as new."""
        found = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", release)
        return cls(version, (int(found[1]), int(found[2])) if found else (9999, 0))

    @property
    def version_text(self) -> str:
        """As CRIU writes it: "4.1.1", "4.2"."""
        major, minor, sublevel = self.version
        return f"{major}.{minor}.{sublevel}" if sublevel else f"{major}.{minor}"

    @property
    def kernel_text(self) -> str:
        """As "6.18"."""
        return f"{self.kernel[0]}.{self.kernel[1]}"

    @property
    def takes_inet(self) -> bool:
        """Whether it dumps TCP and UDP sockets.

        Since Linux 6.16 SO_PASSCRED is refused to them, and CRIU asked for it until 4.2.1: "Can't
        get 1:16 opt".  Tried: 4.1.1 fails on 6.18, not on 6.12; 4.2.1 works on both.
        """
        return self.version >= (4, 2, 1) or self.kernel < (6, 16)
