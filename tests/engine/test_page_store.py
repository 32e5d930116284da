"""Restored lazily from the page store: whole, whatever is done while memory is missing."""

from pathlib import Path

import anyio
import pytest

from phaul.destination.chain import Chain
from tests.engine.conftest import SLOW, StartVictim, copies_of, counts_on
from tests.engine.lazy_restore import dump, lazily
from tests.victims.harness import Victim

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 * SLOW)]


def test_one_level(victim: StartVictim, tmp_path: Path) -> None:
    before = victim("dirtier", "--size-mb", 64, "--rate", 1000)
    first = before.check(60 * SLOW)
    images = tmp_path / "0"

    async def main() -> None:
        await dump(before.pid, images)
        assert copies_of(before.pid) == []
        async with lazily(Chain(), images) as restored:
            await restored.release()
            with anyio.fail_after(60 * SLOW):
                drained = await restored.pages.wait()
        print(drained)
        assert drained.served.pages + drained.never_asked == drained.pages > 64 << 8

    anyio.run(main)
    moved = Victim(copies_of(before.pid)[0], before.report_path)
    counts_on(moved, first.counter)
    moved.terminate()
