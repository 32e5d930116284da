"""CRIU's protobuf messages, loaded from the committed descriptor set.

Used in every phase, on both hosts.  The set goes into a pool of its own, so that another copy of
CRIU's messages in the same process (podman's, a container engine's) does no harm, and so that one
wheel serves every protobuf runtime: generated modules would tie it to one.  Neither it nor protobuf
is loaded before a message is needed, since an agent's start waits for what it imports.
"""

import typing
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Final

from phaul.errors import ImageError

if typing.TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool

__all__ = ["message_class", "parse", "warm_up"]

_FIELD_1: Final = 1 << 3 | 2


@cache
def _pool() -> "DescriptorPool":
    from pkgutil import get_data  # importlib.resources takes some ms more, for zip files

    from google.protobuf import descriptor_pool

    data = get_data("phaul.criu", "schema/descriptors.binpb")
    assert data is not None
    pool = descriptor_pool.DescriptorPool()
    for file in _files(data):
        pool.AddSerializedFile(file)  # type: ignore[no-untyped-call, unused-ignore]
    return pool


def _files(data: bytes) -> Iterator[bytes]:
    """The files of a FileDescriptorSet, each still serialized: field 1, with its length before it.

    Taken apart by hand, since protobuf's own descriptors of descriptors take 5 ms to import.
    """
    at = 0
    while at < len(data):
        assert data[at] == _FIELD_1
        length = shift = 0
        at += 1
        while True:
            length |= (data[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not data[at - 1] & 0x80:
                break
        yield data[at : at + length]
        at += length


@cache
def message_class(name: str) -> type[Any]:
    """The class of the message `name` of `schema/*.proto`, for example "Stats".

    Typed `Any`: the fields exist at run time only.  Callers turn messages into typed values
    before they hand them on.
    """
    from google.protobuf import message_factory

    descriptor = _pool().FindMessageTypeByName(f"phaul.criu.{name}")
    return message_factory.GetMessageClass(descriptor)


def warm_up(names: Iterable[str]) -> None:
    """Make the classes now: the first one takes 20 ms, as all that protobuf needs comes with it."""
    for name in names:
        message_class(name)


@cache
def _decode_error() -> type[Exception]:
    from google.protobuf.message import DecodeError

    return DecodeError


def parse(name: str, data: bytes, where: str) -> Any:  # noqa: ANN401 -- see message_class
    """The message `name` read from `data`; `where` names the source in the error.

    Raises ImageError if the bytes are no such message or lack a required field.
    """
    message = message_class(name)()
    try:
        message.ParseFromString(data)
    except _decode_error() as err:
        raise ImageError(f"{where}: not a {name} message: {err}") from err
    if not message.IsInitialized():
        raise ImageError(f"{where}: the {name} message lacks a required field")
    return message
