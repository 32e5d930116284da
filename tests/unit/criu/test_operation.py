"""Notifications: CRIU always gets an answer, and a held request is let go or refused, once."""

from pathlib import Path

import anyio
import pytest

from phaul.criu.operation import Operation, directory_fd
from phaul.criu.rpc import Request, RequestType, Response, Stage
from phaul.criu.swrk import Swrk
from phaul.errors import CriuDied, CriuError, CriuTimeout, UsageError
from tests.unit.conftest import Fake
from tests.unit.scenario import Fault, Restore

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]
STAGES = ["pre-restore", "setup-namespaces", "post-setup-namespaces", "post-restore"]


class Case:
    """A restore in flight, on a fake."""

    def __init__(self, fake: Fake, directory: Path, timeout: float = 30.0) -> None:
        self.worker = Swrk.start(fake.command, host="there")
        self.directory = directory
        self.timeout = timeout

    async def begin(self, descriptor: int) -> Operation:
        request = Request(
            RequestType.RESTORE, images_dir_fd=descriptor, notify=True, log_file="r.log"
        )
        operation = Operation(self.worker, request, self.directory / "r.log", self.timeout)
        await operation.begin()
        return operation


def answers(fake: Fake) -> list[tuple[str, bool | None]]:
    prefix = "answer:"
    notes = (note for note in fake.notes() if note.what.startswith(prefix))
    return [(note.what.removeprefix(prefix), note.accepted) for note in notes]


async def test_held_then_released(fake: Fake, tmp_path: Path) -> None:
    case = Case(fake, tmp_path)
    async with case.worker:
        with directory_fd(tmp_path) as descriptor:
            operation = await case.begin(descriptor)
            held = await operation.until(Stage.POST_RESTORE)
        assert [operation.held] == [held]
        assert held.pid
        assert answers(fake) == [(stage, True) for stage in STAGES[:3]]
        await operation.release()
        assert [operation.held] == [None]
        assert (await operation.finish()).pid == held.pid


async def test_held_then_refused(fake: Fake, tmp_path: Path) -> None:
    case = Case(fake, tmp_path)
    async with case.worker:
        with directory_fd(tmp_path) as descriptor:
            operation = await case.begin(descriptor)
            await operation.until(Stage.POST_RESTORE)
        assert not (await operation.refuse()).success
    assert "discarded" in fake.names()
    assert answers(fake)[-1] == ("post-restore", False)


async def test_not_held(fake: Fake, tmp_path: Path) -> None:
    case = Case(fake, tmp_path)
    async with case.worker:
        with directory_fd(tmp_path) as descriptor:
            operation = await case.begin(descriptor)
            for act in (operation.release, operation.refuse):
                with pytest.raises(UsageError, match="not held"):
                    await act()
            await operation.until(Stage.POST_RESTORE)
        await operation.refuse()
        for act in (operation.release, operation.refuse):
            with pytest.raises(UsageError, match="not held"):
                await act()


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError("mine"), KeyboardInterrupt()])
async def test_a_raising_handler_refuses(fake: Fake, tmp_path: Path, error: BaseException) -> None:
    async def handler(notification: Response) -> None:
        if notification.stage is Stage.SETUP_NAMESPACES:
            raise error

    case = Case(fake, tmp_path)
    async with case.worker:
        with directory_fd(tmp_path) as descriptor:
            operation = await case.begin(descriptor)
            operation.handler = handler
            with pytest.raises(type(error)) as caught:
                await operation.finish()
    assert caught.value is error
    assert answers(fake) == [("pre-restore", True), ("setup-namespaces", False)]


async def test_a_cancelled_handler_refuses(fake: Fake, tmp_path: Path) -> None:
    with anyio.CancelScope() as scope:

        async def handler(_notification: Response) -> None:
            scope.cancel()
            await anyio.sleep_forever()

        case = Case(fake, tmp_path)
        async with case.worker:
            with directory_fd(tmp_path) as descriptor:
                operation = await case.begin(descriptor)
                operation.handler = handler
                await operation.finish()
    assert scope.cancelled_caught
    assert answers(fake) == [("pre-restore", False)]


async def test_the_handler_sees_all_but_the_awaited(fake: Fake, tmp_path: Path) -> None:
    seen: list[str | None] = []

    async def handler(notification: Response) -> None:
        seen.append(notification.script)

    case = Case(fake, tmp_path)
    async with case.worker:
        with directory_fd(tmp_path) as descriptor:
            operation = await case.begin(descriptor)
            operation.handler = handler
            await operation.until(Stage.POST_RESTORE)
        await operation.release()
        await operation.finish()
    assert seen == [*STAGES[:3], "pre-resume", "post-resume"]


async def test_a_stage_that_never_comes(fake: Fake, tmp_path: Path) -> None:
    case = Case(fake, tmp_path)
    async with case.worker:
        with directory_fd(tmp_path) as descriptor:
            operation = await case.begin(descriptor)
            with pytest.raises(CriuError, match="without post-dump"):
                await operation.until(Stage.POST_DUMP)
    assert operation.held is None


async def test_a_failure_before_the_stage(fake: Fake, tmp_path: Path) -> None:
    log = "(00.1) Error (criu/files.c:1): Can't lookup mount=5 for fd=0\n"
    fake.play(restore=Restore(fault=Fault(kind="fail", log=log, errno=17, message="first line")))
    case = Case(fake, tmp_path)
    async with case.worker:
        with directory_fd(tmp_path) as descriptor:
            operation = await case.begin(descriptor)
            with pytest.raises(CriuError) as caught:
                await operation.until(Stage.POST_RESTORE)
    error = caught.value
    assert error.line == "Error (criu/files.c:1): Can't lookup mount=5 for fd=0"
    assert error.errno == 17
    assert error.request == "RESTORE"
    assert error.log_path == str(tmp_path / "r.log")
    assert "mount namespace" in error.remedy
    assert error.host == "there"


async def test_without_a_log_the_answer_s_message_is_told(fake: Fake, tmp_path: Path) -> None:
    fake.play(restore=Restore(fault=Fault(kind="fail", message="said by RPC")))
    case = Case(fake, tmp_path)
    async with case.worker:
        with directory_fd(tmp_path) as descriptor:
            operation = await case.begin(descriptor)
            with pytest.raises(CriuError, match="said by RPC"):
                await operation.finish()


async def test_silence(fake: Fake, tmp_path: Path) -> None:
    fake.play(restore=Restore(fault=Fault(kind="hang")))
    case = Case(fake, tmp_path, timeout=0.2)
    async with case.worker:
        with directory_fd(tmp_path) as descriptor:
            operation = await case.begin(descriptor)
            with pytest.raises(CriuTimeout, match=r"RESTORE request within 0\.2 s"):
                await operation.finish()


async def test_death_after_the_release(fake: Fake, tmp_path: Path) -> None:
    fake.play(restore=Restore(fault=Fault(kind="signal", number=9), fault_at="released"))
    case = Case(fake, tmp_path)
    async with case.worker:
        with directory_fd(tmp_path) as descriptor:
            operation = await case.begin(descriptor)
            await operation.until(Stage.POST_RESTORE)
        await operation.release()
        with pytest.raises(CriuDied, match="SIGKILL"):
            await operation.finish()


def test_a_directory_descriptor_is_closed(tmp_path: Path) -> None:
    with directory_fd(tmp_path) as descriptor:
        assert Path(f"/proc/self/fd/{descriptor}").readlink() == tmp_path
    assert not Path(f"/proc/self/fd/{descriptor}").is_symlink()
