"""The ssh transport against an ssh that is played: every failure typed, nothing left behind."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from phaul import errors as e
from phaul.errors import ProtocolError, UsageError
from phaul.protocol import messages as m
from phaul.transport.caller import Caller
from phaul.transport.ssh import SshOptions, SshSource, ssh_command
from phaul.transport.target import Target
from tests.unit.protocol.samples import HELLO, PREPARE
from tests.unit.transport.conftest import FakeSsh
from tests.unit.transport.test_diagnosis import CHANGED, TEXTS

pytestmark = pytest.mark.anyio
TARGET = Target("host2", "root")
LIMIT = 60.0


def control_path(arguments: list[str]) -> Path:
    found = next(arg for arg in arguments if arg.startswith("ControlPath="))
    return Path(found.removeprefix("ControlPath="))


@pytest.fixture(autouse=True)
def nothing_left(no_leaks: None, tmp_path: Path) -> Iterator[None]:
    """Neither descriptors nor children, nor a private directory of any ssh that ran."""
    yield
    notes = tmp_path / "notes.jsonl"
    for line in notes.read_text().splitlines() if notes.exists() else ():
        assert not control_path(json.loads(line)["argv"]).parent.exists()


async def greet(source: SshSource) -> tuple[Caller, m.Welcome]:
    caller = Caller(source.control, "host2")
    return caller, await caller.hello(HELLO, LIMIT)


async def test_a_conversation_and_its_memory(fake_ssh: FakeSsh, tmp_path: Path) -> None:
    image = tmp_path / "core-1.img"
    image.write_bytes(os.urandom(2_500_000))
    async with SshSource(TARGET) as source:
        caller, welcome = await greet(source)
        with await source.open_memory(welcome.token) as memory:
            assert memory.family == socket.AF_UNIX
            assert memory.getblocking()
            await caller.call(PREPARE, LIMIT)
            memory.sendall(b"pages")
            await caller.call(m.StartRound(number=0), LIMIT)
            memory.settimeout(LIMIT)
            assert memory.recv(100) == b"PAGES"
            await caller.call(m.StopRound(number=0), LIMIT)
            await caller.send_image(image)
            assert await caller.restore(LIMIT) == 4242
            await caller.call(m.Commit(), LIMIT)
            assert await caller.call(m.Bye(), LIMIT) == m.Done()
            # The agent is gone, so this channel ends.
            assert memory.recv(100) == b""
    control, second = fake_ssh.notes()
    assert control["argv"][-2:] == ["host2", "phaul agent"]
    assert second["argv"][-1] == f"phaul agent --memory {welcome.token}"
    assert control["shielded"]
    assert control_path(control["argv"]) == control_path(second["argv"])


async def test_the_directory_is_private(fake_ssh: FakeSsh) -> None:
    async with SshSource(TARGET) as source:
        await greet(source)
        path = control_path(fake_ssh.notes()[0]["argv"])
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert len(str(path)) < 90


@pytest.mark.parametrize(("text", "kind"), TEXTS)
async def test_each_failure_of_ssh(
    fake_ssh: FakeSsh, text: str, kind: type[e.ConnectFailed]
) -> None:
    fake_ssh.play(status=255, error=text + "\n")
    async with SshSource(TARGET) as source:
        with pytest.raises(e.ConnectFailed) as caught:
            await greet(source)
        assert type(caught.value) is kind


async def test_no_phaul_over_there(fake_ssh: FakeSsh) -> None:
    async with SshSource(TARGET, SshOptions(remote=("no-such-phaul", "agent"))) as source:
        with pytest.raises(e.AgentMissing, match="no-such-phaul"):
            await greet(source)


@pytest.mark.parametrize("status", [0, 1, 3])
async def test_a_phaul_that_ends_at_once(fake_ssh: FakeSsh, status: int) -> None:
    fake_ssh.play(status=status, error="Traceback\nImportError: no msgspec\n")
    async with SshSource(TARGET) as source:
        with pytest.raises(e.AgentFailed, match="ImportError: no msgspec"):
            await greet(source)


async def test_a_shell_that_greets(fake_ssh: FakeSsh) -> None:
    fake_ssh.play(status=0, error="", output="Welcome to host2\n")
    async with SshSource(TARGET) as source:
        with pytest.raises(ProtocolError, match="Welcome to host2") as caught:
            await greet(source)
        assert "standard output" in caught.value.remedy


async def test_an_ssh_that_hangs_is_ended(
    fake_ssh: FakeSsh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phaul.transport.child._JOIN_S", 0.1)
    fake_ssh.play(status=0, error="", hang=True)
    async with SshSource(TARGET) as source:
        with pytest.raises(e.ConnectionLost, match="no answer within"):
            await Caller(source.control).hello(HELLO, 0.5)


async def test_much_on_standard_error_stops_nothing(fake_ssh: FakeSsh) -> None:
    fake_ssh.play(status=255, error="noise\n" * 100_000 + "x" * 100_000 + "\n" + CHANGED)
    async with SshSource(TARGET) as source:
        with pytest.raises(e.HostKeyChanged):
            await greet(source)


async def test_no_ssh_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(e.SshMissing) as caught:
        async with SshSource(TARGET):
            pass
    assert "install" in caught.value.remedy


async def test_a_memory_channel_that_is_refused(fake_ssh: FakeSsh) -> None:
    async with SshSource(TARGET) as source:
        _, welcome = await greet(source)
        fake_ssh.play(memory_error="mux_client_request_session: Session open refused by peer\n")
        with pytest.raises(e.ConnectFailed, match="refused by peer"):
            await source.open_memory(welcome.token)
        fake_ssh.play()
        (await source.open_memory(welcome.token)).close()


async def test_a_memory_channel_with_a_wrong_token(fake_ssh: FakeSsh) -> None:
    async with SshSource(TARGET) as source:
        await greet(source)
        with pytest.raises(e.AgentFailed, match="no phaul agent with this memory channel"):
            await source.open_memory("0" * 32)


@pytest.mark.parametrize("token", ["", "x", "-oX", "a" * 32 + ";id", "../../x", "A" * 32, "0" * 31])
async def test_a_token_that_is_none_never_reaches_ssh(fake_ssh: FakeSsh, token: str) -> None:
    async with SshSource(TARGET) as source:
        await greet(source)
        with pytest.raises(UsageError, match="token"):
            await source.open_memory(token)
    assert len(fake_ssh.notes()) == 1


async def test_an_agent_that_dies_under_way(fake_ssh: FakeSsh) -> None:
    async with SshSource(TARGET) as source:
        caller, _ = await greet(source)
        source._first._process.kill()
        with pytest.raises(e.ConnectionLost, match="status -9"):
            await caller.call(PREPARE, LIMIT)
        with pytest.raises(e.ConnectionLost, match="status -9"):
            await caller.call(m.Bye(), LIMIT)


async def test_a_cancel_while_it_connects(
    fake_ssh: FakeSsh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phaul.transport.child._JOIN_S", 0.1)
    fake_ssh.play(status=0, error="", hang=True)
    with anyio.move_on_after(0.3) as scope:
        async with SshSource(TARGET) as source:
            await greet(source)
    assert scope.cancelled_caught


async def test_it_can_be_closed_again_and_unopened(fake_ssh: FakeSsh) -> None:
    source = SshSource(TARGET)
    await source.aclose()
    async with source:
        await greet(source)
        await source.aclose()
    with pytest.raises(UsageError, match="not open"):
        await source.open_memory("0" * 32)


async def test_dialled_ahead_of_entering(fake_ssh: FakeSsh) -> None:
    source = SshSource(TARGET)
    source.dial()
    async with source:
        await greet(source)
        source.hang_up()  # it was entered: that is undone by leaving
        assert source.control.spoke
    assert len(fake_ssh.notes()) == 1


async def test_dialled_and_never_entered(fake_ssh: FakeSsh) -> None:
    source = SshSource(TARGET)
    source.dial()
    source.hang_up()
    source.hang_up()
    async with source:  # it can still be
        await greet(source)


async def test_a_temporary_directory_that_ssh_would_misread(
    fake_ssh: FakeSsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("50%h", "with space", "x" * 100):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
        async with SshSource(TARGET) as source:
            await greet(source)
        argv = fake_ssh.notes()[-1]["argv"]
        assert next(a for a in argv if a.startswith("ControlPath=")).startswith(
            "ControlPath=/tmp/phaul-ssh-"
        )


@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs OpenSSH's client")
@pytest.mark.parametrize("target", ["root@host2", "ssh://root@[fe80::1%lo]:2222", "a.b@host_2"])
def test_the_real_ssh_takes_the_arguments(target: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host *\n  RemoteCommand true\n  ControlMaster auto\n  LocalForward 1 h:2\n")
    parsed = Target.parse(target)
    argv = ssh_command(parsed, SshOptions(config_file=config), tmp_path / "mux")
    done = subprocess.run(
        [argv[0], "-G", *argv[1:]], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert found["hostname"] == parsed.host
    assert found["user"] == parsed.user
    assert found["port"] == str(parsed.port or 22)
    assert found["controlmaster"] == "true"
    assert found["requesttty"] == "false"
