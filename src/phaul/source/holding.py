"""Whether memory can be left on the source, and follow: the check `post-copy`.

Made in preflight, on the source, where that was asked for, or may come to it.
"""

import resource
from typing import Final

from phaul.criu.lazydump import PIPE, require_pipes
from phaul.errors import FeatureMissing
from phaul.protocol.preflight import Finding, Level, Where

__all__ = ["can_follow", "can_hold", "needed_descriptors"]

_CHECK: Final = "post-copy"
_SPARE: Final = 512
"""What CRIU has open beside its pipes, and pipes that are not full."""


def needed_descriptors(memory_bytes: int) -> int:
    """How many descriptors CRIU needs to hold so much memory: two for each pipe of 4 MiB."""
    return 2 * -(-memory_bytes // PIPE) * 33 // 32 + _SPARE


def can_hold(memory_bytes: int, host: str) -> Finding:
    """Whether this host's CRIU could hold so much memory until all of it is there."""
    try:
        require_pipes(host)
    except FeatureMissing as error:
        return _no(Where.SOURCE, error.what, error.remedy)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = needed_descriptors(memory_bytes)
    if most not in (resource.RLIM_INFINITY, -1) and most < needed:
        return _no(
            Where.SOURCE,
            f"criu needs {needed} descriptors to hold the memory, and may open {most}",
            f"raise the limit: `ulimit -Hn {needed}`",
        )
    return Finding(
        check=_CHECK,
        level=Level.OK,
        where=Where.SOURCE,
        what="memory can be left here, and be given when it is needed over there",
    )


def can_follow(*, lazy_pages: bool) -> Finding:
    """Whether the destination can bring memory in when the process runs."""
    if not lazy_pages:
        return _no(
            Where.DESTINATION,
            "memory cannot follow: its kernel or criu lacks userfaultfd",
            "boot a kernel with CONFIG_USERFAULTFD, or leave --post-copy out",
        )
    return Finding(
        check=_CHECK,
        level=Level.OK,
        where=Where.DESTINATION,
        what="memory that follows can be brought in when it is needed",
    )


def _no(where: Where, what: str, remedy: str) -> Finding:
    return Finding(check=_CHECK, level=Level.NO, where=where, what=what, remedy=remedy)
