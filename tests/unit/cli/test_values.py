from contextlib import suppress
from fractions import Fraction

import click
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from phaul.cli.values import (
    DURATION,
    PID,
    RATE,
    SIZE,
    OneOf,
    parse_duration,
    parse_rate,
    parse_size,
)
from phaul.plan import Compress, OnTimeout, Tcp

SECONDS = {"us": "0.000001", "ms": "0.001", "s": "1", "m": "60", "min": "60", "h": "3600"}
K, M, G, T = (1024**n for n in range(1, 5))
SIZES = {
    "B": 1, "k": K, "K": K, "M": M, "m": M, "G": G, "T": T, "KiB": K, "MiB": M, "GiB": G,
    "KB": 10**3, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip
BITS = {"bit": 1, "kbit": 10**3, "Kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9}
numbers = st.decimals(min_value="0.001", max_value=8000, places=3)


@given(numbers, st.sampled_from(sorted(SECONDS)), st.sampled_from(["", " "]))
def test_durations(number: object, unit: str, space: str) -> None:
    expected = Fraction(str(number)) * Fraction(SECONDS[unit])
    assert parse_duration(f"{number}{space}{unit}") == float(expected)


@given(numbers, st.sampled_from(sorted(SIZES)))
def test_sizes(number: object, unit: str) -> None:
    expected = Fraction(str(number)) * SIZES[unit]
    if expected >= 1:
        assert parse_size(f"{number}{unit}") == int(expected)
        assert parse_rate(f"{number}{unit}") == parse_rate(f"{number}{unit}/s") == int(expected)
    else:
        with pytest.raises(ValueError, match="out of range"):
            parse_size(f"{number}{unit}")


@given(numbers.filter(lambda n: n >= 8), st.sampled_from(sorted(BITS)))
def test_rates_in_bits(number: object, unit: str) -> None:
    assert parse_rate(f"{number}{unit}") == int(Fraction(str(number)) * BITS[unit] / 8)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("300ms", 0.3), ("1.5s", 1.5), ("10m", 600), ("1h30m", 5400), ("1h 2min 3s", 3723),
     ("1d", 86400), (" 2s ", 2)],
)  # fmt: skip
def test_durations_that_people_write(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "rate"), [("100M", 100 * M), ("1G", G), ("100Mbit", 12.5e6), ("1Gbit/s", 125e6)]
)
def test_rates_that_people_write(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "s", "-1s", "+1s", "1e3s", "0s", "0.0ms", "1.s", ".5s", "1 s s", "30m1h", "1m1m", "1M",
     "1s\n2", "1\u0663s", "nan", "inf", "infs", "400d", "9" * 16 + "s", "1m1min", "1,5s", "1S"],
)  # fmt: skip
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize(
    "text",
    ["", "M", "-1M", "0B", "0", "1Mb", "1Mbps", "1b", "1X", "1e3M", "1.M", "2000000T", "1iB", "M1",
     "1Mbit", "1M/s"],
)  # fmt: skip
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


@pytest.mark.parametrize("parse", [parse_duration, parse_size, parse_rate])
def test_a_number_needs_its_unit(parse: object) -> None:
    assert callable(parse)
    with pytest.raises(ValueError, match="300 has no unit: write 300"):
        parse("300")


@given(st.text())
@example("1" * 5000 + "s")
def test_any_text_is_a_value_or_refused(text: str) -> None:
    for parse in (parse_duration, parse_size, parse_rate):
        with suppress(ValueError):
            assert parse(text) > 0


@given(st.integers(-5, 1 << 23))
def test_pids(pid: int) -> None:
    if 1 <= pid <= 1 << 22:
        assert PID.convert(str(pid), None, None) == pid
    else:
        with pytest.raises(click.BadParameter):
            PID.convert(str(pid), None, None)


@pytest.mark.parametrize("text", ["", "x", "1.0", "\u0664", " 1", "1_0", "0x1"])
def test_what_is_no_pid(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no PID"):
        PID.convert(text, None, None)


@pytest.mark.parametrize("member", [*OnTimeout, *Compress, *Tcp])
def test_choices_are_written_as_in_the_file(member: OnTimeout | Compress | Tcp) -> None:
    seen: list[object] = []

    @click.command()
    @click.option("--what", type=OneOf(type(member)), default=member)
    def command(what: object) -> None:
        seen.append(what)

    for arguments in ([], ["--what", str(member.value)]):
        assert CliRunner().invoke(command, arguments).exit_code == 0
    assert seen == [member, member]
    for wrong in (member.name, "x", ""):
        assert CliRunner().invoke(command, ["--what", wrong]).exit_code == 2
    assert f"{member.value}" in CliRunner().invoke(command, ["--help"]).output


def test_as_options() -> None:
    seen: list[object] = []

    @click.command()
    @click.option("--wait", type=DURATION, default="300ms")
    @click.option("--size", type=SIZE)
    @click.option("--rate", type=RATE)
    def command(wait: float, size: int, rate: float) -> None:
        seen.extend([wait, size, rate])

    run = CliRunner().invoke(command, ["--size", "1M", "--rate", "8Mbit"])
    assert run.exit_code == 0
    assert seen == [0.3, M, 1e6]
    for option in ("--wait", "--size", "--rate"):
        run = CliRunner().invoke(command, [option, "5"])
        assert run.exit_code == 2
        assert "5 has no unit" in run.output
