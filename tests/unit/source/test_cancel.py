"""Cancelling at every stage: what cancel() says is what happens."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from phaul import Client, Criu, Event
from phaul.errors import Cancelled, CutoverFailed
from phaul.report import CutoverStarted, Held, RoundFinished, RoundStarted, SourceGone, Started
from tests.unit.conftest import Ends, running, state
from tests.unit.scenario import Dump, Fault

ROOT = Path(__file__).resolve().parents[3]
ONE_ROUND = (Dump(pages_written=10),)


@pytest.fixture(autouse=True)
def one_round(ends: Ends) -> None:
    ends.source.play(rounds=ONE_ROUND)


def wait_for(ends: Ends, what: str, count: int = 1) -> None:
    """Wait until the source's CRIU was asked for `what` so many times."""
    end = time.monotonic() + 30
    while len(ends.source.notes(what)) < count:
        assert time.monotonic() < end, ends.source.names()
        time.sleep(0.01)


def cancelled(ends: Ends, client: Client) -> Cancelled:
    with pytest.raises(Cancelled) as caught:
        client.migrate()
    assert running(ends.victim)
    assert caught.value.fate == f"still running here, PID {ends.victim}"
    assert ends.remote.calls.count("start") == ends.remote.calls.count("stop")
    return caught.value


def test_before_the_start(ends: Ends, tmp_path: Path) -> None:
    client = ends.client()
    assert client.cancel() is True
    cancelled(ends, client)
    assert "SINGLE_PRE_DUMP" not in ends.source.names()
    assert list((tmp_path / "src").glob("*")) == []


@pytest.mark.parametrize("number", [0, 1])
def test_in_a_round(ends: Ends, tmp_path: Path, number: int) -> None:
    hang = Dump(fault=Fault(kind="hang"))
    ends.source.play(rounds=(*(Dump(), Dump())[:number], hang))
    client = ends.client()
    said: list[bool] = []

    def cancel() -> None:
        wait_for(ends, "SINGLE_PRE_DUMP", number + 1)
        said.append(client.cancel())

    thread = threading.Thread(target=cancel)
    thread.start()
    cancelled(ends, client)
    thread.join()
    assert said == [True]
    assert list((tmp_path / "src").glob("*")) == []
    # And the next attempt goes well.
    ends.source.play(rounds=ONE_ROUND)
    client.new_chain(ends.fresh())
    client.migrate()
    assert running(ends.local.restored)


def test_in_the_final_dump(ends: Ends) -> None:
    ends.source.play(rounds=ONE_ROUND, final=Dump(fault=Fault(kind="hang")))
    client = ends.client()
    said: list[bool] = []

    def cancel() -> None:
        wait_for(ends, "answer:query-ext-files")
        said.append(client.cancel())

    thread = threading.Thread(target=cancel)
    thread.start()
    cancelled(ends, client)
    thread.join()
    assert said == [True]


@pytest.mark.parametrize(
    "kind",
    [Started, RoundStarted, RoundFinished, CutoverStarted, Held, SourceGone],
    ids=lambda k: k.__name__,
)
def test_from_the_event_handler(ends: Ends, kind: type[Event]) -> None:
    said: list[bool] = []
    client: Client

    def cancel(event: Event) -> None:
        if isinstance(event, kind):
            said.append(client.cancel())

    ends.on_event = cancel
    client = ends.client()
    assert said_and_done(ends, client) == said


@pytest.mark.parametrize(("name", "count"), [("start", 1), ("stop", 1), ("start", 2), ("stop", 2)])
def test_while_the_other_side_works(ends: Ends, name: str, count: int) -> None:
    said: list[bool] = []
    client = ends.client()

    def cancel(called: str, number: int) -> None:
        if (called, number) == (name, count):
            said.append(client.cancel())

    ends.remote.after = cancel
    assert said_and_done(ends, client) == said


@pytest.mark.parametrize("held", [False, True])
def test_from_the_callers_own_work(ends: Ends, held: bool) -> None:
    said: list[bool] = []
    client = ends.client()

    def work(criu: Criu) -> Callable[[], None]:
        if held:
            release = ends.local.move(criu)
            said.append(client.cancel())
            return release
        said.append(client.cancel())
        return ends.local.move(criu)

    ends.local.work = work
    assert said_and_done(ends, client) == said
    assert said == [not held]


def said_and_done(ends: Ends, client: Client) -> list[bool]:
    """Whether the migration was cancelled, as cancel() should have said; and it is consistent."""
    try:
        client.migrate()
    except Cancelled:
        done = True
    except CutoverFailed as error:
        # The caller's own work was told of it, and let it through.
        assert isinstance(error.__cause__, Cancelled)  # noqa: PT017
        done = True
    else:
        done = False
    if done:
        assert running(ends.victim)
        assert ends.remote.calls.count("start") == ends.remote.calls.count("stop")
    else:
        assert state(ends.victim) in {"", "Z"}
        assert running(ends.local.restored)
    return [done]


def test_after_the_end_it_is_too_late(ends: Ends) -> None:
    client = ends.client()
    client.migrate()
    assert client.cancel() is False


def test_an_overlooked_cancel_kills_nothing(ends: Ends) -> None:
    """A caller that swallows what `dump` raises must not lose the process by it."""
    client = ends.client()

    def cancel(name: str, count: int) -> None:
        if (name, count) == ("start", 2):
            client.cancel()

    def work(criu: Criu) -> None:
        try:
            criu.dump()
        except Exception as error:
            print(error)

    ends.remote.after = cancel
    ends.local.work = work
    with pytest.raises(Exception, match=r"cancel|without a dump"):
        client.migrate()
    assert running(ends.victim)


PROGRAM = """
import os, socket, sys
import phaul
from pathlib import Path

class Nobody:
    def start_iteration(self): pass
    def stop_iteration(self): pass
    def dump_copy_restore(self, criu, config, last): criu.dump()

near, far = socket.socketpair()
config = phaul.Config(pid=int(sys.argv[1]), memory_fd=near.fileno(), work_dir=Path(sys.argv[2]),
                      criu=sys.argv[3:])
try:
    phaul.Client(Nobody(), Nobody(), config).migrate()
except KeyboardInterrupt as error:
    print("interrupted:", error.__cause__)
    sys.exit(3)
"""


@pytest.mark.parametrize("where", ["round", "dump"])
def test_ctrl_c(ends: Ends, tmp_path: Path, where: str) -> None:
    hang = Dump(fault=Fault(kind="hang"))
    if where == "round":
        ends.source.play(rounds=(hang,))
        asked = "SINGLE_PRE_DUMP"
    else:
        ends.source.play(mem_track=False, final=hang)
        asked = "answer:query-ext-files"
    command = [sys.executable, "-c", PROGRAM, str(ends.victim), str(tmp_path / "work")]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    with subprocess.Popen(
        [*command, *ends.source.command], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        try:
            wait_for(ends, asked)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 3, output
    assert "interrupted: cancelled" in output
    assert running(ends.victim)
