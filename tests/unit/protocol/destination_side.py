"""The agent and its CRIU in the world of `model`, by the rules of `phaul.protocol.ownership`.

Each actor is a generator: what it does between two yields happens at once, and it may end at any of
them.  A yield of a function waits until that is true.  The owners, the states and the settlement
are the real ones; here is only the order in which things are done and written.
"""

from phaul.protocol.ownership import DestinationOwner, DestinationState
from tests.unit.protocol.flaws import Flaw, TwoCopies
from tests.unit.protocol.model import Actor, Held, Message, World

__all__ = ["start_agent"]

_D = DestinationState


def start_agent(world: World, *, first: bool = False) -> None:
    """Start `phaul agent`; not the `first` is one of a later connection."""
    world.agent_number += 1
    world.start("agent", agent(world, first))


def agent(world: World, first: bool) -> Actor:
    """`phaul agent`; not the `first` is one of a later connection, which finds a journal."""
    yield None
    if not first:
        yield lambda: not world.lives("destination criu")
        yield from _adopt(world)
    while True:
        yield lambda: bool(world.inbox) or "agent" in world.late or _copy_ended(world)
        if _copy_ended(world):
            yield from _lapse(world)
        if "agent" in world.late:
            world.late.discard("agent")
            if world.there.seen is _D.READY:
                yield from _end_criu(world)
                if Flaw.LEASE_DROPS_IMAGES in world.flaws:
                    world.images.write(False)
                yield from _lapse(world)
            elif world.there.seen in (_D.RECEIVING, _D.RESTORING):
                yield from _drop(world)
        if not world.inbox:
            continue
        message = world.inbox.pop(0)
        answer = "failed"
        match message.kind:
            case "restore":
                yield from _restore(world)
                answer = "ready" if world.there.seen is _D.READY else "failed"
            case "commit":
                yield from _commit(world)
                answer = "running" if world.there.seen is _D.RUNNING else "failed"
            case "discard":
                yield from _drop(world)
                gone = world.there.seen in (None, _D.DISCARDED)
                answer = "done" if gone else "failed"
            case "ask":
                answer = "standing"
            case "bye" if world.there.seen is _D.RUNNING:
                yield from _clean_up(world)
                world.there.write(None)
                return
        world.send(Message(answer, message.connection, to_source=True, standing=world.found()))
        yield None
        if world.there.seen is _D.RUNNING:
            yield from _clean_up(world)


def destination_criu(world: World) -> Actor:
    """Restores, holds the copy, and lets it go; its end is the end of a copy that it holds."""
    mine = world.agent_number
    yield None
    if world.copy is Held.RUNNING:
        raise TwoCopies(f"it is restored beside a copy that runs\n{world.story()}")
    world.copy = Held.STILL

    def left() -> bool:
        return not world.lives("agent") or world.agent_number != mine

    yield lambda: world.let_go_ordered or world.end_ordered or left()
    if world.let_go_ordered:
        world.copy = Held.RUNNING
        yield None


def _copy_ended(world: World) -> bool:
    return world.there.seen is _D.READY and world.copy is Held.NONE


def _write(world: World, owner: DestinationOwner) -> None:
    world.there.write(owner.state)


def _adopt(world: World) -> Actor:
    state = world.there.seen
    if state in (_D.READY, _D.AGAIN, _D.IMAGES):
        if state is not _D.IMAGES:
            yield from _lapse(world)
        # By our word the source may end what it has: who wrote this may have died before it, or
        # the images, were on the disk.
        world.images.sync()
        yield None
        world.there.sync()
        yield None
    elif state is _D.RELEASING and world.copy is Held.RUNNING:
        owner = DestinationOwner(state)
        owner.runs()
        _write(world, owner)
        yield None
    if world.there.seen is _D.RUNNING:
        yield from _clean_up(world)


def _lapse(world: World) -> Actor:
    assert world.there.seen is not None
    owner = DestinationOwner(world.there.seen)
    owner.lapse()
    _write(world, owner)
    yield None


def _end_criu(world: World) -> Actor:
    world.end_ordered = True
    yield lambda: not world.lives("destination criu")


def _restore(world: World) -> Actor:
    state = world.there.seen
    if state is _D.RELEASING and world.copy is Held.NONE:
        yield from _lapse(world)
        state = world.there.seen
    if state not in (_D.RECEIVING, _D.IMAGES) or not world.images.seen:
        return
    owner = DestinationOwner(state)
    owner.restore()
    _write(world, owner)
    yield None
    world.let_go_ordered = world.end_ordered = False
    world.start("destination criu", destination_criu(world))
    yield lambda: world.copy is Held.STILL or not world.lives("destination criu")
    if world.copy is Held.NONE or "agent" in world.late:
        world.late.discard("agent")
        yield from _end_criu(world)
        if owner.state is _D.RESTORING:
            yield from _drop(world)
        else:
            yield from _lapse(world)
        return
    if Flaw.IMAGES_UNSYNCED not in world.flaws:
        world.images.sync()
        yield None
    owner.ready()
    _write(world, owner)
    yield None
    if Flaw.READY_UNSYNCED not in world.flaws:
        world.there.sync()
        yield None


def _commit(world: World) -> Actor:
    if world.there.seen is not _D.READY:
        return
    owner = DestinationOwner(_D.READY)
    if Flaw.RELEASING_AFTER not in world.flaws:
        owner.commit()
        _write(world, owner)
        yield None
    world.let_go_ordered = True
    yield lambda: not world.lives("destination criu")
    if Flaw.RELEASING_AFTER in world.flaws:
        owner.commit()
    if world.copy is Held.RUNNING:
        owner.runs()
        _write(world, owner)
        yield None
    else:
        _write(world, owner)
        yield from _lapse(world)


def _drop(world: World) -> Actor:
    """End the copy and remove all of it: the source has the process."""
    state = world.there.seen
    if state in (None, _D.RELEASING, _D.RUNNING):
        return
    if state is not _D.DISCARDED:
        yield from _end_criu(world)
        assert state is not None
        owner = DestinationOwner(state)
        if state.gives_up:
            owner.give_up()
        else:
            owner.discard()
        _write(world, owner)
        yield None
    world.images.write(False)
    yield None
    world.images.sync()
    yield None
    world.there.sync()
    yield None


def _clean_up(world: World) -> Actor:
    """It runs: on the disk before the images go."""
    world.there.sync()
    yield None
    if world.images.seen:
        world.images.write(False)
        yield None
