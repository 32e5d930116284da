import msgspec
from hypothesis import given
from hypothesis import strategies as st

from phaul.destination.checks.sheet import Sheet, count, merged, octets, printable
from phaul.protocol.preflight import Finding, Level

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=2000)


@given(text=text, most=st.integers(20, 400))
def test_what_is_printed_is_short_and_printable(text: str, most: int) -> None:
    said = printable(text, most)
    assert said.isprintable()
    assert len(msgspec.json.encode(said)) <= most


def test_of_a_long_path_both_ends_are_kept() -> None:
    said = printable("/begin" + "/x" * 5000 + "/end")
    assert said.startswith("/begin/x")
    assert said.endswith("/x/end")
    assert printable("/a\x1b[31m\n") == "/a?[31m?"


def test_words() -> None:
    assert count(1, "directory") == "1 directory"
    assert count(2, "directory") == "2 directories"
    assert count(3, "address") == "3 addresses"
    assert [octets(n) for n in (0, 1023, 1024, 3 << 40)] == ["0 B", "1023 B", "1.0 KiB", "3.0 TiB"]


def findings(check: str, *levels: Level) -> list[Finding]:
    sheet = Sheet(check)
    tell = {Level.OK: lambda: sheet.ok("fine"), Level.NO: lambda: sheet.no("bad", "mend it")}
    tell[Level.WARNING] = lambda: sheet.warn("odd", "look")
    for level in levels:
        tell[level]()
    return sheet.found


def levels(found: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(finding.check, finding.level.value) for finding in found]


def test_one_ok_of_a_check_that_is_right() -> None:
    some = findings("b", Level.OK, Level.OK) + findings("a", Level.OK)
    assert levels(merged(some, ("a", "b"))) == [("a", "ok"), ("b", "ok")]


def test_no_ok_of_a_check_that_is_not() -> None:
    some = findings("a", Level.OK, Level.WARNING, Level.NO)
    assert levels(merged(some, ("a",))) == [("a", "no"), ("a", "warning")]


def test_of_many_the_rest_is_counted() -> None:
    found = merged(findings("a", *[Level.WARNING] * 20, *[Level.NO] * 30), ("a",))
    assert levels(found) == [("a", "no")] * 17
    assert found[-1].what == "and 34 more of this check"
