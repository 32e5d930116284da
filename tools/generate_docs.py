"""Writes the reference out of the code, so that it cannot say anything else than the code does.

For developers only (`python -m tools.generate_docs`); a test holds that the files are up to date.

    docs/phaul.1, docs/reference/command.md   the verbs, from click's commands
    docs/reference/checks.md                  the checks of the preflight
    docs/reference/errors.md                  the error tree with its exit codes
    docs/reference/configuration.md           the configuration file
"""

import inspect
import re
from collections.abc import Iterator
from enum import Enum, EnumMeta
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import click

from phaul import __version__, errors
from phaul.cli import configuration
from phaul.cli.configuration import ABOUT, Duration, Host, Rate, Settings
from phaul.cli.main import VERBS, phaul
from phaul.errors import PhaulError
from phaul.plan import CHECKS, Wishes
from tools.roff import Page

__all__ = ["pages"]

ROOT: Final = Path(__file__).parent.parent
MADE: Final = "<!-- Made by tools/generate_docs.py from the code; changes here are lost. -->\n"

EXIT_CODES: Final = {
    0: "it is on the target, or what was asked for is done",
    1: "it is on the target, with warnings; any other error",
    2: "here: the command line or the configuration cannot be meant",
    3: "here, untouched: preflight refused",
    4: "here, untouched: no connection, or no access",
    5: "here, untouched: the target is incompatible",
    6: "here, untouched: the pre-copy did not converge",
    7: "here, untouched: the migration was rolled back",
    8: "unknown: what is printed says how to settle it",
    130: "here, untouched: cancelled by Ctrl-C or `phaul cancel`",
    143: "here, untouched: cancelled by SIGTERM",
}
FILES: Final = (
    ("/etc/phaul/config.toml, ~/.config/phaul/config.toml", "the configuration; the second wins"),
    ("/var/lib/phaul", "the state directory of root: the migrations of this host"),
    ("~/.local/state/phaul", "the state directory of anybody else"),
)
ENVIRONMENT: Final = (
    ("PHAUL_CONFIG", "the one file of the configuration, instead of both"),
    ("PHAUL_STATE", "the state directory"),
    ("XDG_CONFIG_HOME, XDG_STATE_HOME", "as the XDG base directory specification says"),
)


def _root() -> click.Context:
    return click.Context(phaul, info_name="phaul", **phaul.context_settings)


def commands() -> Iterator[tuple[click.Command, click.Context]]:
    """The verbs that are there, a group's own after it, each with its context."""
    root = _root()
    for verb in VERBS:
        try:
            command = phaul.get_command(root, verb)
        except ModuleNotFoundError as error:
            # A verb that is listed and not written yet; whatever else is missing is an error.
            if not (error.name or "").startswith("phaul.cli."):
                raise
            continue
        assert command is not None
        yield from _with_own(command, click.Context(command, info_name=verb, parent=root))


