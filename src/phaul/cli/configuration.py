"""The configuration: what the user wants of every migration, and what each host needs.

Used by `migrate` and `check` on the source, before anything is done.  /etc/phaul/config.toml, then
`$XDG_CONFIG_HOME/phaul/config.toml` (~/.config), whose values win; `$PHAUL_CONFIG` instead of both.

    [defaults]                         # what the options of `phaul migrate` say, by their names
    max-downtime = "200ms"

    [hosts.web2]                       # a TARGET by name, and whatever differs for it
    target = "ssh://root@web2:2222"
    agent = ["sudo", "-n", "phaul", "agent"]

All but `read` is pure.  The command line wins over the host, the host over the defaults; a list is
taken as a whole, so that what is allowed stands in one place.
"""

import os
import stat
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from phaul.cli.values import parse_duration, parse_rate
from phaul.errors import ConfigurationError, UsageError
from phaul.plan import Compress, OnTimeout, Restoring, Tcp, Wishes
from phaul.transport.target import Target

__all__ = [
    "ABOUT",
    "Configuration",
    "Duration",
    "Host",
    "Rate",
    "Settings",
    "locate",
    "merge",
    "parse",
    "read",
]

VARIABLE: Final = "PHAUL_CONFIG"
_SYSTEM: Final = Path("/etc/phaul/config.toml")
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_LIMIT: Final = 1 << 20
_PHAUL_SCHEME: Final = "phaul://"

ABOUT: Final = {
    "max-downtime": "how long the process may stand still",
    "timeout": "how long the pre-copy may take",
    "on-timeout": "what is done when it takes longer",
    "bandwidth": "how much may be sent a second; without it there is no limit",
    "max-rounds": "the most rounds of the pre-copy",
    "compress": "whether the memory is compressed on its way",
    "restore": "whether the memory is restored when the process runs, or before it does",
    "post-copy": "no rounds: the process moves at once, and its memory follows",
    "split-huge-pages": "split the huge pages of the process before the first round; khugepaged of "
    "the machine waits meanwhile",
    "tcp": "what becomes of established TCP connections; without it a tree with some is refused",
    "allow": "ids of checks whose refusal is only a warning",
    "keep-images": "keep the images when all is over",
    "target": "where to, as on the command line; without it the host's name itself",
    "agent": "the command over there that is `phaul agent`",
    "ssh-config": "a file for ssh's `-F`",
    "criu": "the program over there, where it is not in the PATH",
}
"""Each key of the file, in words, for the documentation."""

_CHOICES: Final[dict[str, Iterable[Enum]]] = {
    "on-timeout": OnTimeout,
    "compress": Compress,
    "restore": Restoring,
    "tcp": Tcp,
}

T = TypeVar("T", bound="Settings")


class Duration(float):
    """Seconds, written as `"300ms"`."""


class Rate(float):
    """Bytes a second, written as `"100M"` or `"100Mbit"`."""


# No line end, no NUL and no other control character: each of these becomes a word of a command.
_Word = Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
_HostName = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")]


class Settings(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True
):
    """What can be wished of a migration, as the options of `phaul migrate`; None says nothing."""

    max_downtime: Duration | None = None
    timeout: Duration | None = None
    on_timeout: OnTimeout | None = None
    bandwidth: Rate | None = None
    max_rounds: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    compress: Compress | None = None
    restore: Restoring | None = None
    post_copy: bool | None = None
    split_huge_pages: bool | None = None
    tcp: Tcp | None = None
    allow: tuple[str, ...] | None = None
    keep_images: bool | None = None

    def wishes(self) -> Wishes:
        """These, with phaul's own defaults for the rest; raises UsageError."""
        given: dict[str, Any] = {
            _WISHES.get(name, name): value
            for name in Settings.__struct_fields__
            if (value := getattr(self, name)) is not None
        }
        if "allow" in given:
            given["allow"] = frozenset(given["allow"])
        return Wishes(**given)


_WISHES: Final = {"max_downtime": "max_downtime_s", "timeout": "timeout_s"}


