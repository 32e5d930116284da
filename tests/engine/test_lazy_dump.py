"""Post-copy: the source's tree is killed before the copy runs, and the memory follows it."""

from pathlib import Path

import anyio
import pytest

from tests.engine.conftest import SLOW, StartVictim, copies_of, counts_on
from tests.engine.far_side import far_side
from tests.engine.near_side import left, move
from tests.engine.test_page_store import moved, victims

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 * SLOW)]


@pytest.mark.parametrize("name", ["dirtier", "tree", "pyheap.py", "forker", "mapper"])
def test_victim_is_whole(name: str, victim: StartVictim, tmp_path: Path) -> None:
    before = victim(name, *victims(tmp_path)[name])
    first = before.check(60 * SLOW)
    assert first.ok, first.problems

    async def main() -> None:
        with far_side() as far:
            async with left(before.pid, tmp_path / "images") as near:
                said = await move(near, far, [])
            print(said)
            moved(before, first)

    anyio.run(main)