def _with_own(
    command: click.Command, ctx: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    yield command, ctx
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            assert below is not None
            yield from _with_own(below, click.Context(below, info_name=name, parent=ctx))


def _usage(command: click.Command, ctx: click.Context) -> str:
    return " ".join((ctx.command_path, *command.collect_usage_pieces(ctx)))


def _options(command: click.Command, ctx: click.Context) -> list[tuple[str, str]]:
    """The options, and the arguments that have a help; but `--help`, which all have."""
    records = (
        parameter.get_help_record(ctx)
        for parameter in command.get_params(ctx)
        if not set(parameter.opts) & set(ctx.help_option_names)
    )
    return [record for record in records if record is not None and record[1]]


def _paragraphs(text: str) -> Iterator[tuple[str, bool]]:
    """The paragraphs of a help text, and whether each stays as it is (click's \\b)."""
    for part in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if part.strip():
            verbatim = part.startswith("\b")
            yield part.removeprefix("\b\n") if verbatim else part, verbatim


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(
        f"| {' | '.join(c.replace('|', chr(92) + '|') for c in row)} |\n" for row in lines
    )


def _rows(command: click.Command, ctx: click.Context) -> str:
    rows: list[tuple[str, ...]] = [
        (f"`{option}`", about) for option, about in _options(command, ctx)
    ]
    return _table(("option", ""), rows) + "\n" if rows else ""


def command_page() -> str:
    """docs/reference/command.md."""
    text = f"# The command\n{MADE}\n{phaul.help}\n\n{_rows(phaul, _root())}"
    text += "`-h` and `--help` explain each verb.\n\n"
    for command, ctx in commands():
        text += f"## {ctx.command_path}\n```\n{_usage(command, ctx)}\n```\n"
        for part, verbatim in _paragraphs(command.help or ""):
            text += f"```\n{part}\n```\n\n" if verbatim else f"{part}\n\n"
        text += _rows(command, ctx)
    codes = [(str(code), about) for code, about in EXIT_CODES.items()]
    return (
        text
        + "## Exit status\nIt answers where the process is.\n\n"
        + _table(("status", "the process is"), list(codes))
    )


def manual_page() -> str:
    """docs/phaul.1."""
    page = Page("phaul", 1, f"phaul {__version__}", "User Commands")
    page.section("name")
    page.line("phaul - moves running processes to another machine while they keep running")
    page.section("synopsis")
    page.line("`phaul` [--version] [--help] VERB ...")
    page.section("description")
    page.line(phaul.help or "")
    page.items(_options(phaul, _root()))
    page.items([("-h, --help", "Explain phaul, or the verb before it.")])
    page.section("verbs")
    for command, ctx in commands():
        page.subsection(_usage(command, ctx))
        for part, verbatim in _paragraphs(command.help or ""):
            if verbatim:
                page.verbatim(part)
            else:
                page.paragraph(part)
        page.items(_options(command, ctx))
    page.section("exit status")
    page.line("It answers where the process is.")
    page.items((str(code), about) for code, about in EXIT_CODES.items())
    page.section("files")
    page.items(FILES)
    page.section("environment")
    page.items(ENVIRONMENT)
    page.section("see also")
    page.line("`criu`(8), `ssh`(1), `ssh_config`(5)")
    return page.text


def checks_page() -> str:
    """docs/reference/checks.md."""
    rows = [(f"`{check.id}`", check.about, str(check.exit_code)) for check in CHECKS.values()]
    return (
        f"# The checks of the preflight\n{MADE}\n"
        "Each is made while the process runs. A `no` ends the command with the exit status beside "
        "it, and\nwith `--allow ID` it is a warning.\n\n"
        + _table(("id", "what it is about", "exit status"), list(rows))
    )


def errors_page() -> str:
    """docs/reference/errors.md."""
    text = (
        f"# Errors and exit status\n{MADE}\n"
        "Every error that phaul raises on purpose is a `phaul.PhaulError`; the classes are in "
        "`phaul.errors`.\nEach has its message's parts in `what`, `host`, `remedy` and `fate`, and "
        "an `exit_code`, which answers\nwhere the process is.\n\n"
    )
    codes = [(str(code), about) for code, about in EXIT_CODES.items()]
    return (
        text + _table(("exit status", "the process is"), list(codes)) + "\n" + _tree(PhaulError, 0)
    )


def _tree(kind: type[PhaulError], depth: int) -> str:
    about = inspect.cleandoc(kind.__doc__ or "").splitlines()[0]
    text = f"{'  ' * depth}- **{kind.__name__}** ({kind.exit_code}): {about}\n"
    below = [k for k in kind.__subclasses__() if k.__module__ == errors.__name__]
    # In the order in which the tree is drawn, which is not always that of the source.
    drawn = errors.__doc__ or ""
    for one in sorted(below, key=lambda k: drawn.index(f"-- {k.__name__}")):
        text += _tree(one, depth + 1)
    return text


def configuration_page() -> str:
    """docs/reference/configuration.md."""
    about = inspect.cleandoc(configuration.__doc__ or "")
    inside = [line.startswith("    ") for line in about.splitlines()]
    first, last = inside.index(True), len(inside) - inside[::-1].index(True)
    example = "\n".join(line[4:] for line in about.splitlines()[first:last])
    own = tuple(name for name in Host.__struct_fields__ if name not in Settings.__struct_fields__)
    return (
        f"# The configuration file\n{MADE}\n"
        "TOML, in `/etc/phaul/config.toml` and then `$XDG_CONFIG_HOME/phaul/config.toml` "
        "(`~/.config`), whose values win;\n`$PHAUL_CONFIG` names one file instead of both. The "
        "command line wins over a host, a host over the defaults;\na list is taken as a whole. An "
        "unknown key is an error. Root believes no file that others may write.\n\n"
        f"```toml\n{example}\n```\n\n"
        "## `[defaults]`\n"
        + _keys(Settings, Settings.__struct_fields__)
        + "\n## `[hosts.NAME]`\nAny of the defaults, and:\n\n"
        + _keys(Host, own)
        + '\nA name with dots in it stands in quotes: `[hosts."web2.example"]`.\n'
        + "\nDurations are `300ms`, `1.5s`, `10m`, `1h30m`. Rates are bytes a second: `K`, `M` "
        "and `G` are powers\nof 1024 (as is `KiB`), `KB`, `MB` and `GB` of 1000; or bits: "
        "`100Mbit`, `1Gbit`.\n"
    )


def _keys(kind: type[Settings], names: tuple[str, ...]) -> str:
    hints = get_type_hints(kind, include_extras=True)
    keys = dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    rows = [
        (f"`{keys[name]}`", _form(hints[name]), ABOUT[keys[name]], _default(name)) for name in names
    ]
    return _table(("key", "value", "", "default"), list(rows))


def _form(hint: Any) -> str:  # noqa: ANN401
    """The form of a value in the file."""
    if get_origin(hint) is Annotated:
        return _form(get_args(hint)[0])
    if isinstance(hint, UnionType) or type(None) in get_args(hint):
        return _form(next(kind for kind in get_args(hint) if kind is not type(None)))
    if isinstance(hint, EnumMeta):
        return ", ".join(f'`"{choice.value}"`' for choice in hint)  # type: ignore[var-annotated]
    plain = {Duration: "a duration", Rate: "a rate", int: "a number", bool: "`true`, `false`"}
    return "a list of texts" if get_origin(hint) is tuple else plain.get(hint, "a text")


def _default(name: str) -> str:
    """What `Wishes` has for it; "" for nothing, and for what is no wish."""
    wishes = vars(Wishes())
    if name + "_s" in wishes:
        seconds = wishes[name + "_s"]
        return f'`"{seconds * 1e3:.0f}ms"`' if seconds < 1 else f'`"{seconds:.0f}s"`'
    value = wishes.get(name)
    match value:
        case Enum():
            return f'`"{value.value}"`'
        case bool():
            return f"`{str(value).lower()}`"
        case int():
            return f"`{value}`"
        case _:
            return ""


def pages() -> dict[str, str]:
    """Each file below the project's root, and what it has to say."""
    return {
        "docs/phaul.1": manual_page(),
        "docs/reference/command.md": command_page(),
        "docs/reference/checks.md": checks_page(),
        "docs/reference/errors.md": errors_page(),
        "docs/reference/configuration.md": configuration_page(),
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (ROOT / name).parent.mkdir(exist_ok=True)
        (ROOT / name).write_text(text)
        print(name)
