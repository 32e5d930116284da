"""What the daemon starts for a connection, in its tests: the real thing, with an agent that echoes.

`FAKE_CONNECTION` makes it another: "silent" never reports, "die" is killed before it has read.
"""

import os
import signal
import sys
import time
from pathlib import Path

from phaul.storage.keyring import Keyring
from phaul.storage.state_dir import StateDir
from phaul.transport.tls.agent import answer_connection
from tests.unit.transport.tls.conftest import echo


def main() -> int:
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    match os.environ.get("FAKE_CONNECTION"):
        case "silent":
            time.sleep(600)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
    door = Keyring(StateDir.open(Path(os.environ["PHAUL_STATE"])))
    return answer_connection(
        int(options["--connection"]), door, echo, report=int(options["--report"])
    )


if __name__ == "__main__":
    sys.exit(main())
