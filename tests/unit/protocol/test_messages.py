"""What is encoded is decoded again; what is out of bounds is neither sent nor taken."""

import dataclasses
from typing import Any

import msgspec
import pytest
from hypothesis import given

from phaul.criu.rpc import CriuOptions
from phaul.errors import ProtocolError, UsageError
from phaul.protocol import messages as m
from phaul.protocol.frames import MAX_CONTROL
from tests.unit.protocol.samples import ANSWERS, HELLO, KEY, PREPARE, REQUESTS, valid


@given(valid)
def test_there_and_back(message: m.Message) -> None:
    data = m.encode(message)
    decode = m.decode_answer if isinstance(message, m.Answer) else m.decode_request
    assert decode(data) == message


def test_the_samples_are_all_there_is() -> None:
    assert {type(message) for message in REQUESTS} == set(m.Request.__args__)
    assert {type(message) for message in ANSWERS} == set(m.Answer.__args__)


@pytest.mark.parametrize("message", [x for x in REQUESTS if not isinstance(x, m.Alive)], ids=repr)
def test_a_request_is_no_answer(message: m.Request) -> None:
    with pytest.raises(ProtocolError):
        m.decode_answer(m.encode(message))


@pytest.mark.parametrize("message", [x for x in ANSWERS if not isinstance(x, m.Alive)], ids=repr)
def test_an_answer_is_no_request(message: m.Answer) -> None:
    with pytest.raises(ProtocolError):
        m.decode_request(m.encode(message))


@pytest.mark.parametrize(
    "name",
    [
        "core-1.img",
        "inventory.img",
        "tmpfs-dev-79.tar.gz.img",
        "tmpfs-12.tar.gz.img",
        "pagemap-shmem-1046.img",
        "ip6tables-10.img",
        "tcp-stream-3f.img",
        "netns-ct-9.img",
    ],
)
def test_names_that_criu_gives_its_images(name: str) -> None:
    m.encode(m.Image(name=name, size=0))


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".img",
        "..img",
        "../core-1.img",
        "/etc/cron.d/x.img",
        "a/b.img",
        "core-1.img\n",
        "core-1.img\0",
        "core-1.imgx",
        "core-1",
        "core.1.img",
        "Core-1.img",
        "core_1.img",
        "x" * 65 + ".img",
        "evil.tar.gz.img",
        "tmpfs-dev-.tar.gz.img",
        "tmpfs-../1.tar.gz.img",
        "cör.img",
        "core-\u0661.img",
    ],
)
def test_names_that_no_image_has(name: str) -> None:
    with pytest.raises(UsageError, match="Image cannot be sent"):
        m.encode(m.Image(name=name, size=0))
    wire = msgspec.json.encode({"is": "image", "name": name, "size": 0})
    with pytest.raises(ProtocolError):
        m.decode_request(wire)


