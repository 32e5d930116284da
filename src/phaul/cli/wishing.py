"""The options that `migrate` and `check` share, and what they come to with the configuration.

Used on the source, before anything is done.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from phaul.cli.configuration import Configuration, Host, Settings, read
from phaul.cli.targets import Reach, connector
from phaul.cli.values import DURATION, RATE, OneOf
from phaul.errors import UsageError
from phaul.plan import CHECKS, Compress, OnTimeout, Restoring, Tcp, Wishes
from phaul.transport.base import SourceEnd

__all__ = ["Wish", "reach", "wish", "wishing"]

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: Final = (
    click.option(
        "--max-downtime",
        type=DURATION,
        help="Go on with rounds until the process would stand still for less (300ms).",
    ),
    click.option("--timeout", type=DURATION, help="How long the rounds may take (10m)."),
    click.option(
        "--on-timeout",
        type=OneOf(OnTimeout),
        help="What to do if the downtime is not to be had, or not in time; throttle slows the "
        "process down, as little as will do, postcopy moves it and lets the rest follow (cancel).",
    ),
    click.option("--bandwidth", type=RATE, help="Send no more than that a second (100M, 1Gbit)."),
    click.option("--max-rounds", type=click.IntRange(1), help="The most rounds (16)."),
    click.option("--compress", type=OneOf(Compress), help="Compress the memory (auto)."),
    click.option(
        "--restore",
        type=OneOf(Restoring),
        help="Bring the memory in when the process runs there, or in full before (auto).",
    ),
    click.option(
        "--post-copy",
        is_flag=True,
        default=None,
        help="No rounds: it moves at once, its memory follows.  Both hosts are needed until then.",
    ),
    click.option(
        "--split-huge-pages",
        is_flag=True,
        default=None,
        help="Split the huge pages of the process first: a written byte is then 4 KiB to be sent "
        "again, not 2 MiB.  Meanwhile khugepaged waits, on the whole machine.",
    ),
    click.option(
        "--tcp",
        type=OneOf(Tcp),
        help="Keep established TCP connections, or close them.",
    ),
    click.option(
        "--keep-images", is_flag=True, default=None, help="Leave the images on the target."
    ),
    click.option(
        "--allow",
        multiple=True,
        type=click.Choice(list(CHECKS)),
        metavar="CHECK",
        help="Go on though this check says no; may be given again.",
    ),
)


def wishing(command: F) -> F:
    """Give a command the options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Wish:
    """What the user wants, and how the target is reached."""

    wishes: Wishes
    connect: Callable[[], SourceEnd] | None


def wish(target: str | None, options: dict[str, Any]) -> Wish:
    """The options over the configuration; raises ConfigurationError, UsageError."""
    configuration = read()
    given = {name: options.get(name) for name in Settings.__struct_fields__}
    given["allow"] = tuple(options["allow"]) or None
    host = configuration.hosts.get(target or "")
    wishes = configuration.wishes(Settings(**given), host)
    if target is None:
        return Wish(wishes, None)
    return Wish(wishes, connector(_reach(target, host, configuration)))


def reach(target: str) -> Callable[[], SourceEnd]:
    """How a target is reached; raises ConfigurationError, UsageError."""
    configuration = read()
    return connector(_reach(target, configuration.hosts.get(target), configuration))


def _reach(target: str, host: Host | None, configuration: Configuration) -> Reach:
    if host is None:
        if target in configuration.hosts:
            raise UsageError(f"{target!a} is no target")
        return Reach(target)
    agent = host.agent or ("phaul", "agent")
    if host.criu is not None:
        agent = (*agent, "--criu", host.criu)
    return Reach(
        host.target or target,
        agent,
        Path(host.ssh_config) if host.ssh_config is not None else None,
    )
