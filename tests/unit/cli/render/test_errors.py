import json

from phaul.cli.render.errors import error_json, error_text
from phaul.cli.render.look import Look
from phaul.errors import (
    Cancelled,
    CriuError,
    CutoverFailed,
    OutcomeUnknown,
    PhaulError,
    UsageError,
)
from phaul.protocol.failure import from_error, to_error

LINE = "Error (criu/sk-inet.c:200): inet: Connected TCP socket, consider using --tcp-established."


def criu_error() -> CriuError:
    return CriuError(
        "criu failed the DUMP request",
        request="DUMP",
        line=LINE,
        log_path="/run/x/3/dump.log",
        host="source",
        remedy="the process has TCP connections: use --tcp keep",
    )


def failed_cutover() -> CutoverFailed:
    cause = criu_error()
    try:
        raise CutoverFailed(f"the cutover failed: {cause}", host="source") from cause
    except CutoverFailed as error:
        error.fate = "still running here, PID 4242"
        error.add_note("the other side says: the channel ended")
        return error


WHOLE = [
    "error     source: the cutover failed: source: criu failed the DUMP request",
    f"criu      {LINE}",
    "log       /run/x/3/dump.log",
    "also      the other side says: the channel ended",
    "do        the process has TCP connections: use --tcp keep",
    "process   still running here, PID 4242",
]


def test_each_part_has_its_label_and_is_said_once() -> None:
    assert error_text(failed_cutover()).splitlines() == WHOLE


def test_one_that_came_over_the_network_has_the_same_parts() -> None:
    text = error_text(to_error(from_error(failed_cutover())))
    assert sorted(line[10:] for line in text.splitlines()) == sorted(line[10:] for line in WHOLE)
    assert f"criu      {LINE}" in text
    assert "log       /run/x/3/dump.log" in text
    assert text.splitlines()[-1] == WHOLE[-1]


def test_on_a_terminal() -> None:
    text = error_text(UsageError("a b", remedy="c " * 20), Look(width=30, colour=True))
    first, second, *_ = text.splitlines()
    assert first == "\x1b[1;31merror\x1b[0m     a b"
    assert second.startswith("\x1b[32mdo\x1b[0m        c c")
    assert len(text.splitlines()) == 3


def test_nothing_in_it_steers_the_terminal() -> None:
    text = error_text(PhaulError("a\x1b[2Jb", remedy="c\x07", fate="d\re"))
    assert text.splitlines() == ["error     a?[2Jb", "do        c?", "process   d?e"]


def test_an_error_without_words() -> None:
    assert error_text(PhaulError("")) == ""


def test_as_json() -> None:
    found = json.loads(error_json(failed_cutover(), id="k3v9"))
    assert found["v"] == 1
    assert found["outcome"] == "not-moved"
    assert (found["exit_code"], found["process"], found["id"]) == (7, "source", "k3v9")
    assert (found["kind"], found["criu_line"]) == ("CutoverFailed", LINE)
    assert found["log"] == "/run/x/3/dump.log"
    assert found["fate"] == "still running here, PID 4242"
    assert found["notes"] == ["the other side says: the channel ended"]


def test_where_the_process_is() -> None:
    def where(error: PhaulError) -> object:
        return json.loads(error_json(error))["process"]

    assert where(Cancelled("x")) == "source"
    assert where(OutcomeUnknown("x")) == "unknown"
    assert where(PhaulError("x")) == "unknown"


def test_a_path_that_is_no_text() -> None:
    assert json.loads(error_json(PhaulError("a\udcff")))["what"] == "a?"
