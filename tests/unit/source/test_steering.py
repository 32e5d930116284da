"""Another terminal steers a migration, and nothing that it says there makes the migration fail."""

import os
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import msgspec
import pytest
from anyio.to_thread import run_sync
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phaul.errors import (
    ConnectionLost,
    ConnectionRefused,
    ConnectTimeout,
    PhaulError,
    ProtocolError,
    UsageError,
)
from phaul.protocol.frames import Frame, Kind, pack
from phaul.source import steering
from phaul.source.steering import (
    Answer,
    Cancel,
    Cancelling,
    Changed,
    Refused,
    Request,
    SetMaxDowntime,
    Standing,
    Status,
    ask,
    serve,
)
from phaul.storage.entry import State

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def nearby(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short names, since the kernel takes only those."""
    monkeypatch.chdir(tmp_path)


class Migration:
    """Can be steered, and notes how it was."""

    def __init__(self) -> None:
        self.cancels = 0
        self.late = False
        self.max_downtime_s = 0.3
        self.error: Exception | None = None

    def cancel(self) -> bool:
        self.cancels += 1
        return not self.late

    def set_max_downtime(self, seconds: float) -> None:
        if self.error:
            raise self.error
        self.max_downtime_s = seconds

    def status(self) -> Standing:
        return Standing(
            state=State.PRE_COPY,
            number=2,
            sent_bytes=7,
            expected_bytes=9,
            max_downtime_s=self.max_downtime_s,
        )


@asynccontextmanager
async def running(path: Path, migration: Migration) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        await group.start(serve, path, migration)
        yield
        group.cancel_scope.cancel()


async def asked(path: Path, request: Request) -> Answer:
    return await run_sync(ask, path, request)


async def test_it_is_steered(tmp_path: Path) -> None:
    path, migration = tmp_path / "socket", Migration()
    async with running(path, migration):
        assert path.stat().st_mode & 0o777 == 0o600
        standing = Standing(
            state=State.PRE_COPY, number=2, sent_bytes=7, expected_bytes=9, max_downtime_s=0.3
        )
        assert await asked(path, Status()) == standing
        assert await asked(path, SetMaxDowntime(seconds=1.5)) == Changed()
        assert migration.max_downtime_s == 1.5
        assert await asked(path, Cancel()) == Cancelling(accepted=True)
        migration.late = True
        assert await asked(path, Cancel()) == Cancelling(accepted=False)
        assert migration.cancels == 2
    assert not path.exists()


async def test_a_deep_directory(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 100) / ("y" * 100) / "socket"
    path.parent.mkdir(parents=True)
    async with running(path, Migration()):
        assert isinstance(await asked(path, Status()), Standing)


async def test_it_may_refuse(tmp_path: Path) -> None:
    path, migration = tmp_path / "socket", Migration()
    migration.error = UsageError("the cutover has begun", remedy="wait")
    async with running(path, migration):
        answer = await asked(path, SetMaxDowntime(seconds=1))
        assert answer == Refused(what="the cutover has begun", remedy="wait")


async def test_a_fault_in_it_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, migration = tmp_path / "socket", Migration()
    migration.error = ZeroDivisionError("by nought")
    async with running(path, migration):
        answer = await asked(path, SetMaxDowntime(seconds=1))
        assert answer == Refused(what="unexpected ZeroDivisionError: by nought")
        assert isinstance(await asked(path, Status()), Standing)
    assert "by nought" in caplog.text


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e9, float("inf"), float("nan")])
def test_what_cannot_be_meant_is_not_asked(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(UsageError):
        ask(tmp_path / "socket", SetMaxDowntime(seconds=seconds))


def test_nobody_is_there(tmp_path: Path) -> None:
    with pytest.raises(ConnectionRefused, match="has ended"):
        ask(tmp_path / "socket", Status())
    with pytest.raises(ConnectionRefused, match="has ended"):
        ask(tmp_path / "nowhere/socket", Status())
    (tmp_path / "file").touch()
    with pytest.raises(ConnectionRefused):
        ask(tmp_path / "file", Status())


async def test_a_stale_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path.name)
    with pytest.raises(ConnectionRefused, match="has ended"):
        await asked(path, Status())
    async with running(path, Migration()):
        assert isinstance(await asked(path, Status()), Standing)


def test_one_that_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path.name)
        sock.listen()
        with pytest.raises(ConnectTimeout):
            ask(path, Status(), timeout=0.05)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", ConnectionLost),
        (b"\0", ConnectionLost),
        (b"\0\0\0\x02\x01{}", ProtocolError),
        (b"\0\0\0\x02\x02{}", ProtocolError),
        (b"\xff\xff\xff\xff\x01", ProtocolError),
        (pack(Frame(Kind.CONTROL, b"[" * 100_000)), ProtocolError),
        (pack(Frame(Kind.CONTROL, b'{"is": "changed", "more": 1}')), ProtocolError),
    ],
)
async def test_an_answer_that_is_none(tmp_path: Path, said: bytes, error: type[PhaulError]) -> None:
    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            if said:
                await stream.send(said)

    listener = await anyio.create_unix_listener("s")
    async with anyio.create_task_group() as group, listener:
        group.start_soon(listener.serve, answer)
        with pytest.raises(error):
            await asked(tmp_path / "s", Status())
        group.cancel_scope.cancel()


def spoken(path: Path, data: bytes) -> bytes:
    """What is answered to any bytes."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(path.name)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := sock.recv(4096):
                answer += part
        except ConnectionResetError:
            pass  # closed there with bytes unread
        return answer


async def test_garbage_changes_nothing(tmp_path: Path) -> None:
    path, migration = tmp_path / "s", Migration()
    rng = random.Random(1)
    good = [
        pack(Frame(Kind.CONTROL, msgspec.json.encode(request)))
        for request in (SetMaxDowntime(seconds=0.3), Status())
    ]
    async with running(path, migration):
        for data in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x01\x02x", b"\0" * 5000):
            assert await run_sync(spoken, path, data) == b""
        long = pack(Frame(Kind.CONTROL, b'{"is":"cancel"' + b" " * 3000 + b"}"))
        assert b"refused" in await run_sync(spoken, path, long)
        longer = pack(Frame(Kind.CONTROL, b'{"is":"cancel"' + b" " * 30_000 + b"}"))
        assert await run_sync(spoken, path, longer) == b""
        for _ in range(300):
            damaged = bytearray(rng.choice(good))
            for _ in range(rng.randint(1, 4)):
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            await run_sync(spoken, path, bytes(damaged))
        assert isinstance(await asked(path, Status()), Standing)
    assert migration.cancels == 0


async def test_those_who_only_wait_keep_nobody_out_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steering, "_PATIENCE_S", 0.2)
    path = tmp_path / "s"
    async with running(path, Migration()):
        silent = []
        for _ in range(20):
            sock = socket.socket(socket.AF_UNIX)
            await run_sync(sock.connect, path.name)
            silent.append(sock)
        # Each is let go: those too many at once, and the others when their time is up.
        for sock in silent:
            sock.settimeout(30)
            with sock:
                assert await run_sync(sock.recv, 1) == b""
        assert isinstance(await asked(path, Status()), Standing)


