import threading

import pytest

from lab.errors import ConnectionLostError, DeadlineError
from lab.link import queue_packets
from lab.stream import Stream


def test_lines_come_before_the_end() -> None:
    stream = Stream("test")
    stream.feed(b"one\ntwo\nthr")
    assert stream.readline() == b"one\n"

    def finish() -> None:
        stream.feed(b"ee")
        stream.end()

    threading.Timer(0.05, finish).start()
    assert list(stream.lines(5)) == ["two", "three"]
    assert stream.read() == b""


def test_a_read_of_a_length_waits_for_it() -> None:
    stream = Stream("test")
    stream.feed(b"abcdef")
    assert stream.read(4) == b"abcd"
    stream.end()
    assert stream.read(4) == b"ef"


def test_silence_meets_a_deadline() -> None:
    stream = Stream("test")
    stream.feed(b"half a line")
    with pytest.raises(DeadlineError, match="test: nothing within"):
        stream.readline(0.05)


def test_a_lost_connection_is_told_after_what_came() -> None:
    stream = Stream("test")
    stream.feed(b"whole\nhalf")
    stream.end(ConnectionLostError("gone"))
    assert stream.readline() == b"whole\n"
    with pytest.raises(ConnectionLostError, match="gone"):
        stream.readline()


@pytest.mark.parametrize(
    ("rate", "delay", "packets"), [(None, 50, 10_000), (1, 0, 64), (1000, 50, 293)]
)
def test_the_queue_holds_the_delay_and_100_ms(
    rate: float | None, delay: float, packets: int
) -> None:
    assert queue_packets(rate, delay) == packets
