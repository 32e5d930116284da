"""A hundred thousand messages that were damaged: only the documented errors come out."""

import random
import tracemalloc

import pytest

from phaul.errors import ProtocolError
from phaul.protocol.agent import Conversation
from phaul.protocol.failure import to_error
from phaul.protocol.frames import HEADER_BYTES, MAX_CHUNK, Decoder, Frame, Kind, pack
from phaul.protocol.messages import Failed, decode_answer, decode_request, encode
from tests.unit.protocol.samples import ANSWERS, REQUESTS

MESSAGES = 120_000
MOST_MEMORY = 16 << 20

SPICE = (
    b"../", b"/", b"\0", b"\n", b"-1", b"1e400", b"9" * 400, b"null", b"[", b"{", b'"', b"\\ud800",
    b"\xff", b"true", b'"is":"commit"', b'"name":"../x.img"', b"NaN", b"\xe2\x80\xae", b",", b":",
)  # fmt: skip


def damage(rng: random.Random, payload: bytes) -> bytes:
    """The payload with up to three changes."""
    data = bytearray(payload)
    for _ in range(rng.randint(0, 3)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                data[at:at] = rng.choice(SPICE)
            case 2:
                del data[at : at + rng.randint(1, 20)]
            case 3:
                other = rng.choice(SEEDS)
                data[at:] = other[rng.randrange(len(other)) :]
            case _:
                data[at : at + 4] = rng.randbytes(rng.randint(0, 8))
    return bytes(data)


SEEDS = [encode(message) for message in REQUESTS + ANSWERS]


@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_messages(seed: int) -> None:
    rng = random.Random(seed)
    good = bad = longest = 0
    tracemalloc.start()
    try:
        for _ in range(MESSAGES // 2):
            payload = damage(rng, rng.choice(SEEDS))
            decode = rng.choice((decode_request, decode_answer))
            try:
                message = decode(payload)
            except ProtocolError as error:
                longest = max(longest, len(error.what))
                bad += 1
                continue
            good += 1
            # What is taken is within bounds: it could be sent on.
            encode(message)
            if isinstance(message, Failed):
                to_error(message)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert longest < 400
    assert good + bad == MESSAGES // 2
    assert min(good, bad) > 1000
    assert most < MOST_MEMORY


def play(conversation: Conversation, frame: Frame) -> None:
    """What an agent does with a frame, but for the doing."""
    if frame.kind is Kind.RAW:
        conversation.chunk(len(frame.payload))
        return
    conversation.request(decode_request(frame.payload))
    if conversation.asked is not None:
        for answer in ANSWERS:
            try:
                conversation.answer(answer)
            except ProtocolError:
                continue
            break


@pytest.mark.parametrize("seed", [3, 4])
def test_damaged_streams(seed: int) -> None:
    rng = random.Random(seed)
    script = [pack(Frame(Kind.CONTROL, encode(request))) for request in REQUESTS]
    script.append(pack(Frame(Kind.RAW, bytes(1234))))
    fed = errors = 0
    while fed < 20_000:
        conversation, decoder = Conversation(), Decoder()
        try:
            for _ in range(20):
                frame = rng.choice(script)
                if rng.random() < 0.3:
                    frame = damage(rng, frame)
                fed += 1
                while frame:
                    cut = rng.randint(1, len(frame))
                    for found in decoder.feed(frame[:cut]):
                        play(conversation, found)
                    frame = frame[cut:]
                assert decoder.buffered < MAX_CHUNK + HEADER_BYTES
        except ProtocolError:
            errors += 1
    assert errors > 100
