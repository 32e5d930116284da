"""What goes wrong in the middle: the victim runs on, the error names the cause, nothing is left."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import phaul
from examples.local_migration import MoveToNamespace
from phaul.errors import Cancelled, CutoverFailed, ImageError, MigrationError, RoundFailed
from tests.engine.conftest import SLOW, Place, StartVictim, counts_on, criu_processes
from tests.victims.harness import Victim

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 * SLOW)]

MIB = 1 << 20


@contextmanager
def tap(
    after: int, action: Callable[[socket.socket, socket.socket], None]
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A memory channel's two ends, on which `action` happens after so many bytes."""
    source, near = socket.socketpair()
    far, destination = socket.socketpair()
    sent = 0

    def forward() -> None:
        nonlocal sent
        with suppress(OSError):
            while data := near.recv(1 << 16):
                if sent < after <= sent + len(data):
                    action(near, far)
                sent += len(data)
                far.sendall(data)
        far.shutdown(socket.SHUT_RDWR)

    def back() -> None:
        with suppress(OSError):
            while data := far.recv(1 << 16):
                near.sendall(data)
        with suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)

    threads = [threading.Thread(target=run) for run in (forward, back)]
    for thread in threads:
        thread.start()
    try:
        yield source, destination
    finally:
        for sock in (near, far):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(30)
        for sock in (source, near, far, destination):
            sock.close()


class DumpOnly:
    """Copies and restores nothing: what is looked at fails before that."""

    def dump_copy_restore(
        self, criu: phaul.Criu, config: phaul.Config, last_images_dir: Path | None
    ) -> None:
        criu.dump()
        pytest.fail("the dump was to fail")


def check_untouched(victim: Victim, error: phaul.PhaulError, work: Path) -> None:
    """The victim runs on, whole; its fate was told; no CRIU and no image is left."""
    assert f"still running here, PID {victim.pid}" in str(error)
    first = victim.check(60 * SLOW)
    assert first.ok, first.problems
    counts_on(victim, first.counter)
    assert criu_processes(idle=False) == []
    assert list(work.rglob("*.img")) == []


def close_source(near: socket.socket, far: socket.socket) -> None:
    near.shutdown(socket.SHUT_RDWR)


def close_destination(near: socket.socket, far: socket.socket) -> None:
    far.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("action", "cause"),
    [
        (close_source, "in the middle of a round"),
        (close_destination, "in the middle of a round"),
    ],
)
def test_memory_channel_breaks_in_the_middle(
    action: Callable[[socket.socket, socket.socket], None],
    cause: str,
    victim: StartVictim,
    tmp_path: Path,
) -> None:
    dirtier = victim("dirtier", "--size-mb", 64, "--rate", 500)
    with tap(20 * MIB, action) as (source, destination):
        there = phaul.Config(memory_fd=destination.fileno(), work_dir=tmp_path / "there")
        here = phaul.Config(pid=dirtier.pid, memory_fd=source.fileno(), work_dir=tmp_path / "here")
        with phaul.Server(there) as server:
            with pytest.raises(MigrationError, match=cause) as caught:
                phaul.Client(DumpOnly(), server, here).migrate()
            check_untouched(dirtier, caught.value, tmp_path)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in left} <= {".log", ".json"}, "the errors name the logs"


def test_next_attempt_is_a_new_chain(victim: StartVictim, tmp_path: Path) -> None:
    dirtier = victim("dirtier", "--size-mb", 32, "--rate", 100)
    with tap(10 * MIB, close_destination) as (source, destination):
        there = phaul.Config(memory_fd=destination.fileno(), work_dir=tmp_path / "there")
        here = phaul.Config(pid=dirtier.pid, memory_fd=source.fileno(), work_dir=tmp_path / "here")
        with phaul.Server(there) as server:
            client = phaul.Client(RefuseAtTheEnd(), server, here)
            with pytest.raises(MigrationError):
                client.migrate()
            fresh, theirs = socket.socketpair()
            with fresh, theirs:
                client.new_chain(fresh.fileno())
                server.new_chain(theirs.fileno())
                with pytest.raises(CutoverFailed, match="no, thank you") as caught:
                    client.migrate()
            check_untouched(dirtier, caught.value, tmp_path / "here")


class RefuseAtTheEnd:
    """Dumps, and then changes its mind."""

    def dump_copy_restore(
        self, criu: phaul.Criu, config: phaul.Config, last_images_dir: Path | None
    ) -> None:
        criu.dump()
        raise ValueError("no, thank you")