@pytest.mark.parametrize(
    "wrong",
    [
        {"is": "start-round", "number": -1},
        {"is": "start-round", "number": 1_000_000},
        {"is": "start-round", "number": 1.5},
        {"is": "start-round", "number": "1"},
        {"is": "start-round", "number": True},
        {"is": "start-round"},
        {"is": "start-round", "number": 1, "more": 1},
        {"is": "image", "name": "a.img", "size": -1},
        {"is": "image", "name": "a.img", "size": 1 << 70},
        {"is": "restore", "images": 0},
        {"is": "prepare", "key": KEY, "pids": [], "memory_bytes": 0},
        {"is": "prepare", "key": KEY, "pids": [0], "memory_bytes": 0},
        {"is": "prepare", "key": KEY, "pids": [(1 << 22) + 1], "memory_bytes": 0},
        {"is": "prepare", "key": KEY, "pids": [1] * 16_385, "memory_bytes": 0},
        {
            "is": "prepare",
            "key": KEY,
            "pids": [1],
            "memory_bytes": 0,
            "options": {"config_file": "/x"},
        },
        {
            "is": "prepare",
            "key": KEY,
            "pids": [1],
            "memory_bytes": 0,
            "options": {"network_lock": 4},
        },
        {
            "is": "prepare",
            "key": KEY,
            "pids": [1],
            "memory_bytes": 0,
            "options": {"tcp_established": True, "tcp_close": True},
        },
        {"is": "prepare", "pids": [1], "memory_bytes": 0},
        {"is": "prepare", "key": "../x", "pids": [1], "memory_bytes": 0},
        {"is": "prepare", "key": KEY, "pids": [1], "memory_bytes": 0, "lease_s": 0},
        {"is": "prepare", "key": KEY, "pids": [1], "memory_bytes": 0, "lease_s": 604_801},
        {"is": "ask"},
        {"is": "ask", "key": KEY[:-1]},
        {"is": "ask", "key": KEY + "\n"},
        {"is": "release"},
        {"is": "nothing"},
        {"is": 1},
        {"number": 1},
        {},
        [],
        None,
        "hello",
    ],
    ids=lambda wrong: str(wrong)[:60],
)
def test_what_is_out_of_bounds(wrong: object) -> None:
    with pytest.raises(ProtocolError, match="what is no message"):
        m.decode_request(msgspec.json.encode(wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"phaul": ""},
        {"phaul": "1\n"},
        {"host": "-oProxyCommand=x"},
        {"host": "x y"},
        {"host": "x\n"},
        {"host": "h" * 254},
        {"migration": "../x"},
        {"migration": "x\n"},
        {"migration": "X"},
        {"migration": "x" * 33},
        {"versions": {"oldest": 2, "newest": 1}},
        {"versions": {"oldest": 0, "newest": 1}},
        {"versions": {"oldest": 1, "newest": 65_536}},
    ],
    ids=str,
)
def test_a_hello_out_of_bounds(wrong: dict[str, Any]) -> None:
    wire = {**msgspec.to_builtins(HELLO), **wrong}
    with pytest.raises(ProtocolError):
        m.decode_request(msgspec.json.encode(wire))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"is":"bye"}x',
        b'{"is":"bye","is":"commit"}' * 2,
        b"[" * 100_000,
        b'{"is":"failed","kind":"\xff"}',
        b'{"is":"start-round","number":' + b"9" * 10_000 + b"}",
        b" " * (MAX_CONTROL + 1),
    ],
    ids=lambda payload: str(payload[:30]),
)
def test_what_is_no_json(payload: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        m.decode_request(payload)
    assert len(str(caught.value)) < 400


def test_an_error_text_cannot_play_with_the_terminal() -> None:
    with pytest.raises(ProtocolError) as caught:
        m.decode_request(msgspec.json.encode({"is": "\x1b[2J\u202e"}))
    assert str(caught.value).isprintable()


def test_the_largest_message_fits() -> None:
    pids = tuple((1 << 22) - n for n in range(16_384))
    assert len(m.encode(m.Prepare(key=KEY, pids=pids, memory_bytes=1 << 50))) < MAX_CONTROL


def test_a_message_that_would_be_too_large_is_not_sent() -> None:
    line = "\x01" * 4096
    failed = m.Failed(kind="X", what=line, remedy=line, fate=line, line=line, notes=(line,) * 8)
    with pytest.raises(UsageError, match="at most"):
        m.encode(failed)


def test_a_lone_surrogate_is_not_sent() -> None:
    with pytest.raises(UsageError):
        m.encode(m.Failed(kind="X", what="\udcff"))


def test_the_options_are_those_of_criu() -> None:
    fields = {field.name: field for field in dataclasses.fields(CriuOptions)}
    mirrored = msgspec.structs.fields(m.RestoreOptions)
    assert {field.name for field in mirrored} <= set(fields)
    for field in mirrored:
        assert field.default == fields[field.name].default, field.name
    assert CriuOptions(**msgspec.structs.asdict(PREPARE.options)) == CriuOptions()


@pytest.mark.parametrize(
    "name",
    ["config_file", "root", "join_ns", "inherit_fd", "external", "freeze_cgroup", "lsm_profile"],
)
def test_what_names_something_over_there_cannot_be_sent(name: str) -> None:
    assert name in {field.name for field in dataclasses.fields(CriuOptions)}
    assert name not in {field.name for field in msgspec.structs.fields(m.RestoreOptions)}
