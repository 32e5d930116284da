"""`phaul resolve`: settles a migration that was torn apart.  Runs on the source.

It looks at both hosts, says what it found and what is to be done, and does it with --yes.
"""

import time
from contextlib import suppress
from signal import SIGKILL
from typing import Final

import anyio
import click
import msgspec

from phaul.cli.arrivals import arrived
from phaul.cli.migrations import MIGRATION, fate, give_back_left, plain, registry
from phaul.cli.wishing import reach
from phaul.errors import OutcomeUnknown, PeerError, StateError, UsageError
from phaul.protocol.ownership import SourceState
from phaul.protocol.settlement import Copy, Step, Tree, Verdict
from phaul.source.resolution import Found, Resolution
from phaul.source.steering import Standing, Status, ask
from phaul.storage.aftermath import tidy
from phaul.storage.entry import Entry, State
from phaul.storage.journal import Journal, SourceRecord
from phaul.storage.registry import Registry
from phaul.subjects.process import Subject

__all__ = ["command"]

_HERE: Final = 7
_ENDED: Final = 1
_ANSWER_S: Final = 3.0
_END_S: Final = 15.0

_TREE: Final = {
    Tree.WHOLE: "all of it is still there",
    Tree.ROOT: "its root and a part of the rest are still there",
    Tree.PART: "its root is gone, a part of the rest is still there",
    Tree.GONE: "nothing of it is left",
}
_COPY: Final = {
    Copy.UNREACHED: "was not reached",
    Copy.NOTHING: "nothing of it",
    Copy.BEGUN: "it has begun to receive it, there is no copy yet",
    Copy.HELD: "a copy, restored and held still",
    Copy.IMAGES: "the images, from which it can be restored",
    Copy.UNSURE: "the images; a copy was let go, and has ended since, or never ran",
    Copy.RUNNING: "it runs there",
}
_STEP: Final = {
    Step.RESUME: "let it run on here",
    Step.KILL_REST: "kill what is left of it here",
    Step.RESTORE: "restore it there from the images",
    Step.COMMIT: "let the copy run there",
    Step.DISCARD: "remove what is there",
}


@click.command()
@click.argument("migration", metavar="ID", type=MIGRATION)
@click.argument("target", required=False)
@click.option("-y", "--yes", is_flag=True, help="Do it, do not only say what is to be done.")
@click.option("--json", "as_json", is_flag=True, help="What was found, as one JSON object.")
def command(migration: str, target: str | None, yes: bool, as_json: bool) -> int:
    """Find the process of a migration that was torn apart, and let exactly one of it run.

    Looks at both machines' journals and processes, says what it found and what is to be done, and
    with --yes does it: resumes it here, or releases the copy there, or restores it there from the
    images that were kept.  It never lets two run.  TARGET is how the other machine is reached now,
    if not as it was.

    Exit status: 0 it runs on the target, 7 it runs here, 1 it has ended, 8 not settled.
    """
    known = registry()
    give_back_left(known)
    entry = _find(known, migration)
    if not entry.over and not _ended(entry, known, yes=yes):
        click.echo(
            f"the phaul of {entry.id}, PID {entry.phaul.pid}, does not answer: with --yes it is "
            "ended first"
        )
        return OutcomeUnknown.exit_code
    entry = known.find(entry.id)
    record = Journal(known.directory(entry), SourceRecord).read()
    if entry.state is not State.UNKNOWN and (record is None or record.settled):
        if yes:
            tidy(known.directory(entry))
        return _settled(entry)
    resolution = Resolution(
        id=entry.id,
        directory=known.directory(entry),
        root=record.root if record is not None else entry.process,
        connect=reach(target or entry.target),
        peer=plain(entry.destination or target or entry.target),
    )

    async def run() -> Found:
        return await (resolution.settle() if yes else resolution.look())

    found = anyio.run(run)
    code = _code(found, done=yes)
    pid = resolution.destination_pid or entry.destination_pid
    if yes and found.verdict is not Verdict.UNKNOWN:
        _write_down(known, entry, found, pid, code)
        if found.verdict is not Verdict.LOST or (record is not None and record.follows):
            tidy(known.directory(entry))
    if as_json:
        click.echo(_json(entry, found, resolution.peer, pid, code, done=yes))
    else:
        click.echo("\n".join(_said(entry, record, found, resolution.peer, pid, done=yes)))
    return code


def _find(known: Registry, migration: str) -> Entry:
    """The migration; raises UsageError, which knows of those that came here, too."""
    try:
        return known.find(migration)
    except UsageError as error:
        for arrival in arrived(migration):
            source = plain(arrival.record.source)
            raise UsageError(
                f"migration {arrival.record.id} came from {source}, whose journal decides",
                remedy=f"on {source}: `phaul resolve {arrival.record.id}`",
            ) from error
        raise


