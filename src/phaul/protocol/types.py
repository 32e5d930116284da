"""The bounded types that messages are made of.

Used in every phase, on both hosts.  Pure.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = [
    "Bytes",
    "HostName",
    "ImageName",
    "Message",
    "MigrationId",
    "Name",
    "Pages",
    "Part",
    "Pid",
    "RoundNumber",
    "Text",
    "Token",
    "VersionNumber",
    "Word",
]

# `\Z`, since `$` would let a line end pass.
Name = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~-]*\Z")]
HostName = Annotated[str, Meta(max_length=253, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]*\Z")]
MigrationId = Annotated[str, Meta(max_length=32, pattern=r"^[a-z0-9][a-z0-9-]*\Z")]
Token = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
# CRIU's images have no other dot than these: an archive of a tmpfs has its own suffix before.
ImageName = Annotated[
    str,
    Meta(
        max_length=80,
        pattern=r"^(?:[a-z0-9-]{1,64}|tmpfs-(?:dev-)?[0-9]{1,10}\.tar\.gz)\.img\Z",
    ),
]
Text = Annotated[str, Meta(max_length=4096)]
Word = Annotated[str, Meta(max_length=64)]
VersionNumber = Annotated[int, Meta(ge=1, le=65535)]
RoundNumber = Annotated[int, Meta(ge=0, le=999_999)]
Bytes = Annotated[int, Meta(ge=0, le=1 << 50)]
Pages = Annotated[int, Meta(ge=0, le=1 << 50)]
Pid = Annotated[int, Meta(ge=1, le=1 << 22)]
"""The kernel's PIDs end at 4194304."""


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of what is in a message."""


class Message(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="is"
):
    """The base of the messages."""
