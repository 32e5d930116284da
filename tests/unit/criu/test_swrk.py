"""A worker, whatever it does, is ended and reaped, and its error says how it ended."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from phaul.criu import swrk
from phaul.criu.rpc import Request, RequestType
from phaul.criu.swrk import Swrk
from phaul.errors import CriuDied, CriuNotFound
from tests.unit.conftest import Fake, state
from tests.unit.scenario import Fault

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]
VERSION = Request(RequestType.VERSION, keep_open=True)


def shell(script: str) -> tuple[str, ...]:
    """A program that does what `script` says, with the socket's number in $2."""
    return ("/bin/sh", "-c", script, "sh")


async def test_answers(fake: Fake) -> None:
    async with Swrk.start(fake.command) as worker:
        for _ in range(3):
            answer = await worker.call(VERSION)
            assert answer.version
        pid = worker.process.pid
    assert state(pid) == ""


@pytest.mark.parametrize("program", ["/no/such/program", "no-such-program", "/", "/etc/passwd"])
async def test_no_program(program: str) -> None:
    with pytest.raises(CriuNotFound, match="cannot be started") as caught:
        Swrk.start([program], host="source")
    assert str(caught.value).startswith(f"source: {program}")
    assert "install" in caught.value.remedy


async def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    program = tmp_path / "criu"
    program.write_bytes(b"\x7fELF nothing")
    program.chmod(0o755)
    with pytest.raises(CriuNotFound):
        Swrk.start([str(program)])


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 0", "ended with status 0"),
        ("exit 7", "ended with status 7"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("kill -KILL $$", "killed by SIGKILL"),
        ("kill -40 $$", "killed by signal 40"),
    ],
)
async def test_one_that_ends_at_once(script: str, said: str) -> None:
    async with Swrk.start(shell(script), host="here") as worker:
        with pytest.raises(CriuDied, match=said) as caught:
            await worker.call(VERSION)
        assert caught.value.request == "VERSION"
        assert caught.value.host == "here"


async def test_its_last_words_are_told() -> None:
    async with Swrk.start(shell("echo first >&2; echo last words >&2; exit 1")) as worker:
        with pytest.raises(CriuDied, match="last words") as caught:
            await worker.call(VERSION)
        assert caught.value.line == "last words"


async def test_the_newest_of_many_words_are_told() -> None:
    script = "for i in $(seq 2000); do echo line $i >&2; done; exit 1"
    async with Swrk.start(shell(script)) as worker:
        with pytest.raises(CriuDied) as caught:
            await worker.call(VERSION)
        assert caught.value.line == "line 2000"


@pytest.mark.parametrize("kind", ["garbage", "truncated"])
async def test_what_is_no_answer(fake: Fake, kind: str) -> None:
    fake.play(start=Fault(kind=kind))  # type: ignore[arg-type]
    async with Swrk.start(fake.command) as worker:
        with pytest.raises(CriuDied, match="cannot be read"):
            await worker.receive("VERSION")


async def test_an_empty_answer(fake: Fake) -> None:
    fake.play(start=Fault(kind="empty"))
    async with Swrk.start(fake.command) as worker:
        with pytest.raises(CriuDied):
            await worker.receive("VERSION")


async def test_silence_can_be_cancelled(fake: Fake) -> None:
    fake.play(start=Fault(kind="hang"))
    async with Swrk.start(fake.command) as worker:
        with anyio.move_on_after(0.2) as scope:
            await worker.receive("VERSION")
        assert scope.cancelled_caught
        pid = worker.process.pid
    assert state(pid) == ""


async def test_a_cancelled_owner_still_reaps(fake: Fake) -> None:
    fake.play(start=Fault(kind="hang"))
    with anyio.CancelScope() as scope:
        async with Swrk.start(fake.command) as worker:
            scope.cancel()
            await worker.receive("VERSION")
    assert state(worker.process.pid) == ""


async def test_a_stubborn_one_is_killed_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swrk, "_END_GRACE_S", 0.2)
    async with Swrk.start(shell("trap '' TERM HUP; sleep 600 & wait")) as worker:
        await anyio.sleep(0.2)
        pid = worker.process.pid
        kin = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert worker.process.returncode == -9
    with anyio.fail_after(20):
        while any(state(int(child)) not in {"", "Z"} for child in kin):
            await anyio.sleep(0.01)


async def test_close_may_be_called_again(fake: Fake) -> None:
    worker = Swrk.start(fake.command)
    assert await worker.close() == 0
    assert await worker.close() == 0
    assert worker.last_words() == ""


async def test_it_is_reaped(fake: Fake) -> None:
    worker = Swrk.start(fake.command)
    await worker.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(worker.process.pid, 0)


async def test_it_has_a_session_of_its_own(fake: Fake) -> None:
    async with Swrk.start(fake.command) as worker:
        assert os.getsid(worker.process.pid) == worker.process.pid


async def test_it_inherits_what_it_is_passed_and_no_more() -> None:
    kept, passed = os.pipe()
    try:
        os.set_inheritable(kept, True)
        script = f"ls /proc/self/fd >&2; test -e /proc/self/fd/{passed}"
        worker = Swrk.start(shell(f"{script} && ! test -e /proc/self/fd/{kept}"), pass_fds=[passed])
        assert await worker.close() == 0
    finally:
        os.close(kept)
        os.close(passed)


async def test_sending_to_the_dead() -> None:
    async with Swrk.start(shell("exit 5")) as worker:
        worker.process.wait()
        with pytest.raises(CriuDied, match="ended with status 5"):
            await worker.send(VERSION)
        with pytest.raises(CriuDied, match="ended with status 5"):
            await worker.send(VERSION)
        with pytest.raises(CriuDied, match="ended with status 5"):
            await worker.receive("VERSION")


DIES_BEFORE_ITS_FORK = """
import os, signal, time
if os.fork():
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(600)
"""


async def test_its_end_is_seen_though_a_fork_holds_its_socket() -> None:
    worker = Swrk.start([sys.executable, "-c", DIES_BEFORE_ITS_FORK])
    worker.takes_along = True
    group = worker.process.pid
    with anyio.fail_after(30):
        with pytest.raises(CriuDied, match="was killed by SIGKILL"):
            await worker.receive("RESTORE")
        with suppress(ProcessLookupError):
            while True:  # until there is none left
                os.killpg(group, 0)
                await anyio.sleep(0.01)
    await worker.close()
