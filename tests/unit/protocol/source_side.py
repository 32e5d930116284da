"""The migration, its CRIU and `phaul resolve` in the world of `model`, by the rules of ownership.

Each actor is a generator: what it does between two yields happens at once, and it may end at any of
them.  A yield of a function waits until that is true.  The owners, the states and the settlement
are the real ones; here is only the order in which things are done and written.
"""

from collections.abc import Callable

from phaul.protocol.ownership import SourceOwner, SourceState
from phaul.protocol.settlement import Copy, Step, Tree, Verdict
from tests.unit.protocol.destination_side import start_agent
from tests.unit.protocol.flaws import Flaw
from tests.unit.protocol.model import TASKS, Actor, Connection, Entry, Message, World

__all__ = ["begin", "resolve"]


def begin(world: World) -> None:
    """Both ends are there, and the tree runs."""
    world.journal.write(Entry(SourceState.RUNNING, False, world.boot))
    start_agent(world, first=True)
    world.start("phaul", phaul(world, world.connect()))


def resolve(world: World) -> None:
    """Start `phaul resolve`; it does not come past a phaul or another one of itself."""
    if not world.lives("phaul") and not world.lives("resolver"):
        world.start("resolver", resolver(world))


def phaul(world: World, connection: Connection) -> Actor:
    """The migration itself, from the freeze on."""
    owner = SourceOwner()
    locked = False

    def held() -> bool:
        return world.lives("source criu")

    def write(state: SourceState | None = None) -> None:
        old = world.journal.seen
        world.journal.write(Entry(state or owner.state, locked, old.boot if old else world.boot))

    yield None
    owner.freeze()
    write()
    yield None
    world.kill_ordered = world.refused = False
    world.start("source criu", source_criu(world))
    world.dumped = True
    yield None
    locked = world.lock
    write(SourceState.LOCKED)  # as soon as CRIU holds all of it, beside the dump
    yield None
    if Flaw.LOCKED_UNSYNCED not in world.flaws:
        world.journal.sync()
        yield None
    world.images.write(True)
    if world.lock:
        for task in TASKS:
            world.frozen |= {task} & world.alive
            yield None
    if not held() and Flaw.HOLD_NOT_SEEN not in world.flaws:
        # It ran between CRIU's hold and the second lock.
        owner.back()
        yield from _roll_back(world, connection, write)
        return
    owner.lock()
    yield None
    world.send(Message("restore", connection, to_source=False))
    yield _answer(world, "phaul", connection, lambda: not held())
    if _heard(world, "phaul", connection) != "ready" or not held():
        owner.back()
        yield from _roll_back(world, connection, write)
        return
    yield None
    owner.decide()
    write()
    yield None
    if not world.lock and Flaw.DECIDED_UNSYNCED not in world.flaws:
        world.journal.sync()
        yield None
    if Flaw.COMMIT_BEFORE_KILL in world.flaws:
        world.send(Message("commit", connection, to_source=False))
        yield None
    world.kill_ordered = True
    yield lambda: not held()
    if world.alive:
        yield from resolver(world)
        return
    owner.gone()
    write()
    yield None
    assert owner.may_commit
    world.send(Message("commit", connection, to_source=False))
    yield _answer(world, "phaul", connection)
    if _heard(world, "phaul", connection) == "running":
        owner.there()
        write()
        yield from _bye(world, connection)


def _roll_back(world: World, connection: Connection, write: Callable[[], None]) -> Actor:
    yield from _back(world, write)
    world.send(Message("discard", connection, to_source=False))
    yield None
    yield from _give_back(world)
    world.refused = True
    yield _answer(world, "phaul", connection)
    if _heard(world, "phaul", connection) == "done":
        world.settled = Verdict.HERE
    if Flaw.COMMIT_AFTER_DISCARD in world.flaws:
        world.send(Message("commit", connection, to_source=False))


def source_criu(world: World) -> Actor:
    """Holds the tree from the dump on; as it ends it lets go of what it holds."""
    yield lambda: world.kill_ordered or world.refused or not world.lives("phaul")
    if world.kill_ordered:
        for task in TASKS:
            world.kill(task)
            yield None


