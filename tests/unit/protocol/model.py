"""A small world in which a migration is cut over, for `test_model`: two hosts and a network.

What has a will of its own is an actor (see `actors`): a generator that does one thing, then yields,
and may be cut off at any yield.  The world keeps what outlives them: the tasks, the copy, the files
with what a power cut would leave of them, and the messages in flight.

After every single step `check` looks for a violation (see `flaws`), by the truth, which no actor
sees.

What is excused is written down at the moment it happens, and nowhere else:

    lost        tasks that ended by themselves or were killed by a stranger
    power       the source's machine went down with the tree while it was the source's: its disk
                said so, or LOCKED and no READY was on the destination's disk, or LOCKED and there
                is no second lock
    let_go      there is no second lock, and CRIU let go of a task after DECIDED: a second history
                is possible until BACK is on the disk.  Never two copies, and never none
    copy_ran    a copy that ran ends with the destination's machine, as any process does
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Generic, TypeVar

from phaul.protocol.ownership import DestinationState, SourceState
from phaul.protocol.settlement import Copy, Settlement, Source, Step, Tree, Verdict, settle
from tests.unit.protocol.flaws import Flaw, LeftOver, Lost, TwoCopies, TwoHistories, Violation

T = TypeVar("T")
__all__ = ["TASKS", "Actor", "Connection", "Entry", "Held", "Message", "World"]

Actor = Generator[Callable[[], bool] | None, None, None]

TASKS: Final = ("root", "child", "grandchild")
"""In the order in which CRIU kills them."""


class File(Generic[T]):
    """What is read of a file, and what of it a power cut leaves."""

    def __init__(self, value: T) -> None:
        self.seen = self.kept = value

    def write(self, value: T) -> None:
        self.seen = value

    def sync(self) -> None:
        self.kept = self.seen

    def power_cut(self) -> None:
        self.seen = self.kept


@dataclass(frozen=True)
class Entry:
    """The source's journal."""

    state: SourceState
    locked: bool
    boot: int


class Held(Enum):
    """What there is of the copy."""

    NONE = "none"
    STILL = "still"
    RUNNING = "running"


@dataclass(eq=False)
class Connection:
    """A connection; what it brought to the source, and whether it is broken."""

    answers: list[str] = field(default_factory=list)
    standing: Copy = Copy.UNREACHED
    broken: bool = False


@dataclass(frozen=True)
class Message:
    """What is in flight; `standing` only in the answer to Ask."""

    kind: str
    connection: Connection
    to_source: bool
    standing: Copy = Copy.UNREACHED


