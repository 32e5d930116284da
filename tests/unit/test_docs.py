"""The reference says what the code says, and the man page is one."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaul.cli.configuration import ABOUT, Host, parse
from phaul.errors import PhaulError
from phaul.plan import CHECKS
from tools.generate_docs import EXIT_CODES, commands, pages
from tools.roff import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = pages()


@pytest.mark.parametrize("name", PAGES)
def test_the_reference_is_up_to_date(name: str) -> None:
    assert (ROOT / name).read_text() == PAGES[name], "run `python -m tools.generate_docs`"


def rendered(source: str) -> str:
    """The page as a terminal without bold shows it; nothing is warned of."""
    groff = shutil.which("groff")
    assert groff, "apt-get install groff-base"
    done = subprocess.run(
        [groff, "-man", "-ww", "-Tascii", "-P-cbou"],
        input=source,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def test_the_man_page_renders() -> None:
    page = rendered(PAGES["docs/phaul.1"])
    for _, ctx in commands():
        assert f"\n   {ctx.command_path} " in page
    for title in ("NAME", "SYNOPSIS", "VERBS", "EXIT STATUS", "FILES", "ENVIRONMENT"):
        assert f"\n{title}\n" in page


@settings(max_examples=40)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=60))
def test_what_is_escaped_is_printed_as_it_is(text: str) -> None:
    plain = " ".join(text.replace("`", "").split())
    if not plain:
        return
    page = Page("x", 1, "v", "m")
    page.section("s")
    page.verbatim(plain)
    page.paragraph(plain)
    shown = [" ".join(line.split()) for line in rendered(page.text).splitlines()]
    assert plain in shown


def options(command: click.Command) -> set[str]:
    return {name for p in command.params if isinstance(p, click.Option) for name in p.opts}


def test_every_option_is_in_both() -> None:
    for command, _ in commands():
        for option in options(command) - {"--help", "-h"}:
            assert option in PAGES["docs/reference/command.md"]
            assert option in rendered(PAGES["docs/phaul.1"])


def test_every_check_and_every_error_is_there() -> None:
    for check in CHECKS:
        assert f"`{check}`" in PAGES["docs/reference/checks.md"]

    def walk(kind: type[PhaulError]) -> None:
        if kind.__module__ == PhaulError.__module__:
            assert f"**{kind.__name__}** ({kind.exit_code})" in PAGES["docs/reference/errors.md"]
            assert kind.exit_code in EXIT_CODES
            for below in kind.__subclasses__():
                walk(below)

    walk(PhaulError)


def test_every_key_is_there_and_the_example_is_right() -> None:
    page = PAGES["docs/reference/configuration.md"]
    assert set(ABOUT) == set(Host.__struct_encode_fields__)
    for key in ABOUT:
        assert f"| `{key}` |" in page
    example = page.partition("```toml\n")[2].partition("```")[0]
    assert set(tomllib.loads(example)) == {"defaults", "hosts"}
    assert parse(example, "example").hosts["web2"].agent
