"""What a dead agent has left: its directory, with a journal, images, and perhaps a copy."""

import os
from pathlib import Path
from typing import Any

from phaul.incarnation import Incarnation
from phaul.protocol.ownership import DestinationState
from phaul.storage.journal import DestinationRecord, Journal
from tests.unit.fake_criu import inventory
from tests.unit.protocol.samples import HELLO, KEY

NOBODY = Incarnation(pid=os.getpid(), start=1, boot="another")


def left_behind(
    base: Path,
    state: DestinationState,
    *,
    root: Incarnation | None = None,
    images: bool = True,
    **changes: Any,  # noqa: ANN401
) -> Journal[DestinationRecord]:
    """The journal of a directory that is just as a dead agent leaves it."""
    path = base / "m-7f3a-0000"
    (path / "images/0").mkdir(parents=True)
    base.chmod(0o700)
    (path / "images/0/inventory.img").write_bytes(inventory())
    journal = Journal(path, DestinationRecord)
    record = DestinationRecord(
        id=HELLO.migration,
        key=KEY,
        state=state,
        source=HELLO.host,
        agent=changes.pop("agent", NOBODY),
        root=root,
        pid=root.pid if root is not None else None,
        images="images/0" if images else None,
        **changes,
    )
    journal.write(record, sync=False)
    return journal
