"""The destination's order of steps, its failures, and what it leaves."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from phaul import Config, CriuOptions, Server, Timeouts
from phaul.errors import CriuDied, CriuError, ImageError, PageStoreError, UsageError
from tests.unit.conftest import Fake, running, state
from tests.unit.fake_criu import inventory
from tests.unit.rounds import PAGES, ROUND, UNFOUNDED
from tests.unit.scenario import Fault, Restore


@dataclass
class Case:
    server: Server
    peer: socket.socket
    fake: Fake
    work: Path
    stack: ExitStack

    def round(self, sent: bytes = ROUND) -> None:
        self.server.start_iteration()
        self.peer.sendall(sent)
        self.server.stop_iteration()

    def images(self) -> None:
        """A round, and an inventory with it: enough to restore from."""
        self.round()
        assert self.server.last_images_dir
        (self.server.last_images_dir / "inventory.img").write_bytes(inventory())

    def fresh(self) -> None:
        peer, ours = socket.socketpair()
        self.peer = self.stack.enter_context(peer)
        self.stack.enter_context(ours)
        self.server.new_chain(ours.fileno())


@pytest.fixture
def case(tmp_path: Path, fake: Fake) -> Iterator[Case]:
    with ExitStack() as stack:
        peer, ours = (stack.enter_context(sock) for sock in socket.socketpair())
        config = Config(
            memory_fd=ours.fileno(),
            work_dir=tmp_path / "work",
            criu=fake.command,
            timeouts=Timeouts(page_server=60),
        )
        server = stack.enter_context(Server(config))
        yield Case(server, peer, fake, tmp_path / "work", stack)


def lingering(fake: Fake) -> list[int]:
    """The processes of the fake that still live, after those that were killed had time to die."""
    pids = [note.pid for note in fake.notes() if note.what == "restored"]
    end = time.monotonic() + 10
    while time.monotonic() < end and any(state(pid) not in {"", "Z"} for pid in pids):
        time.sleep(0.01)
    return [pid for pid in pids if state(pid) not in {"", "Z"}]


def test_rounds_make_a_chain(case: Case) -> None:
    case.round()
    case.round()
    assert case.server.last_images_dir == case.work / "1"
    assert (case.work / "1/parent").readlink() == Path("../0")
    assert not (case.work / "0/parent").is_symlink()
    assert case.fake.names().count("RESTORE") == 0


def test_the_order_of_rounds(case: Case) -> None:
    with pytest.raises(UsageError, match="no iteration is under way"):
        case.server.stop_iteration()
    case.server.start_iteration()
    for step in (case.server.start_iteration, case.server.restore):
        with pytest.raises(UsageError, match="under way"):
            step()
    with pytest.raises(UsageError, match="under way"):
        case.server.new_chain(case.peer.fileno())
    case.peer.sendall(ROUND)
    case.server.stop_iteration()
    with pytest.raises(UsageError, match="no iteration is under way"):
        case.server.stop_iteration()


def test_the_order_of_the_restore(case: Case) -> None:
    with pytest.raises(UsageError, match="no images"):
        case.server.restore()
    with pytest.raises(UsageError, match="no images"):
        case.server.add_images([])
    for step in (case.server.release, case.server.discard):
        with pytest.raises(UsageError, match="nothing is restored"):
            step()
    case.images()
    case.server.restore()
    with pytest.raises(UsageError, match="begun"):
        case.server.restore()
    with pytest.raises(UsageError, match="begun"):
        case.server.start_iteration()
    with pytest.raises(UsageError):
        case.server.new_chain(case.peer.fileno())
    case.server.discard()


def test_a_restore_is_held_then_released(case: Case) -> None:
    case.images()
    pid = case.server.restore()
    assert running(pid)
    assert "answer:post-restore" not in case.fake.names()
    case.server.release()
    assert case.fake.names()[-3:] == [
        "answer:post-restore",
        "answer:pre-resume",
        "answer:post-resume",
    ]
    case.server.close()
    assert running(pid)


def test_a_worker_that_was_killed_while_it_waited(case: Case) -> None:
    case.images()
    waiting = case.server._session._workers.waiting
    assert waiting is not None
    os.kill(waiting.process.pid, signal.SIGKILL)
    while not waiting.has_ended():
        time.sleep(0.01)
    pid = case.server.restore()
    case.server.release()
    assert running(pid)


@pytest.mark.parametrize("how", ["discard", "close"])
def test_a_restore_that_is_given_up(case: Case, how: str) -> None:
    case.images()
    pid = case.server.restore()
    getattr(case.server, how)()
    assert state(pid) == ""


def test_another_restore_after_one_was_given_up(case: Case) -> None:
    case.images()
    case.server.restore()
    case.server.discard()
    pid = case.server.restore(CriuOptions(tcp_established=True))
    assert case.fake.notes("RESTORE")[-1].options["tcp_established"] is True
    case.server.release()
    assert running(pid)


def test_a_failing_restore(case: Case) -> None:
    case.images()
    log = "(00.1) Error (criu/cr-restore.c:1): Can't fork for 7: File exists\n"
    case.fake.play(restore=Restore(fault=Fault(kind="fail", log=log)))
    with pytest.raises(CriuError, match="same PID") as caught:
        case.server.restore()
    assert caught.value.host == "destination"
    assert caught.value.log_path == str(case.work / "0/restore.log")
    case.server.close()
    assert Path(caught.value.log_path).read_text() == log


def test_a_restore_that_does_not_say_its_pid(case: Case) -> None:
    case.images()
    case.fake.play(restore=Restore(tell_pid=False))
    with pytest.raises(ImageError, match="what it restored"):
        case.server.restore()
    assert lingering(case.fake) == []


def test_a_release_that_fails(case: Case) -> None:
    case.images()
    case.fake.play(restore=Restore(fault=Fault(kind="signal"), fault_at="released"))
    case.server.restore()
    with pytest.raises(CriuDied):
        case.server.release()
    with pytest.raises(UsageError, match="nothing is restored"):
        case.server.release()


@pytest.mark.parametrize("data", [b"", b"x", inventory()[:-1]])
def test_a_damaged_inventory(case: Case, data: bytes) -> None:
    case.images()
    (case.work / "0/inventory.img").write_bytes(data)
    with pytest.raises(ImageError):
        case.server.restore()
    assert "RESTORE" not in case.fake.names()


def test_a_round_that_cannot_be_received(case: Case) -> None:
    case.round()
    with pytest.raises(PageStoreError, match="in the round before") as caught:
        case.round(UNFOUNDED)
    assert caught.value.host == "destination"
    assert [case.server.last_images_dir] == [None]
    assert [p.name for p in case.work.rglob("*") if p.is_file()] == []
    assert case.peer.recv(4) == bytes(4)  # the answer to the first round
    assert case.peer.recv(1) == b""
    with pytest.raises(Exception, match="new_chain"):
        case.server.start_iteration()
    case.fresh()
    case.round()
    assert case.server.last_images_dir == case.work / "2"
    assert not (case.work / "2/parent").is_symlink()


def test_a_round_that_does_not_end(tmp_path: Path, fake: Fake) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        config = Config(
            memory_fd=ours.fileno(),
            work_dir=tmp_path / "work",
            criu=fake.command,
            timeouts=Timeouts(page_server=0.2),
        )
        with Server(config) as server:
            server.start_iteration()
            with pytest.raises(PageStoreError, match=r"0\.2 s"):
                server.stop_iteration()
            assert peer.recv(1) == b""


def test_a_source_that_ends_in_a_round(case: Case) -> None:
    case.server.start_iteration()
    case.peer.sendall(ROUND[:-100])
    case.peer.shutdown(socket.SHUT_WR)
    with pytest.raises(PageStoreError, match="in the middle of a round"):
        case.server.stop_iteration()


def test_images_of_which_nobody_can_be_told(case: Case) -> None:
    """A name of the round's is taken: it is the disk's fault, not the source's."""
    case.server.start_iteration()
    assert case.server.last_images_dir
    (case.server.last_images_dir / "pages-1.img").touch()
    case.peer.sendall(ROUND)
    with pytest.raises(ImageError, match="cannot be written"):
        case.server.stop_iteration()


