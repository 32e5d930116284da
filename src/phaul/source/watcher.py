"""Watches over a phaul that owes something: when it dies, that is given back.

Runs on the source beside a migration, as `python -m phaul.source.watcher FILE`; FILE says what is
to be given back, and is gone once it was.  The standard input is a pipe that phaul alone holds: its
end is phaul's.  Signals that end phaul, which gives back by itself then, are not for this one.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

from phaul.errors import PhaulError
from phaul.source.owed import give_back_left

__all__ = ["main"]

_TRIES: Final = 50
_AGAIN_S: Final = 0.2


def main(file: Path) -> int:
    """Wait for phaul's end, then give back what it left; returns the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 1):
        pass
    for _ in range(_TRIES):
        try:
            give_back_left(file, orphaned=True)
        except PhaulError:
            # What CRIU, which ends with phaul, holds may still be moved in a moment.
            time.sleep(_AGAIN_S)
        else:
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