def test_dump_that_fails_names_the_cause(victim: StartVictim, place: Place) -> None:
    server = victim("echo_server", "--listen", "127.0.0.1:0")
    port = server.check(60 * SLOW).data["port"]
    client = victim("echo_client", "--connect", f"127.0.0.1:{port}")
    # Its connection is not allowed for: no option tcp_established.
    with pytest.raises(CutoverFailed) as caught:
        place.client(place.config(client.pid)).migrate()
    text = str(caught.value)
    assert "Connected TCP socket" in text
    assert "use the option tcp_established" in text
    assert "dump.log" in text
    assert Path(text.split("log: ")[1].splitlines()[0]).exists()
    check_untouched(client, caught.value, place.here)
    assert server.check(60 * SLOW).ok


def test_restore_that_fails_lets_the_source_go_on(
    victim: StartVictim, place: Place, tmp_path: Path
) -> None:
    mapped = tmp_path / "mapped"
    dirtier = victim("dirtier", "--size-mb", 8, "--kinds", "private,file", "--file", mapped)

    class LoseTheFile(MoveToNamespace):
        def dump_copy_restore(
            self, criu: phaul.Criu, config: phaul.Config, last_images_dir: Path | None
        ) -> Callable[[], None]:
            self.destination.add_images(criu.dump().images())
            mapped.rename(tmp_path / "hidden")
            try:
                self.destination.restore()
            finally:
                (tmp_path / "hidden").rename(mapped)
            return self.destination.release

    client = place.client(place.config(dirtier.pid), LoseTheFile(place.server))
    with pytest.raises(CutoverFailed) as caught:
        client.migrate()
    assert str(mapped).lstrip("/") in str(caught.value)
    check_untouched(dirtier, caught.value, place.here)


def test_images_that_are_damaged_are_told_before_criu_reads_them(
    victim: StartVictim, place: Place, tmp_path: Path
) -> None:
    dirtier = victim("dirtier", "--size-mb", 8)

    class Truncate(MoveToNamespace):
        def dump_copy_restore(
            self, criu: phaul.Criu, config: phaul.Config, last_images_dir: Path | None
        ) -> Callable[[], None]:
            held = criu.dump()
            os.truncate(held.images_dir / "inventory.img", 10)
            self.destination.add_images(held.images())
            self.destination.restore()
            return self.destination.release

    client = place.client(place.config(dirtier.pid), Truncate(place.server))
    with pytest.raises(CutoverFailed, match="truncated") as caught:
        client.migrate()
    check_untouched(dirtier, caught.value, place.here)


def test_restored_copy_that_is_discarded_never_ran(
    victim: StartVictim, memory: tuple[socket.socket, socket.socket], place: Place
) -> None:
    dirtier = victim("dirtier", "--size-mb", 8)

    class ChangeOfMind(MoveToNamespace):
        def dump_copy_restore(
            self, criu: phaul.Criu, config: phaul.Config, last_images_dir: Path | None
        ) -> Callable[[], None]:
            self.destination.add_images(criu.dump().images())
            self.destination.restore()
            self.destination.discard()
            raise ValueError("no, thank you")

    client = place.client(place.config(dirtier.pid), ChangeOfMind(place.server))
    with pytest.raises(CutoverFailed, match="no, thank you") as caught:
        client.migrate()
    check_untouched(dirtier, caught.value, place.here)


def cancel(clients: list[phaul.Client]) -> None:
    assert clients[0].cancel()


def test_cancel_in_the_final_dump(victim: StartVictim, tmp_path: Path) -> None:
    dirtier = victim("dirtier", "--size-mb", 64, "--rate", 500)
    clients: list[phaul.Client] = []
    with tap(20 * MIB, lambda *_: cancel(clients)) as (source, destination):
        there = phaul.Config(memory_fd=destination.fileno(), work_dir=tmp_path / "there")
        here = phaul.Config(pid=dirtier.pid, memory_fd=source.fileno(), work_dir=tmp_path / "here")
        with phaul.Server(there) as server:
            clients.append(phaul.Client(DumpOnly(), server, here))
            with pytest.raises(Cancelled) as caught:
                clients[0].migrate()
            check_untouched(dirtier, caught.value, tmp_path)
    assert list((tmp_path / "here").iterdir()) == [], "a cancel leaves no logs either"


def test_errors_are_of_the_tree() -> None:
    assert issubclass(RoundFailed, MigrationError)
    assert not issubclass(ImageError, MigrationError)