def test_close_in_a_round(case: Case) -> None:
    case.server.start_iteration()
    case.server.close()
    assert case.peer.recv(1) == b""
    assert not case.work.exists()


def test_add_images(case: Case, tmp_path: Path) -> None:
    case.round()
    (tmp_path / "core-1.img").write_bytes(b"core")
    case.server.add_images([tmp_path / "core-1.img"])
    assert (case.work / "0/core-1.img").read_bytes() == b"core"


@pytest.mark.parametrize("name", ["pages-1.img", "core.txt", "img", "missing.img", "dir.img"])
def test_images_that_are_refused(case: Case, tmp_path: Path, name: str) -> None:
    case.round()
    if name == "dir.img":
        (tmp_path / name).mkdir()
    elif name != "missing.img":
        (tmp_path / name).write_bytes(b"other")
    before = sorted((case.work / "0").iterdir())
    with pytest.raises(ImageError):
        case.server.add_images([tmp_path / name])
    assert sorted((case.work / "0").iterdir()) == before
    assert (case.work / "0/pages-1.img").read_bytes() == PAGES


def test_images_that_are_added_twice(case: Case, tmp_path: Path) -> None:
    case.round()
    (tmp_path / "core-1.img").touch()
    case.server.add_images([tmp_path / "core-1.img"])
    with pytest.raises(ImageError, match="exists already"):
        case.server.add_images([tmp_path / "core-1.img"])
