import re

import pytest

from phaul import errors
from phaul.errors import CriuError, PhaulError, RoundFailed


def drawn() -> list[tuple[int, str, int | None]]:
    """The depth, the name and the exit code of each line of the drawn tree."""
    found = []
    assert errors.__doc__
    for line in errors.__doc__.splitlines():
        match = re.match(r"^ {4}([ |]*(?:\+-- )?)(\w+)(?: +(\d+)\b)?", line)
        if match:
            found.append((len(match[1]) // 5, match[2], int(match[3]) if match[3] else None))
    return found


def tree(kind: type[PhaulError]) -> dict[str, str]:
    """Each class below `kind`, and its base."""
    found = {}
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            found[below.__name__] = kind.__name__
            found.update(tree(below))
    return found


def test_the_drawn_tree_is_the_tree() -> None:
    parents: dict[str, str] = {}
    stack: list[str] = []
    for depth, name, _ in drawn():
        del stack[depth:]
        if stack:
            parents[name] = stack[-1]
        stack.append(name)
    assert parents == tree(PhaulError)


def test_the_drawn_exit_codes_are_the_codes() -> None:
    codes: list[int] = []
    for depth, name, code in drawn():
        del codes[depth:]
        codes.append(codes[-1] if code is None else code)
        assert getattr(errors, name).exit_code == codes[-1], name


def test_all_is_complete() -> None:
    assert set(errors.__all__) == {"PhaulError", *tree(PhaulError)}
    assert errors.__all__ == sorted(errors.__all__)


def test_the_layout() -> None:
    error = CriuError(
        "it failed",
        request="DUMP",
        line="Error why",
        log_path="/x/dump.log",
        host="source",
        remedy="do this",
        fate="still here",
    )
    error.add_note("the other side says: no")
    assert str(error).splitlines() == [
        "source: it failed",
        "criu: Error why",
        "log: /x/dump.log",
        "do this",
        "the other side says: no",
        "still here",
    ]


def test_what_is_empty_takes_no_line() -> None:
    assert str(PhaulError("only this")) == "only this"
    assert str(CriuError("only this", request="DUMP")) == "only this"


@pytest.mark.parametrize("name", errors.__all__)
def test_each_has_a_docstring_and_a_code(name: str) -> None:
    kind = getattr(errors, name)
    assert kind.__doc__
    assert kind.exit_code in {1, 2, 3, 4, 5, 6, 7, 8, 130}


def test_the_fate_can_be_told_later() -> None:
    error = RoundFailed("round 0 failed")
    error.fate = "still running here, PID 7"
    assert str(error).endswith("\nstill running here, PID 7")
