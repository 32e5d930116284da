"""The control channel over any stream: what comes, what does not, and who is told."""

import math
import os
import socket
from collections.abc import AsyncIterator

import anyio
import pytest

from phaul.errors import ConnectionLost, ProtocolError, UsageError
from phaul.protocol import messages as m
from phaul.protocol.frames import MAX_CHUNK, Frame, Kind, pack
from phaul.transport.control import Control, agent_control, source_control
from phaul.transport.descriptors import DescriptorStream
from tests.unit.protocol.samples import ANSWERS, HELLO, REQUESTS

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]
LIMIT = 60.0

Ends = tuple[Control[m.Answer], Control[m.Request]]


@pytest.fixture
async def ends(no_leaks: None) -> AsyncIterator[Ends]:
    near, far = socket.socketpair()
    source = source_control(DescriptorStream.from_socket(near), "host2")
    agent = agent_control(DescriptorStream.from_socket(far))
    yield source, agent
    await source.aclose()
    await agent.aclose()


@pytest.fixture
async def raw(no_leaks: None) -> AsyncIterator[tuple[Control[m.Answer], socket.socket]]:
    """The source's end, and the bare socket of the other."""
    near, far = socket.socketpair()
    source = source_control(DescriptorStream.from_socket(near), "host2", silence=0.2)
    with far:
        yield source, far
        await source.aclose()


def wire(message: m.Message) -> bytes:
    return pack(Frame(Kind.CONTROL, m.encode(message)))


async def test_each_message_arrives(ends: Ends) -> None:
    source, agent = ends
    for request in REQUESTS[:-1]:
        await source.send(request)
        assert await agent.receive(LIMIT) == request
    for answer in ANSWERS[:-1]:
        await agent.send(answer)
        assert await source.receive(LIMIT) == answer


async def test_large_chunks_in_order_while_both_send(ends: Ends) -> None:
    source, agent = ends
    sent = [os.urandom(MAX_CHUNK), b"x", os.urandom(300_000)]

    async def send() -> None:
        for data in sent:
            await source.send_chunk(data)
            await source.send(m.Alive())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        tasks.start_soon(agent.send, m.Done())
        assert [await agent.receive_chunk(LIMIT) for _ in sent] == sent
    assert await source.receive(LIMIT) == m.Done()


async def test_signs_of_life_are_no_answer(ends: Ends) -> None:
    source, agent = ends
    for _ in range(5):
        await agent.send(m.Alive())
    await agent.send(m.Done())
    assert await source.receive(LIMIT) == m.Done()


async def test_no_answer_in_time_breaks_nothing(ends: Ends) -> None:
    source, agent = ends
    with pytest.raises(ConnectionLost, match="no answer within"):
        await source.receive(0.01)
    await agent.send(m.Done())
    assert await source.receive(LIMIT) == m.Done()


async def test_the_end_of_the_stream(ends: Ends) -> None:
    source, agent = ends
    await agent.aclose()
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="ended") as caught:
            await source.receive(LIMIT)
    assert caught.value.host == "host2"
    with pytest.raises(ConnectionLost):
        await source.send(HELLO)


async def test_it_is_closed_while_somebody_waits(ends: Ends) -> None:
    source, _ = ends
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(ConnectionLost, match="closed"):
                await source.receive(math.inf)

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await source.aclose()


async def test_a_peer_that_says_nothing_more(raw: tuple[Control[m.Answer], socket.socket]) -> None:
    source, far = raw
    far.sendall(wire(m.Done()))
    assert await source.receive(LIMIT) == m.Done()
    with pytest.raises(ConnectionLost, match="it was silent"):
        await source.receive(math.inf)


async def test_a_peer_that_takes_nothing(raw: tuple[Control[m.Answer], socket.socket]) -> None:
    source, _ = raw

    async def send() -> None:
        for _ in range(20):
            await source.send_chunk(bytes(MAX_CHUNK))

    with pytest.raises(ConnectionLost, match="took nothing"):
        await send()


async def test_a_peer_that_is_alive_is_not_silent(
    raw: tuple[Control[m.Answer], socket.socket],
) -> None:
    source, far = raw
    agent = agent_control(DescriptorStream.from_socket(far.dup()), silence=0.2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agent.stay_alive)
        await anyio.sleep(0.1)
        with pytest.raises(ConnectionLost, match="no answer within"):
            await source.receive(0.5)  # and not: silent
        tasks.cancel_scope.cancel()
    await agent.aclose()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xff" * 5, "unknown kind"),
        (b"\xff\xff\xff\xff\x01", "bytes"),
        (pack(Frame(Kind.CONTROL, b"{}")), "no message"),
        (pack(Frame(Kind.RAW, b"x")), "RAW frame instead"),
        (wire(HELLO), "no message"),
        (b"-bash: line 1: warning\n", "-bash: line 1"),
    ],
)
async def test_garbage(
    raw: tuple[Control[m.Answer], socket.socket], data: bytes, says: str
) -> None:
    source, far = raw
    far.sendall(data)
    with pytest.raises(ProtocolError, match=says) as caught:
        await source.receive(LIMIT)
    assert caught.value.host == "host2"
    with pytest.raises(ProtocolError):
        await source.receive(LIMIT)
    await source.send(m.Bye())  # it can still say why it ends


async def test_what_is_out_of_bounds_is_not_sent(ends: Ends) -> None:
    source, agent = ends
    with pytest.raises(UsageError):
        await source.send(m.Image(name="../x.img", size=0))
    with pytest.raises(ValueError, match="1 to"):
        await source.send_chunk(bytes(MAX_CHUNK + 1))
    await source.send(HELLO)
    assert await agent.receive(LIMIT) == HELLO


async def test_a_cancel_never_leaves_half_a_frame(ends: Ends) -> None:
    source, agent = ends
    data = os.urandom(MAX_CHUNK)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.send_chunk, data)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            assert await agent.receive_chunk(LIMIT) == data
    await source.send(m.Bye())
    assert await agent.receive(LIMIT) == m.Bye()


async def test_over_pipes(no_leaks: None) -> None:
    (to_agent, from_source), (to_source, from_agent) = os.pipe(), os.pipe()
    source = source_control(DescriptorStream(to_source, from_source), "host2")
    stream = DescriptorStream(to_agent, from_agent)
    agent = agent_control(stream)
    await source.send(HELLO)
    assert await agent.receive(LIMIT) == HELLO
    await agent.send(m.Done())
    await stream.send_eof()
    assert await source.receive(LIMIT) == m.Done()
    with pytest.raises(ConnectionLost):
        await source.receive(LIMIT)
    await source.aclose()
    await agent.aclose()
