import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaul.errors import ProtocolError
from phaul.protocol.frames import Decoder, Frame, Kind
from phaul.protocol.join import (
    MOST_BYTES,
    Join,
    JoinAnswer,
    Joined,
    JoinRefused,
    decode_join,
    decode_join_answer,
    frame,
)

JOIN = Join(secret="0a" * 16, certificate="-----BEGIN...", host="host1.example.org")


def test_the_request() -> None:
    (received,) = Decoder().feed(frame(JOIN))
    assert decode_join(received) == JOIN


@pytest.mark.parametrize("answer", [Joined(name="host1"), JoinRefused(why="wrong", what="no")])
def test_the_answers(answer: JoinAnswer) -> None:
    (received,) = Decoder().feed(frame(answer))
    assert decode_join_answer(received) == answer


@pytest.mark.parametrize(
    "wrong",
    [
        Frame(Kind.RAW, b"x"),
        Frame(Kind.CONTROL, b'"' + b"x" * MOST_BYTES + b'"'),
        Frame(Kind.CONTROL, b"\xff"),
        Frame(Kind.CONTROL, b'{"is":"alive"}'),
        Frame(Kind.CONTROL, b'{"is":"join","secret":"","certificate":"x","host":"h"}'),
        Frame(Kind.CONTROL, b'{"is":"refused","why":"because","what":""}'),
    ],
)
def test_what_is_none(wrong: Frame) -> None:
    for decode in (decode_join, decode_join_answer):
        with pytest.raises(ProtocolError):
            decode(wrong)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=300))
def test_an_error_quotes_no_secret(payload: bytes) -> None:
    secret = "5ec3e7" * 5
    data = f'{{"is":"join","secret":"{secret}'.encode() + payload
    with pytest.raises(ProtocolError) as caught:
        decode_join(Frame(Kind.CONTROL, data))
    assert secret not in str(caught.value)
