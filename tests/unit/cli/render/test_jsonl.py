import io
import json
import os
import threading

import msgspec
import pytest

from phaul.cli.render.jsonl import Envelope, EventWriter
from tools.sample import events

NAMES = [msgspec.json.decode(msgspec.json.encode(event))["event"] for event in events()]


def check(data: bytes) -> None:
    lines = data.splitlines()
    assert [json.loads(line)["event"]["event"] for line in lines] == NAMES
    for line, event in zip(lines, events(), strict=True):
        envelope = msgspec.json.decode(line, type=Envelope)
        assert (envelope.v, envelope.event) == (1, event)
        assert envelope.time > 1.5e9


@pytest.mark.parametrize("binary", [True, False])
def test_to_a_stream(binary: bool) -> None:
    raw = io.BytesIO()
    text = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
    with EventWriter(raw if binary else text) as writer:
        for event in events():
            writer.on_event(event)
    check(raw.getvalue())


def test_to_a_descriptor_that_does_not_block() -> None:
    reader, descriptor = os.pipe()
    os.set_blocking(descriptor, False)
    got: list[bytes] = []

    def read() -> None:
        with open(reader, "rb") as file:  # noqa: PTH123 -- a descriptor
            got.append(file.read())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        with EventWriter(descriptor) as writer:
            for event in events():
                writer.on_event(event)
    finally:
        os.close(descriptor)
        thread.join(60)
    check(got[0])


def test_nobody_reads_any_more() -> None:
    reader, descriptor = os.pipe()
    os.close(reader)
    try:
        writer = EventWriter(descriptor)
        for event in events():
            writer.on_event(event)
        assert not writer.close()
    finally:
        os.close(descriptor)


def test_a_descriptor_that_is_closed() -> None:
    reader, descriptor = os.pipe()
    os.close(reader)
    os.close(descriptor)
    writer = EventWriter(descriptor)
    writer.on_event(next(events()))
    assert not writer.close()
