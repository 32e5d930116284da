import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.criu.elf import build_id, find_build_id

ID = bytes(range(20))


def note(kind: int, description: bytes, name: bytes = b"GNU\0") -> bytes:
    def padded(data: bytes) -> bytes:
        return data + bytes(-len(data) % 4)

    head = struct.pack("=III", len(name), len(description), kind)
    return head + padded(name) + padded(description)


def elf(*segments: tuple[int, bytes], bits: int = 64, gap: int = 0) -> bytes:
    """An ELF file with those segments: type and content."""
    size, entry = (64, 56) if bits == 64 else (52, 32)
    count = len(segments)
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    if bits == 64:
        head = ident + struct.pack(
            "=HHIQQQIHHHHHH", 3, 62, 1, 0, size, 0, 0, 64, 56, count, 0, 0, 0
        )
    else:
        head = ident + struct.pack("=HHIIIIIHHHHHH", 3, 3, 1, 0, size, 0, 0, 52, 32, count, 0, 0, 0)
    table, body = bytearray(), bytearray(gap)
    for kind, content in segments:
        at, length = size + count * entry + len(body), len(content)
        if bits == 64:
            table += struct.pack("=IIQQQQQQ", kind, 4, at, at, at, length, length, 4)
        else:
            table += struct.pack("=IIIIIIII", kind, at, at, at, length, length, 4, 4)
        body += content
    return head + bytes(table) + bytes(body)


class Reading:
    """A reader over bytes that counts what it gives."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.given = 0

    def __call__(self, offset: int, count: int) -> bytes:
        assert offset >= 0
        assert count > 0
        found = self.data[offset : offset + count]
        self.given += len(found)
        return found


def found(data: bytes) -> str:
    return find_build_id(Reading(data))


@pytest.mark.parametrize("bits", [32, 64])
def test_the_note_is_found(bits: int) -> None:
    assert found(elf((4, note(3, ID)), bits=bits)) == ID.hex()
    others = (1, b"code"), (4, note(1, b"abi!") + note(5, b"x" * 7)), (4, note(3, ID)), (4, b"")
    assert found(elf(*others, bits=bits)) == ID.hex()


def test_the_first_one_counts_whatever_its_name() -> None:
    assert found(elf((4, note(3, b"abcd", b"other\0")), (4, note(3, ID)))) == b"abcd".hex()


def test_of_a_real_program() -> None:
    program = Path(shutil.which("true") or "")
    said = subprocess.run(
        ["readelf", "--notes", program], capture_output=True, text=True, check=True
    ).stdout
    (line,) = [line for line in said.splitlines() if "Build ID" in line]
    with program.open("rb") as file:
        assert build_id(file.fileno()) == line.split()[-1]
        assert file.tell() == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF",
        b"#!/bin/sh\n" * 20,
        elf(),
        elf((1, note(3, ID))),
        elf((4, note(1, ID))),
        elf((4, note(3, b""))),
        elf((4, note(3, b"x" * 65))),
        elf((4, note(3, ID)), gap=1 << 20),
        b"\x7fELF\x03" + elf((4, note(3, ID)))[5:],
    ],
)
def test_files_without_one(data: bytes) -> None:
    assert found(data) == ""


def test_truncated_anywhere() -> None:
    whole = elf((1, b"code"), (4, note(1, b"abi!") + note(3, ID)))
    assert found(whole) == ID.hex()
    assert {found(whole[:length]) for length in range(len(whole))} == {""}


@given(data=st.binary(max_size=300), bits=st.sampled_from([1, 2]), changes=st.data())
def test_foreign_bytes(data: bytes, bits: int, changes: st.DataObject) -> None:
    head = bytearray(elf((4, note(3, ID)), (4, data), bits=64 if bits == 2 else 32) + data)
    for _ in range(changes.draw(st.integers(0, 8))):
        at = changes.draw(st.integers(5, len(head) - 1))
        head[at] = changes.draw(st.integers(0, 255))
    for text in (found(bytes(head)), found(b"\x7fELF" + bytes([bits]) + data), found(data)):
        assert bytes.fromhex(text) is not None
        assert len(text) <= 128


def test_little_is_read_of_what_claims_much() -> None:
    reading = Reading(elf(*[(4, note(1, bytes(200)))] * 4000))
    assert find_build_id(reading) == ""
    assert reading.given <= (128 << 10) + 64


def test_what_cannot_be_read(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError):
            build_id(descriptor)
    finally:
        os.close(descriptor)
