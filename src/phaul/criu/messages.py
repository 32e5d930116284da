"""CRIU's protobuf messages, loaded from the committed descriptor set.

Used in every phase, on both hosts.  The set goes into a pool of its own, so that another copy of
CRIU's messages in the same process (podman's, a container engine's) does no harm, and so that one
wheel serves every protobuf runtime: generated modules would tie it to one.  Neither it nor protobuf
is loaded before a message is needed, since an agent's start waits for what it imports.
"""

import typing
from functools import cache
from typing import Any

from phaul.errors import ImageError

if typing.TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool

__all__ = ["message_class", "parse"]


@cache
def _pool() -> "DescriptorPool":
    from pkgutil import get_data  # importlib.resources takes some ms more, for zip files

    from google.protobuf import descriptor_pb2, descriptor_pool

    data = get_data("phaul.criu", "schema/descriptors.binpb")
    assert data is not None
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)  # type: ignore[no-untyped-call, unused-ignore]
    return pool


@cache
def message_class(name: str) -> type[Any]:
    """The class of the message `name` of `schema/*.proto`, for example "Stats".

    Typed `Any`: the fields exist at run time only.  Callers turn messages into typed values
    before they hand them on.
    """
    from google.protobuf import message_factory

    descriptor = _pool().FindMessageTypeByName(f"phaul.criu.{name}")
    return message_factory.GetMessageClass(descriptor)


def parse(name: str, data: bytes, where: str) -> Any:  # noqa: ANN401 -- see message_class
    """The message `name` read from `data`; `where` names the source in the error.

    Raises ImageError if the bytes are no such message or lack a required field.
    """
    from google.protobuf.message import DecodeError

    message = message_class(name)()
    try:
        message.ParseFromString(data)
    except DecodeError as err:
        raise ImageError(f"{where}: not a {name} message: {err}") from err
    if not message.IsInitialized():
        raise ImageError(f"{where}: the {name} message lacks a required field")
    return message
