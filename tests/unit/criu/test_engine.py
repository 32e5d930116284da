import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from phaul.criu import engine as engine_module
from phaul.criu.engine import OLDEST, Engine, Facts, forget_examinations
from phaul.criu.rpc import Request, RequestType, Version
from phaul.criu.workers import Workers
from phaul.errors import (
    CriuDied,
    CriuError,
    CriuNotFound,
    CriuTimeout,
    CriuTooOld,
    CriuUnfit,
    FeatureMissing,
)
from tests.unit.conftest import Fake
from tests.unit.scenario import Fault

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


async def examine(fake: Fake) -> Facts:
    async with Workers(Engine(fake.command, "here")) as workers:
        return await workers.examine()


async def test_facts(fake: Fake) -> None:
    fake.play(version=(4, 1, 1), mem_track=False)
    assert await examine(fake) == Facts(Version(4, 1, 1), mem_track=False, lazy_pages=True)


async def test_what_is_asked(fake: Fake) -> None:
    await examine(fake)
    assert sorted(fake.names()) == ["CHECK", "FEATURE_CHECK", "VERSION"]
    assert len({note.worker for note in fake.notes()}) == 2


@pytest.mark.parametrize("version", [(3, 17, 1), (4, 0, 9)])
async def test_too_old(fake: Fake, version: tuple[int, int, int]) -> None:
    fake.play(version=version)
    with pytest.raises(CriuTooOld, match=f"at least {OLDEST}"):
        await examine(fake)


async def test_no_version(fake: Fake) -> None:
    fake.play(tell_version=False)
    with pytest.raises(CriuError, match="version"):
        await examine(fake)


async def test_a_failing_query(fake: Fake) -> None:
    fake.play(features=Fault(kind="fail", message="no features"))
    with pytest.raises(CriuError, match="no features"):
        await examine(fake)


async def test_a_silent_query(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_QUERY_S", 0.3)
    fake.play(start=Fault(kind="hang"))
    with pytest.raises(CriuTimeout, match=r"VERSION within 0\.3 s"):
        await examine(fake)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(kind="fail", message="the kernel is odd"), "the kernel is odd"),
        (Fault(kind="fail", stderr="only on stderr\n"), "only on stderr"),
        (Fault(kind="fail"), "does not say why"),
    ],
)
async def test_unfit(fake: Fake, fault: Fault, said: str) -> None:
    fake.play(check=fault)
    with pytest.raises(CriuUnfit, match=said):
        await examine(fake)


async def test_a_check_that_dies(fake: Fake) -> None:
    fake.play(check=Fault(kind="signal", number=6))
    with pytest.raises(CriuDied, match="SIGABRT"):
        await examine(fake)


async def test_not_found() -> None:
    with pytest.raises(CriuNotFound):
        await Workers(Engine(("/no/criu",))).examine()


@pytest.fixture
def binary(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The fake CRIU as one binary: a Python that runs the file `swrk` of the working directory."""
    program = tmp_path / "criu"
    shutil.copy(Path(sys.executable).resolve(), program)
    (tmp_path / "swrk").write_text(
        f"import runpy, sys\nsys.path[:0] = {sys.path!r}\n"
        f"sys.argv[:1] = [{fake.command[1]!r}, {fake.command[2]!r}, 'swrk']\n"
        f"runpy.run_path({fake.command[1]!r}, run_name='__main__')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONHOME", sys.base_prefix)
    forget_examinations()
    yield program
    forget_examinations()


async def examine_binary(program: Path, *, anew: bool = False) -> Facts:
    async with Workers(Engine((str(program),))) as workers:
        return await workers.examine(anew=anew)


async def test_a_success_is_remembered(fake: Fake, binary: Path) -> None:
    first = await examine_binary(binary)
    fake.play(check=Fault(kind="fail"))
    assert await examine_binary(binary) == first
    assert len(fake.notes("CHECK")) == 1


async def test_it_can_be_made_anew(fake: Fake, binary: Path) -> None:
    await examine_binary(binary)
    fake.play(mem_track=False)
    assert not (await examine_binary(binary, anew=True)).mem_track
    assert not (await examine_binary(binary)).mem_track
    fake.play(check=Fault(kind="fail"))
    with pytest.raises(CriuUnfit):
        await examine_binary(binary, anew=True)
    with pytest.raises(CriuUnfit):
        await examine_binary(binary)


async def test_a_failure_is_never_remembered(fake: Fake, binary: Path) -> None:
    fake.play(check=Fault(kind="fail"))
    for _ in range(2):
        with pytest.raises(CriuUnfit):
            await examine_binary(binary)
    fake.play()
    await examine_binary(binary)
    assert len(fake.notes("CHECK")) == 3


async def test_another_binary_is_examined_anew(fake: Fake, binary: Path) -> None:
    await examine_binary(binary)
    newer = binary.with_name("newer")
    shutil.copy(binary, newer)
    newer.replace(binary)
    fake.play(version=(5, 0, 0))
    assert (await examine_binary(binary)).version == Version(5, 0, 0)


async def test_one_that_changes_meanwhile_is_not_remembered(
    fake: Fake, binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = iter(range(4))
    monkeypatch.setattr(engine_module, "identify", lambda _program: next(seen))
    await examine_binary(binary)
    await examine_binary(binary)
    assert len(fake.notes("CHECK")) == 2


async def test_a_retired_worker_is_reaped_beside_the_next(fake: Fake) -> None:
    async with Workers(Engine(fake.command)) as workers:
        worker = workers.take()
        await worker.call(Request(RequestType.VERSION))
        workers.retire(worker)
        with anyio.fail_after(30):
            while worker.process.returncode is None:
                await anyio.sleep(0.01)
                workers.prepare()
        assert worker.process.returncode == 0


async def test_a_retired_worker_is_reaped_in_the_end(fake: Fake) -> None:
    async with Workers(Engine(fake.command)) as workers:
        worker = workers.take()
        await worker.call(Request(RequestType.VERSION))
        workers.retire(worker)
    assert worker.process.returncode == 0


async def test_cpuinfo(fake: Fake, tmp_path: Path) -> None:
    engine = Engine(fake.command)
    await engine.dump_cpuinfo(tmp_path)
    assert (tmp_path / "cpuinfo.img").exists()
    await engine.check_cpuinfo(tmp_path)
    log = "(00.1) Error (criu/cpu.c:1): CPU lacks avx512\n"
    fake.play(cpuinfo=Fault(kind="fail", log=log))
    with pytest.raises(CriuError, match="lacks avx512"):
        await engine.check_cpuinfo(tmp_path)


def test_tracking_is_required() -> None:
    Facts(OLDEST, mem_track=True, lazy_pages=False).require_mem_track("here")
    with pytest.raises(FeatureMissing, match="soft-dirty"):
        Facts(OLDEST, mem_track=False, lazy_pages=False).require_mem_track("here")
