"""An error crosses over and is raised there as the same class with the same fields."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul import errors
from phaul.errors import CriuError, PhaulError, RoundFailed
from phaul.protocol.failure import from_error, to_error
from phaul.protocol.messages import Failed, decode_answer, encode

KINDS = [getattr(errors, name) for name in errors.__all__]


def across(error: BaseException, host: str = "") -> PhaulError:
    answer = decode_answer(encode(from_error(error, host)))
    assert isinstance(answer, Failed)
    return to_error(answer)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_class(kind: type[PhaulError]) -> None:
    given_ = {"host": "host2", "remedy": "do this", "fate": "still there"}
    if issubclass(kind, CriuError):
        error: PhaulError = kind(
            "it failed",
            request="R",
            line="Error why",
            log_path="/x/y.log",
            errno=17,
            **given_,
        )
    else:
        error = kind("it failed", **given_)
    error.add_note("the other side says: no")
    found = across(error)
    assert type(found) is kind
    assert vars(found) == vars(error)
    assert str(found) == str(error)


def test_an_unknown_kind_becomes_the_base() -> None:
    found = to_error(Failed(kind="FromTheFuture", what="x"))
    assert type(found) is PhaulError
    assert found.host == "destination"


@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "object", "SystemExit", "ClassVar"])
def test_only_phauls_own_classes_are_raised(kind: str) -> None:
    assert type(to_error(Failed(kind=kind, what="x"))) is PhaulError


def test_a_class_of_the_callers_travels_as_its_base() -> None:
    class Mine(RoundFailed):
        pass

    class CriuError(RoundFailed):  # named as one of ours, but it is not
        pass

    assert type(across(Mine("x"))) is RoundFailed
    assert type(across(CriuError("x"))) is RoundFailed


def test_a_fault_of_the_program() -> None:
    found = across(KeyError("x"), "host2")
    assert type(found) is PhaulError
    assert found.what == "unexpected KeyError: 'x'"
    assert found.host == "host2"


anything = st.text(max_size=300)


@given(anything, anything, anything, st.integers(), st.lists(anything, max_size=12))
def test_any_text_can_travel(
    what: str, remedy: str, line: str, errno: int, notes: list[str]
) -> None:
    error = CriuError(what, request=line, line=line, log_path=line, errno=errno, remedy=remedy)
    for note in notes:
        error.add_note(note)
    found = across(error)
    assert type(found) is CriuError
    assert all(c.isprintable() or c in "\n\t" for c in str(found))


def test_long_texts_are_cut() -> None:
    error = CriuError("x" * 10_000, request="R", line="\u2603" * 10_000)
    for _ in range(20):
        error.add_note("\u2603" * 10_000)
    found = across(error)
    assert len(found.what) == 4096


def test_what_a_peer_says_cannot_play_with_the_terminal() -> None:
    found = to_error(Failed(kind="X", what="\x1b]0;title\x07a\u202eb\rc"))
    assert found.what == "?]0;title?a?b?c"