def _ended(entry: Entry, known: Registry, *, yes: bool) -> bool:
    """Whether a migration that is not over has been ended; raises UsageError if it is under way."""
    with suppress(PeerError):
        if isinstance(ask(known.socket(entry), Status(), _ANSWER_S), Standing):
            raise UsageError(
                f"migration {entry.id} is still under way ({entry.state.value})",
                remedy=f"`phaul status {entry.id}` shows it, `phaul cancel {entry.id}` ends it",
            )
    if known.find(entry.id).over:
        return True
    if not yes:
        return False
    entry.phaul.signal(SIGKILL)
    until = time.monotonic() + _END_S
    while entry.phaul.alive():
        if time.monotonic() > until:
            raise StateError(f"the phaul of {entry.id}, PID {entry.phaul.pid}, cannot be ended")
        time.sleep(0.02)
    return True


def _settled(entry: Entry) -> int:
    where = f": {fate(entry)}" if entry.fate or entry.state is not State.DONE else ""
    click.echo(f"nothing to settle, {entry.id} is {entry.state.value}{where}")
    return 0


def _code(found: Found, *, done: bool) -> int:
    if found.verdict is Verdict.UNKNOWN or (found.settlement.steps and not done):
        return OutcomeUnknown.exit_code
    return {
        Verdict.THERE: 0,
        Verdict.HERE: _HERE,
        Verdict.ENDED: _ENDED,
        Verdict.LOST: OutcomeUnknown.exit_code,
        Verdict.UNKNOWN: OutcomeUnknown.exit_code,
    }[found.verdict]


def _write_down(known: Registry, entry: Entry, found: Found, pid: int | None, code: int) -> None:
    there = found.verdict is Verdict.THERE
    known.settled(
        entry,
        State.DONE if there else State.UNKNOWN if found.verdict is Verdict.LOST else State.FAILED,
        fate=_where(entry, found, pid),
        exit_code=code,
        destination_pid=pid if there else None,
    )


def _where(entry: Entry, found: Found, pid: int | None) -> str:
    match found.verdict:
        case Verdict.THERE:
            return f"running on {entry.destination or entry.target}, PID {pid or entry.pid}"
        case Verdict.HERE:
            return Subject(entry.pid, entry.name, entry.process.start).fate()
        case Verdict.ENDED:
            return f"no longer here: {found.settlement.why}"
        case Verdict.LOST:
            return f"lost: {found.settlement.why}"
        case _:
            return "unknown"


def _said(
    entry: Entry,
    record: SourceRecord | None,
    found: Found,
    peer: str,
    pid: int | None,
    *,
    done: bool,
) -> list[str]:
    state = record.state if record is not None else SourceState.RUNNING
    held = ", held by a frozen cgroup" if found.source.locked and found.source.same_boot else ""
    here = _TREE[found.source.tree] + (held if found.source.tree is not Tree.GONE else "")
    if not found.source.same_boot:
        here = "this machine has started anew since, nothing of it is left"
    lines = [
        f"{entry.id}: {plain(entry.name)}, PID {entry.pid}, to {plain(entry.target)}",
        f"here     {here}; the journal says {state.value!r}",
        f"there    {peer}: {_COPY[found.copy]}",
    ]
    if found.standing is not None and found.standing.path and found.copy is not Copy.NOTHING:
        lines.append(f"         in {plain(found.standing.path)}")
    if found.unreached is not None:
        lines.append(f"         {plain(found.unreached.what)}")
    lines.append(f"so       {found.settlement.why}")
    steps = [_STEP[step] for step in found.settlement.steps]
    if steps:
        lines.append(f"{'done    ' if done else 'to do   '} {', then '.join(steps)}")
    if steps and not done:
        lines.append(f"`phaul resolve {entry.id} --yes` does it")
    elif found.verdict is Verdict.UNKNOWN:
        lines.append(f"nothing was done: try again when {peer} can be reached")
    else:
        lines.append(f"process  {plain(_where(entry, found, pid))}")
        if found.copy is Copy.UNREACHED and found.verdict is not Verdict.THERE:
            lines.append(f"{peer} may hold a copy, which never runs: resolve again to remove it")
    return lines


def _json(entry: Entry, found: Found, peer: str, pid: int | None, code: int, *, done: bool) -> str:
    return msgspec.json.encode(
        {
            "v": 1,
            "id": entry.id,
            "destination": peer,
            "source": {
                "journal": found.source.state,
                "tree": found.source.tree,
                "locked": found.source.locked,
                "same_boot": found.source.same_boot,
            },
            "copy": found.copy,
            "unreached": found.unreached.what if found.unreached is not None else "",
            "verdict": found.verdict,
            "why": found.settlement.why,
            "steps": found.settlement.steps,
            "done": done and found.verdict is not Verdict.UNKNOWN,
            "destination_pid": pid,
            "exit_code": code,
        }
    ).decode()