def resolver(world: World) -> Actor:
    """`phaul resolve`: it looks, settles, and does what is to be done."""
    me = "resolver" if world.lives("resolver") else "phaul"
    yield None
    yield lambda: not world.lives("source criu")
    connection = world.connect()
    if not connection.broken and not world.lives("agent"):
        start_agent(world)
    yield None
    world.send(Message("ask", connection, to_source=False))
    yield _answer(world, me, connection)
    heard = _heard(world, me, connection) == "standing"
    copy = connection.standing if heard else Copy.UNREACHED
    source = world.source()
    settled = world.settle(source, copy)
    world.note(f"resolve: {source} {copy} -> {settled.verdict} {settled.steps}")
    owner = SourceOwner(source.state or SourceState.RUNNING)

    def write() -> None:
        old = world.journal.seen
        world.journal.write(Entry(owner.state, source.locked, old.boot if old else world.boot))

    for step in settled.steps:
        yield None
        match step:
            case Step.RESUME:
                if owner.state is not SourceState.BACK:
                    owner.back(whole=source.tree in (Tree.WHOLE, Tree.ROOT))
                yield from _back(world, write)
                yield from _give_back(world)
            case Step.KILL_REST:
                yield from _kill_rest(world, owner, write)
            case Step.RESTORE:
                world.send(Message("restore", connection, to_source=False))
                yield _answer(world, me, connection)
                if _heard(world, me, connection) != "ready":
                    return
            case Step.COMMIT:
                _gone(owner)
                yield from _on_disk(world, write)
                assert owner.may_commit
                world.send(Message("commit", connection, to_source=False))
                yield _answer(world, me, connection)
                if _heard(world, me, connection) != "running":
                    return
                copy = Copy.RUNNING
            case Step.DISCARD:
                world.send(Message("discard", connection, to_source=False))
                yield _answer(world, me, connection)
                if _heard(world, me, connection) != "done":
                    return
    if settled.verdict is Verdict.THERE and copy is Copy.RUNNING:
        yield from _there(world, owner, write)
        yield from _bye(world, connection)
    if settled.verdict is not Verdict.UNKNOWN and copy is not Copy.UNREACHED:
        world.settled = settled.verdict


def _there(world: World, owner: SourceOwner, write: Callable[[], None]) -> Actor:
    """Write down, from wherever it stands, that it runs there."""
    _gone(owner)
    if owner.state is SourceState.GONE:
        owner.there()
    write()
    yield None


def _gone(owner: SourceOwner) -> None:
    if owner.state is SourceState.LOCKED:
        owner.decide()
    if owner.state is SourceState.DECIDED:
        owner.gone()


def _kill_rest(world: World, owner: SourceOwner, write: Callable[[], None]) -> Actor:
    if owner.state is SourceState.LOCKED:
        owner.decide()
    yield from _on_disk(world, write)
    for task in TASKS:
        world.kill(task)
        yield None


def _on_disk(world: World, write: Callable[[], None]) -> Actor:
    """Also what was only read: who wrote it may have died before it was on the disk."""
    write()
    yield None
    world.journal.sync()
    yield None


def _back(world: World, write: Callable[[], None]) -> Actor:
    write()
    yield None
    if Flaw.BACK_UNSYNCED not in world.flaws:
        world.journal.sync()
        yield None


def _give_back(world: World) -> Actor:
    """Thaw, task by task."""
    for task in TASKS:
        world.frozen.discard(task)
        yield None


def _bye(world: World, connection: Connection) -> Actor:
    """THERE was written: the destination may forget it."""
    yield None
    if Flaw.BYE_BEFORE_THERE not in world.flaws:
        world.journal.sync()
        yield None
    world.send(Message("bye", connection, to_source=False))


def _answer(
    world: World, me: str, connection: Connection, other: Callable[[], bool] = lambda: False
) -> Callable[[], bool]:
    """Wait for an answer, the end of the connection, or of patience."""
    return lambda: bool(connection.answers) or connection.broken or me in world.late or other()


def _heard(world: World, me: str, connection: Connection) -> str:
    world.late.discard(me)
    return connection.answers.pop(0) if connection.answers else ""