class World:
    """All there is; `lock` is whether the source has cgroup v2."""

    def __init__(self, *, lock: bool, flaws: frozenset[Flaw] = frozenset()) -> None:
        self.lock = lock
        self.flaws = flaws
        self.actors: dict[str, Actor] = {}
        self._waits: dict[str, Callable[[], bool] | None] = {}
        self.late: set[str] = set()
        self.flying: list[Message] = []
        self.connections: list[Connection] = []
        self.reachable = True
        self.log: list[str] = []
        self.turn = 0

        self.boot = 1
        self.alive = set(TASKS)
        self.frozen: set[str] = set()
        self.journal: File[Entry | None] = File(None)
        self.kill_ordered = self.refused = False
        self.settled: Verdict | None = None

        self.there: File[DestinationState | None] = File(DestinationState.RECEIVING)
        self.images = File(False)
        self.copy = Held.NONE
        self.inbox: list[Message] = []
        self.agent_number = 0
        self.let_go_ordered = self.end_ordered = False

        self.dumped = self.ran_since_dump = self.copy_ran = False
        self.lost: set[str] = set()
        self.power = self.let_go = self.violated = False

    # Actors

    def start(self, name: str, actor: Actor) -> None:
        self.actors[name] = actor
        self._waits[name] = None

    def lives(self, name: str) -> bool:
        return name in self.actors

    def runnable(self) -> list[str]:
        waits = self._waits
        return [name for name in self.actors if (wait := waits[name]) is None or wait()]

    def step(self, name: str) -> None:
        """Let the actor do its next thing."""
        actor = self.actors[name]
        try:
            self._waits[name] = next(actor)
        except StopIteration:
            self._end(name)
        here = self.journal.seen.state.value if self.journal.seen else "-"
        there = self.there.seen.value if self.there.seen else "-"
        self.note(f"{name}: {here}, {there}")

    def crash(self, name: str) -> None:
        if name in self.actors:
            self._end(name)
            self.note(f"{name} dies")

    def _end(self, name: str) -> None:
        if name not in self.actors:
            return
        self.actors.pop(name).close()
        del self._waits[name]
        self.late.discard(name)
        if name == "destination criu" and self.copy is Held.STILL:
            self.copy = Held.NONE
        if name == "agent":
            self.inbox.clear()
            for connection in self.connections:
                connection.broken = True
            self.flying = [message for message in self.flying if message.to_source]

    # Network

    def connect(self) -> Connection:
        """A new connection; broken from the start if the destination is not reached."""
        connection = Connection(broken=not self.reachable)
        self.connections.append(connection)
        return connection

    def send(self, message: Message) -> None:
        if not message.connection.broken:
            self.flying.append(message)

    def deliver(self, index: int, *, again: bool = False) -> None:
        """Bring one of the messages in flight; `again` leaves it in flight, to come once more."""
        message = self.flying[index] if again else self.flying.pop(index)
        if message.to_source:
            message.connection.standing = message.standing
            message.connection.answers.append(message.kind)
        elif self.lives("agent"):
            self.inbox.append(message)
        self.note(f"{message.kind} comes")

    def cut(self, connection: Connection) -> None:
        """Break a connection: it delivers no more."""
        connection.broken = True
        self.flying = [message for message in self.flying if message.connection is not connection]
        self.note("a connection breaks")

    # Hosts

    @property
    def running(self) -> set[str]:
        """The tasks that run on the source."""
        if self.lives("source criu"):
            return set()
        return self.alive - (set() if Flaw.LOCK_LETS_GO in self.flaws else self.frozen)

    def source_power_cut(self) -> None:
        if self.alive and self._source_s_on_disk():
            self.power = True
        self.alive.clear()
        self.frozen.clear()
        for name in ("phaul", "resolver", "source criu"):
            self._end(name)
        self.journal.power_cut()
        self.boot += 1
        # What it sent may come yet; nobody is there to hear an answer.
        self.flying = [message for message in self.flying if not message.to_source]
        self.note("the source loses power")

    def _source_s_on_disk(self) -> bool:
        kept = self.journal.kept
        if kept is None or kept.state is not SourceState.LOCKED:
            decided = {SourceState.DECIDED, SourceState.GONE, SourceState.THERE}
            return kept is None or kept.state not in decided
        state = self.there.kept
        begun = state in (None, DestinationState.RECEIVING, DestinationState.RESTORING)
        return begun or not self.lock or state is DestinationState.DISCARDED

    def destination_power_cut(self) -> None:
        for name in ("agent", "destination criu"):
            self._end(name)
        self.copy = Held.NONE
        self.there.power_cut()
        self.images.power_cut()
        self.note("the destination loses power")

    def kill(self, task: str) -> None:
        self.alive.discard(task)
        self.frozen.discard(task)

    def task_ends(self, task: str) -> None:
        """By itself, or killed by a stranger, which takes a task that stands still too."""
        if task in self.alive:
            self.kill(task)
            self.lost.add(task)
            self.note(f"{task} ends")

    # What can be seen

    def tree(self) -> Tree:
        if self.alive == set(TASKS):
            return Tree.WHOLE
        if "root" in self.alive:
            return Tree.ROOT
        return Tree.PART if self.alive else Tree.GONE

    def source(self) -> Source:
        entry = self.journal.seen
        if entry is None:
            return Source(None, self.tree())
        same = entry.boot == self.boot
        return Source(entry.state, self.tree(), locked=entry.locked, same_boot=same)

    def found(self) -> Copy:
        """What an agent says that looks at its journal, its images and the processes."""
        here = self.copy
        return _copy(self.there.seen, self.images.seen, here)

    # The truth

    def note(self, what: str) -> None:
        """Something has happened: all that must always hold is looked at."""
        self.log.append(what)
        try:
            self.check()
        except Violation:
            self.violated = True
            raise

    def check(self) -> None:
        running = self.running
        if self.dumped and running:
            self.ran_since_dump = True
            if not self.lock and self.source().state is SourceState.DECIDED:
                self.let_go = True
        if self.copy is Held.RUNNING:
            self.copy_ran = True
            if running:
                raise TwoCopies(self.story())
        if self.copy_ran:
            if self.ran_since_dump and not self.let_go:
                raise TwoHistories(self.story())
            if self.journal.kept is not None and self.journal.kept.state is SourceState.BACK:
                raise TwoHistories(f"BACK was on the disk\n{self.story()}")
        if self.copy is Held.NONE and not self._whole_here():
            for source_down in (False, True):
                for destination_down in (False, True):
                    self._leads_back(source_down, destination_down)

    def _whole_here(self) -> bool:
        return bool(self.alive) and self.alive >= set(TASKS) - self.lost

    def _leads_back(self, source_down: bool, destination_down: bool) -> None:
        """What the journals say now, or after a power cut, must lead back to a whole process."""
        source = self.source()
        if source_down:
            kept = self.journal.kept
            source = Source(None, Tree.GONE)
            if kept is not None:
                source = Source(kept.state, Tree.GONE, locked=kept.locked, same_boot=False)
        state = self.there.kept if destination_down else self.there.seen
        images = self.images.kept if destination_down else self.images.seen
        said = self.settle(source, _copy(state, images, Held.NONE))
        if said.verdict is Verdict.THERE:
            well = self.copy_ran or (images and Step.RESTORE in said.steps)
        else:
            gone = self.power or self.lost == set(TASKS)
            well = said.verdict is Verdict.ENDED and gone and not self.copy_ran
        if not well:
            raise Lost(f"{source} {state} leads to {said}\n{self.story()}")

    def settle(self, source: Source, copy: Copy) -> Settlement:
        """The real table, but for the flaws."""
        if Flaw.RESUME_WITHOUT_ROOT in self.flaws and source.tree is Tree.PART:
            source = replace(source, tree=Tree.WHOLE)
        return settle(source, copy)

    def check_end(self) -> None:
        """All is over: one whole copy, or what is excused; and nothing is left elsewhere."""
        if self.actors or self.flying or self.frozen:
            raise LeftOver(f"{[*self.actors]} {self.frozen}\n{self.story()}")
        if self.copy is Held.RUNNING:
            if self.alive or self.images.seen:
                raise LeftOver(self.story())
            return
        if self.copy is Held.STILL or (self.images.seen and not self.copy_ran):
            raise LeftOver(self.story())
        if not self._whole_here() and not (self.power or self.copy_ran or self.lost == set(TASKS)):
            raise Lost(self.story())

    def story(self) -> str:
        return "\n".join(self.log)


def _copy(state: DestinationState | None, images: bool, copy: Held) -> Copy:
    match state:
        case None:
            return Copy.NOTHING
        case DestinationState.RECEIVING | DestinationState.RESTORING:
            return Copy.BEGUN
        case DestinationState.RUNNING:
            return Copy.RUNNING
        case DestinationState.DISCARDED:
            return Copy.BEGUN if images else Copy.NOTHING
        case DestinationState.RELEASING if copy is Held.RUNNING:
            return Copy.RUNNING
        case DestinationState.READY if copy is Held.STILL:
            return Copy.HELD
        case _ if not images:
            return Copy.NOTHING
        case DestinationState.RELEASING:
            return Copy.UNSURE
        case _:
            return Copy.IMAGES