class Host(Settings, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """One host: how it is reached, and what is wished of migrations to it.

    `target` is as on the command line (the name itself where it is missing), `agent` the command
    over there that is `phaul agent`, `ssh_config` a file for ssh's -F, and `criu` the program over
    there, where it is not in the PATH.
    """

    target: _Word | None = None
    agent: Annotated[tuple[_Word, ...], Meta(min_length=1, max_length=64)] | None = None
    ssh_config: _Word | None = None
    criu: _Word | None = None


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration."""

    defaults: Settings = Settings()
    hosts: dict[str, Host] = {}

    def wishes(self, given: Settings, host: Host | None = None) -> Wishes:
        """What the user wants, where `given` is what the command line says; raises UsageError."""
        return _over(Settings, given, host, self.defaults).wishes()


def merge(stronger: Configuration, weaker: Configuration) -> Configuration:
    """Both, value by value; where both say something the stronger one is right."""
    names = dict.fromkeys((*weaker.hosts, *stronger.hosts))
    return Configuration(
        defaults=_over(Settings, stronger.defaults, weaker.defaults),
        hosts={n: _over(Host, stronger.hosts.get(n), weaker.hosts.get(n)) for n in names},
    )


def _over(kind: type[T], *layers: Settings | None) -> T:
    """The first that says something, for each field of `kind`."""
    said: dict[str, Any] = {}
    for name in kind.__struct_fields__:
        values = (getattr(layer, name, None) for layer in layers)
        said[name] = next((value for value in values if value is not None), None)
    return kind(**said)


def locate(environment: Mapping[str, str]) -> tuple[tuple[Path, ...], bool]:
    """The files, the weakest first, and whether they have to be there."""
    if named := environment.get(VARIABLE, ""):
        return (Path(named),), True
    base = Path(environment.get("XDG_CONFIG_HOME", ""))
    if not base.is_absolute():
        base = Path(environment.get("HOME", "")) / ".config"
    own = (base / "phaul/config.toml",) if base.is_absolute() else ()
    return (_SYSTEM, *own), False


def read(
    environment: Mapping[str, str] | None = None, files: Iterable[Path] | None = None
) -> Configuration:
    """The configuration of this user, or that of the `files`, the weakest first.

    Raises ConfigurationError if a file cannot be read or says what cannot be meant, and if root
    would read one that others may write.
    """
    paths, required = locate(os.environ if environment is None else environment)
    if files is not None:
        paths, required = tuple(files), True
    found = Configuration()
    for path in paths:
        text = _text(path, required=required)
        if text is not None:
            found = merge(parse(text, str(path)), found)
    return found


def _text(path: Path, *, required: bool) -> str | None:
    try:
        with path.open("rb") as file:
            _require_trusted(path, os.fstat(file.fileno()))
            data = file.read(_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not required:
            return None
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _LIMIT:
        raise ConfigurationError(f"{path} has more than {_LIMIT} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 at byte {error.start}") from error


def _require_trusted(path: Path, found: os.stat_result) -> None:
    # Whoever writes it chooses the command that root runs on other hosts.  /dev/null is no file.
    if os.geteuid() != 0 or stat.S_ISCHR(found.st_mode):
        return
    if found.st_uid != 0:
        raise ConfigurationError(
            f"{path} belongs to user {found.st_uid}, so root does not believe it",
            remedy=f"`chown root {path}`",
        )
    if found.st_mode & _OTHERS_WRITE:
        raise ConfigurationError(
            f"{path} can be written by others, so root does not believe it",
            remedy=f"`chmod go-w {path}`",
        )


def parse(text: str, file: str) -> Configuration:
    """The configuration in a text; raises ConfigurationError, which names `file` and the key."""
    import tomllib  # most have no file

    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{file}: {error}") from error
    _require_known(data, Configuration, file, "")
    hosts: dict[str, Host] = {}
    for name, table in _table(data, "hosts", file, "hosts").items():
        where = f"hosts.{name}"
        try:
            msgspec.convert(name, _HostName)
        except msgspec.ValidationError:
            raise ConfigurationError(
                f"{file}: [{where}]: {name!a} is no name of a host",
                remedy="letters, digits, and . _ - between them",
            ) from None
        host = _convert(_table({where: table}, where, file, where), Host, file, where)
        _check_target(host, file, where)
        hosts[name] = host
    defaults = _convert(_table(data, "defaults", file, "defaults"), Settings, file, "defaults")
    return Configuration(defaults=defaults, hosts=hosts)


def _table(data: dict[str, Any], key: str, file: str, where: str) -> dict[str, Any]:
    table = data.get(key, {})
    if not isinstance(table, dict):
        raise ConfigurationError(f"{file}: {where} is no table", remedy=f"write [{where}] above it")
    return table


def _require_known(
    table: dict[str, Any], kind: type[msgspec.Struct], file: str, where: str
) -> None:
    known = kind.__struct_encode_fields__
    for key in table:
        if key not in known:
            from difflib import get_close_matches

            near = get_close_matches(key.replace("_", "-").lower(), known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            if where and isinstance(table[key], dict):
                remedy = 'the name of a host with dots in it stands in quotes: [hosts."a.example"]'
            place = f"[{where}]: " if where else ""
            raise ConfigurationError(f"{file}: {place}unknown key {key!a}", remedy=remedy)


def _convert(table: dict[str, Any], kind: type[T], file: str, where: str) -> T:
    _require_known(table, kind, file, where)
    for key, value in table.items():
        try:
            # One by one, so that the message can name the key.
            msgspec.convert({key: value}, kind, dec_hook=_decode)
        except (msgspec.ValidationError, ValueError) as error:
            what = str(error).partition(" - at ")[0].replace(" | null", "")
            choices = ", ".join(choice.value for choice in _CHOICES.get(key, ()))
            raise ConfigurationError(
                f"{file}: [{where}] {key}: {what}", remedy=choices and f"one of: {choices}"
            ) from None
    settings = msgspec.convert(table, kind, dec_hook=_decode)
    try:
        settings.wishes()
    except UsageError as error:
        raise ConfigurationError(f"{file}: [{where}]: {error.what}", remedy=error.remedy) from None
    return settings


def _decode(kind: type, value: object) -> object:
    if not isinstance(value, str):
        example = "300ms" if kind is Duration else "100M"
        raise ValueError(f'it is a text with a unit, such as "{example}"')
    return Duration(parse_duration(value)) if kind is Duration else Rate(parse_rate(value))


def _check_target(host: Host, file: str, where: str) -> None:
    if host.target is None or host.target.startswith(_PHAUL_SCHEME):
        return
    try:
        Target.parse(host.target)
    except UsageError as error:
        raise ConfigurationError(
            f"{file}: [{where}] target: {error.what}", remedy=error.remedy
        ) from None