async def test_it_goes_on_when_no_descriptor_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(steering, "_AGAIN_S", 0.01)
    async with await anyio.create_unix_listener("other") as listener:
        listener_type = type(listener)
    accept = listener_type.accept
    failures = iter([OSError(24, "Too many open files")])

    async def fail_once(self: object) -> object:
        for error in failures:
            raise error
        return await accept(self)  # type: ignore[arg-type]

    monkeypatch.setattr(listener_type, "accept", fail_once)
    async with running(tmp_path / "s", Migration()):
        assert isinstance(await asked(tmp_path / "s", Status()), Standing)
    assert "Too many open files" in caplog.text


STRANGER = """
import sys
from pathlib import Path
from phaul.errors import PhaulError
from phaul.source.steering import Cancel, ask
try:
    print(ask(Path(sys.argv[1]), Cancel()))
except PhaulError as error:
    print(type(error).__name__, error)
"""


async def test_another_user_is_not_heard(tmp_path: Path, unprivileged: list[str]) -> None:
    path, migration = tmp_path / "s", Migration()
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    async with running(path, migration):
        path.chmod(0o666)
        run = partial(
            subprocess.run,
            [*unprivileged, sys.executable, "-c", STRANGER, str(path)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        said = await run_sync(run)
    assert said.stderr == ""
    assert said.stdout.startswith("ConnectionLost")
    assert migration.cancels == 0


REQUESTS = st.one_of(
    st.just(Cancel()),
    st.just(Status()),
    st.floats(min_value=1e-9, max_value=86_400).map(lambda s: SetMaxDowntime(seconds=s)),
)
ANSWERS = st.one_of(
    st.just(Changed()),
    st.booleans().map(lambda yes: Cancelling(accepted=yes)),
    st.text(st.characters(codec="utf-8"), max_size=100).map(lambda text: Refused(what=text)),
    st.builds(
        Standing,
        state=st.sampled_from(State),
        number=st.none() | st.integers(0, 999_999),
        sent_bytes=st.integers(0, 1 << 50),
        expected_bytes=st.integers(0, 1 << 50),
        max_downtime_s=st.none() | st.floats(0, 1e6),
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(REQUESTS, ANSWERS)
def test_what_is_sent_is_what_is_taken(request: Request, answer: Answer) -> None:
    assert msgspec.json.decode(msgspec.json.encode(request), type=Request) == request
    assert msgspec.json.decode(msgspec.json.encode(answer), type=Answer) == answer
