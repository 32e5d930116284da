import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.cli.render.look import PLAIN, Look, cells, fold, labelled, padded

UTF8 = {"COLUMNS": "72", "TERM": "xterm"}


def stream(encoding: str = "utf-8") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


def test_a_pipe_is_plain() -> None:
    assert Look.of(stream(), environ=UTF8) == PLAIN
    assert PLAIN.paint("x", "bad") == "x"


def test_a_terminal() -> None:
    assert Look.of(stream(), terminal=True, environ=UTF8) == Look(72, colour=True, fancy=True)
    assert Look(colour=True).paint("x", "bad") == "\x1b[1;31mx\x1b[0m"


@pytest.mark.parametrize(("value", "colour"), [("1", False), ("0", False), ("", True)])
def test_no_color(value: str, colour: bool) -> None:
    environ = {**UTF8, "NO_COLOR": value}
    assert Look.of(stream(), terminal=True, environ=environ).colour is colour


def test_terminals_that_can_do_less() -> None:
    dumb = Look.of(stream(), terminal=True, environ={**UTF8, "TERM": "dumb"})
    assert (dumb.colour, dumb.fancy) == (False, False)
    assert not Look.of(stream("ascii"), terminal=True, environ=UTF8).fancy


def test_a_terminal_of_no_known_width() -> None:
    assert Look.of(stream(), terminal=True, environ={}).width == 80


def test_a_closed_stream_is_no_terminal() -> None:
    closed = stream()
    closed.close()
    assert Look.of(closed, environ=UTF8) == PLAIN


def test_wide_characters_and_accents() -> None:
    assert cells("ab") == 2
    assert cells("\u5357\u5317") == 4
    assert cells("e\u0301") == 1
    assert cells(padded("\u5357", 6)) == 6


def test_a_path_stays_whole() -> None:
    path = "/var/lib/phaul/migrations/" + "x" * 40 + "/dump.log"
    assert path in fold(f"the log is {path} over there", 30)
    assert fold("a b", 0) == ["a b"]


@given(st.text(), st.integers(20, 200))
def test_folding_loses_nothing(text: str, width: int) -> None:
    lines = fold(text, width)
    assert "".join("".join(lines).split()) == "".join(
        "".join(c if c.isprintable() else " " if c in "\n\t" else "?" for c in text).split()
    )
    assert all(line.isprintable() for line in lines)


def test_labels_stand_in_a_column() -> None:
    rows = [("a", "one two three four five six", ""), ("long one", "2", "bad"), ("none", "", "")]
    assert labelled(rows, Look(width=33)).splitlines() == [
        "a         one two three four five",
        "          six",
        "long one  2",
    ]
