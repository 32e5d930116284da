"""What the unit tests share: a process to move, sockets, the fake CRIU, two ends of a migration."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import settings

from phaul import Client, Config, Criu, Event, Server
from phaul.criu import lazydump
from phaul.incarnation import Incarnation
from phaul.subjects.proc import lives
from tests.unit.scenario import Note, Scenario, read_notes

# How long an example takes is the machine's business.  `make test` tries the same examples each
# time, so that what fails is what was changed; `make search` tries others, and more of them.
settings.register_profile("search", deadline=None, max_examples=1000)
settings.register_profile("phaul", deadline=None, derandomize=True)
settings.load_profile("phaul")

FAKE = Path(__file__).with_name("fake_criu.py")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def state(pid: int) -> str:
    """The state letter of a process, "" if it does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def dead(pid: int) -> bool:
    """Whether a process has ended, or has got its SIGKILL: it is never again in its own code."""
    one = Incarnation.of(pid)
    return one is None or not lives(one)


def running(pid: int) -> bool:
    """Whether the process exists and neither is a zombie nor stopped."""
    return state(pid) in {"R", "S", "D"}


def descriptors() -> dict[int, str]:
    """The open descriptors of this process, and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 -- the numbers are wanted
        with suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
    return {n: what for n, what in found.items() if not what.endswith("/fd")}


def children() -> set[int]:
    """The children of this process, zombies too."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found.update(int(pid) for pid in (task / "children").read_text().split())
    return found


@pytest.fixture
def unprivileged() -> list[str]:
    """What runs a command as a user who may do nothing."""
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if subprocess.run([*command, sys.executable, "-c", ""], check=False).returncode:
        pytest.skip("nobody else may run this Python")
    return command


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fails a test after which there are more descriptors or children than before."""
    before, kin = descriptors(), children()
    yield
    assert descriptors() == before
    assert children() <= kin


@pytest.fixture
def small_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dump without the memory, on a machine that allows no large pipes."""
    monkeypatch.setattr(lazydump, "PIPE", 1 << 16)


@pytest.fixture
def victim() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that only sleeps."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        yield process
        process.kill()


@dataclass
class Fake:
    """The fake CRIU with its scenario."""

    path: Path
    notes_path: Path

    @property
    def command(self) -> tuple[str, ...]:
        return (sys.executable, str(FAKE), str(self.path))

    def play(self, **changes: object) -> None:
        """Write the scenario; the fakes that start from now on follow it."""
        scenario = Scenario(notes=str(self.notes_path))
        replace(scenario, **changes).write(self.path)  # type: ignore[arg-type]

    def notes(self, what: str = "") -> list[Note]:
        found = read_notes(self.notes_path)
        return [note for note in found if note.what == what] if what else found

    def names(self) -> list[str]:
        return [note.what for note in self.notes()]


def make_fake(directory: Path) -> Fake:
    fake = Fake(directory / "scenario.json", directory / "notes.jsonl")
    fake.play()
    return fake


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    """A fake CRIU that does all well; what it leaves running is ended."""
    directory = tmp_path / "fake"
    directory.mkdir()
    made = make_fake(directory)
    yield made
    for note in made.notes():
        if note.what == "restored" or note.worker:
            _end(note.pid if note.what == "restored" else note.worker)


def _end(pid: int) -> None:
    with suppress(OSError):
        if b"fake_criu" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


class Embedder:
    """A caller of the library: its `dump_copy_restore` dumps, copies and restores, if not told
    otherwise, and `steps` says what was done in which order."""

    def __init__(self, server: Server, victim: int) -> None:
        self.server = server
        self.victim = victim
        self.steps: list[str] = []
        self.last: Path | None = None
        self.restored = 0
        self.work: Callable[[Criu], Callable[[], None] | None] = self.move

    def dump_copy_restore(
        self, criu: Criu, config: Config, last_images_dir: Path | None
    ) -> Callable[[], None] | None:
        assert config.pid == self.victim
        self.last = last_images_dir
        return self.work(criu)

    def move(self, criu: Criu) -> Callable[[], None]:
        held = criu.dump()
        self.steps.append(f"held {state(self.victim)}")
        self.server.add_images(held.images())
        self.restored = self.server.restore()
        self.steps.append("restored")
        return self.release

    def release(self) -> None:
        self.steps.append(f"release {'Z' if dead(self.victim) else state(self.victim)}")
        self.server.release()


class Counting:
    """A Remote that notes its calls; `before` is run before each of them."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.calls: list[str] = []
        self.before: Callable[[str, int], None] = lambda _name, _count: None
        self.after: Callable[[str, int], None] = lambda _name, _count: None

    def start_iteration(self) -> None:
        self._do("start", self.server.start_iteration)

    def stop_iteration(self) -> None:
        self._do("stop", self.server.stop_iteration)

    def _do(self, name: str, method: Callable[[], None]) -> None:
        self.calls.append(name)
        count = self.calls.count(name)
        self.before(name, count)
        method()
        self.after(name, count)


@dataclass
class Ends:
    """Both ends of a migration, in this process, each with a fake CRIU of its own."""

    victim: int
    source: Fake
    target: Fake
    server: Server
    remote: Counting
    local: Embedder
    config: Config
    stack: ExitStack
    events: list[Event] = field(default_factory=list)
    on_event: Callable[[Event], None] = lambda _event: None

    def client(self, **changes: object) -> Client:
        """A client; `changes` are of its configuration."""
        config = replace(self.config, **changes)  # type: ignore[arg-type]

        def handle(event: Event) -> None:
            self.events.append(event)
            self.on_event(event)

        return Client(self.local, self.remote, config, on_event=handle)

    def fresh(self) -> int:
        """A fresh socket for both ends; the server has it already."""
        near, far = socket.socketpair()
        self.stack.enter_context(near)
        self.stack.enter_context(far)
        self.server.new_chain(far.fileno())
        return near.fileno()


@pytest.fixture
def ends(tmp_path: Path, victim: "subprocess.Popen[bytes]", fake: Fake) -> Iterator[Ends]:
    directory = tmp_path / "target"
    directory.mkdir()
    target = make_fake(directory)
    with ExitStack() as stack:
        near, far = (stack.enter_context(sock) for sock in socket.socketpair())
        base = Config(
            memory_fd=near.fileno(), work_dir=tmp_path / "src", pid=victim.pid, criu=fake.command
        )
        there = replace(
            base,
            memory_fd=far.fileno(),
            work_dir=tmp_path / "dst",
            pid=None,
            criu=target.command,
        )
        server = Server(there)
        stack.callback(server.close)
        made = Ends(
            victim.pid,
            fake,
            target,
            server,
            Counting(server),
            Embedder(server, victim.pid),
            base,
            stack,
        )
        yield made
        for note in target.notes("restored"):
            _end(note.pid)
