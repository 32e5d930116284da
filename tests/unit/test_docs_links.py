"""What the pages say can be followed and typed: links, command lines, checks, configuration."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import phaul.agent
from phaul.cli.configuration import parse
from phaul.cli.main import VERBS
from phaul.cli.main import phaul as group
from phaul.plan import CHECKS

ROOT = Path(__file__).resolve().parents[2]
NOT_OURS = {".venv", "build", "dist", "node_modules"}
MADE = ROOT / "docs/reference"
"""Made of the code, so that `test_docs` holds it; its usage lines are no command lines."""

PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not {
        part for part in page.relative_to(ROOT).parts[:-1] if part in NOT_OURS or part[0] == "."
    }
)
WRITTEN = [page for page in PAGES if MADE not in page.parents]

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
PROMPT = re.compile(r"^(?:\w+)?[#$] ")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
ALLOWED = re.compile(r"--allow ([a-z][a-z-]*)")
FINDING = re.compile(r"^(?:ok|warning|no) +([a-z][a-z-]*) ", re.MULTILINE)
IDS = re.compile(r"\((`[a-z-]+`(?:, `[a-z-]+`)*)\)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors that the headings of a page make, as GitHub makes them."""
    titles = HEADING.findall(BLOCK.sub("", page.read_text()))
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_each_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(BLOCK.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{link} leads nowhere"
        assert ROOT in (found, *found.parents), f"{link} leads out of the project"
        if anchor:
            assert anchor in anchors(found), f"{link}: there is no such heading"


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link).resolve() for link in LINK.findall(index.read_text())}
    here = {page for page in PAGES if index.parent in page.parents} - {index}
    assert here <= linked, f"not in the index: {here - linked}"


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command line of phaul on a page, without the first."""
    text = page.read_text()
    for _, block in BLOCK.findall(text):
        for line in block.splitlines():
            yield from words_of(line)
    for span in SPAN.findall(BLOCK.sub("", text)):
        yield from words_of(span.replace("\n", " "))


def words_of(line: str) -> Iterator[list[str]]:
    """The command lines of phaul in a line, behind a prompt or not; its own output is none."""
    line = PROMPT.sub("", line.strip())
    if re.match(r"phaul (?:\d|\w+:|\||$)", line):
        return
    for part in re.split(r"&&|[;|&]", line):
        if "phaul" not in part or "`" in part:
            continue
        try:
            words = shlex.split(part, comments=True)
        except ValueError:
            continue
        if words and words[0] == "ssh" and "phaul" in words:
            words = words[words.index("phaul") :]
        if len(words) > 1 and words[0] == "phaul":
            yield [word for word in words[1:] if word != "..."]


def require_accepted(words: list[str]) -> None:
    """Raise click's error for a verb or an option that there is not, or a value that it is not."""
    command: click.Command = group
    while True:
        ctx = click.Context(command)
        given, rest, _ = command.make_parser(ctx).parse_args(list(words))
        for parameter in command.params:
            if given.get(parameter.name or "") and isinstance(parameter, click.Option):
                parameter.type_cast_value(ctx, given[parameter.name or ""])
        if not rest or not isinstance(command, click.Group):
            assert not rest, f"too many words: {rest}"
            return
        below = command.get_command(ctx, rest[0])
        if below is None:
            raise click.UsageError(f"no verb {rest[0]}")
        command, words = below, rest[1:]


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_each_command_line_can_be_typed(page: Path) -> None:
    for words in commands(page):
        line = f"phaul {' '.join(words)}"
        if words[0] == "agent":  # not for people: it has no help of click's
            for word in words[1:]:
                assert not word.startswith("-") or word in str(phaul.agent.__doc__), line
            continue
        try:
            require_accepted(words)
        except click.UsageError as error:
            raise AssertionError(f"{line}: {error.format_message()}") from error


def test_there_are_command_lines_and_wrong_ones_are_found() -> None:
    assert {words[0] for page in WRITTEN for words in commands(page)} >= set(VERBS)
    for wrong in (
        "phaul move 1 host2",
        "host1# phaul migrate --fast 1 host2",
        "phaul migrate --tcp maybe 1 host2",
        "ssh root@host2 phaul hosts forget x",
        "true && phaul migrate --allow anything 1 host2 # why",
        "phaul check --pid x host2",
    ):
        (words,) = words_of(wrong)
        with pytest.raises(click.UsageError):
            require_accepted(words)


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_each_check_that_is_named_exists(page: Path) -> None:
    text = page.read_text()
    named = {*ALLOWED.findall(text)}
    for _, block in BLOCK.findall(text):
        named |= {*FINDING.findall(block)}
    assert named <= set(CHECKS), f"no such checks: {named - set(CHECKS)}"


def test_what_can_be_moved_names_every_check() -> None:
    text = (ROOT / "docs/what-can-be-moved.md").read_text()
    named = {check for group in IDS.findall(text) for check in SPAN.findall(group)}
    assert named == set(CHECKS)


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_each_configuration_is_accepted(page: Path) -> None:
    for language, block in BLOCK.findall(page.read_text()):
        if language == "toml":
            parse(block, name(page))
