import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaul.errors import ConnectFailed, NotTrusted
from phaul.transport.tls.greeting import LONGEST, Greeting, Purpose, Refusal, refusal_error

ALL = (Greeting(Purpose.CONTROL), Greeting(Purpose.MEMORY, "0123abcd" * 4), Greeting(Purpose.JOIN))


@pytest.mark.parametrize("greeting", ALL)
def test_there_and_back(greeting: Greeting) -> None:
    assert len(greeting.line) <= LONGEST
    assert greeting.line.endswith(b"\n")
    assert Greeting.parse(greeting.line[:-1]) == greeting


def test_the_lines_are_for_ever() -> None:
    assert [greeting.line for greeting in ALL] == [
        b"phaul control 1\n",
        b"phaul memory 0123abcd0123abcd0123abcd0123abcd\n",
        b"phaul join 1\n",
    ]


@settings(deadline=None)
@given(st.binary(max_size=80) | st.sampled_from([b"phaul memory 1", b"phaul control 2"]))
def test_anything_else_is_none(line: bytes) -> None:
    with pytest.raises(ValueError):
        Greeting.parse(line)


def test_each_refusal_has_its_error() -> None:
    found = {refusal: refusal_error(refusal.line[:-1], "host2") for refusal in Refusal}
    assert isinstance(found[Refusal.NOT_TRUSTED], NotTrusted)
    assert all(error.remedy and "as no phaul does" not in error.what for error in found.values())


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_another_answer_cannot_play_with_a_terminal(answer: bytes) -> None:
    error = refusal_error(answer, "host2")
    assert isinstance(error, ConnectFailed)
    assert str(error).replace("\n", "").isprintable()
