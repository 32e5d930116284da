"""What may happen in the world of `model` beside what its actors want, and how a run goes on."""

from collections.abc import Callable
from typing import Final

from phaul.protocol.settlement import Verdict
from tests.unit.protocol.flaws import Flaw, LeftOver
from tests.unit.protocol.model import TASKS, World
from tests.unit.protocol.source_side import begin, resolve

__all__ = ["FAULTS", "finish", "go_on", "new", "pick"]

ACTORS: Final = ("phaul", "resolver", "source criu", "agent", "destination criu")
LIMIT: Final = 1000
"""Steps after which a run that should be over is said to hang."""


def new(*, lock: bool, flaws: frozenset[Flaw] = frozenset()) -> World:
    world = World(lock=lock, flaws=flaws)
    begin(world)
    return world


def pick(world: World, index: int) -> bool:
    """Do one of the things that can be done now; False if there is none."""
    runnable = world.runnable()
    options = len(runnable) + len(world.flying)
    if not options:
        return False
    index %= options
    if index < len(runnable):
        world.step(runnable[index])
    else:
        world.deliver(index - len(runnable))
    return True


def go_on(world: World, steps: int) -> int:
    """Let all go on, in turn and without a fault; how many steps there were to do."""
    for done in range(steps):
        world.turn += 1
        if not pick(world, world.turn):
            return done
    return steps


def _crash(name: str) -> Callable[[World, int], None]:
    return lambda world, _: world.crash(name)


def _late(name: str) -> Callable[[World, int], None]:
    def late(world: World, _: int) -> None:
        if world.lives(name):
            world.late.add(name)

    return late


def _end(task: str) -> Callable[[World, int], None]:
    return lambda world, _: world.task_ends(task)


def _ends_by_itself(world: World, index: int) -> None:
    if running := sorted(world.running):
        world.task_ends(running[index % len(running)])


def _lose(world: World, index: int) -> None:
    if world.flying:
        world.flying.pop(index % len(world.flying))


def _repeat(world: World, index: int) -> None:
    if world.flying:
        world.deliver(index % len(world.flying), again=True)


def _cut(world: World, index: int) -> None:
    if world.connections:
        world.cut(world.connections[index % len(world.connections)])


def _network(world: World, _: int) -> None:
    world.reachable = not world.reachable
    if not world.reachable:
        for connection in world.connections:
            world.cut(connection)


def _write_back(world: World, index: int) -> None:
    (world.journal, world.there, world.images)[index % 3].sync()


FAULTS: Final[dict[str, Callable[[World, int], None]]] = {
    **{f"{name} dies": _crash(name) for name in ACTORS},
    "the source loses power": lambda world, _: world.source_power_cut(),
    "the destination loses power": lambda world, _: world.destination_power_cut(),
    "a connection breaks": _cut,
    "a message is lost": _lose,
    "a message comes twice": _repeat,
    "the network comes or goes": _network,
    "phaul waits no longer": _late("phaul"),
    "resolve waits no longer": _late("resolver"),
    "the agent waits no longer": _late("agent"),
    "the kernel writes back": _write_back,
    "a task ends": _ends_by_itself,
    **{f"a stranger kills the {task}": _end(task) for task in TASKS},
}
"""By name; the number chooses among several."""


def finish(world: World) -> None:
    """No more faults: all runs to its end, resolve until it is settled; then it is looked at."""
    world.reachable = True
    _run_out(world)
    for _ in range(4):
        # What was settled here stays so; what is there may have died before it cleaned up.
        if world.settled not in (Verdict.HERE, Verdict.ENDED):
            world.settled = None
            resolve(world)
            _run_out(world)
        if world.settled is not None:
            break
    else:
        raise LeftOver(f"resolve comes to no end\n{world.story()}")
    # An agent has nothing to wait for now, and its lease is over.
    world.crash("agent")
    _run_out(world)
    world.check_end()


def _run_out(world: World) -> None:
    for _ in range(LIMIT):
        if pick(world, 0):
            continue
        waiting = [name for name in ("phaul", "resolver") if world.lives(name)]
        if not waiting:
            return
        world.late.update(waiting)
    raise LeftOver(f"it hangs\n{world.story()}")
