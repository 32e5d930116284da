import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.report.units import UNKNOWN, clean, duration, plural, rate, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1024, "1.0 KiB"),
        (44_145_000, "42.1 MiB"),
        (118 << 20, "118 MiB"),
        (1023 << 20, "1.00 GiB"),
        (1280 << 20, "1.25 GiB"),
        (99.96 * (1 << 20), "100 MiB"),
        (-5, "0 B"),
        (None, UNKNOWN),
        (float("nan"), UNKNOWN),
    ],
)
def test_sizes(count: float | None, text: str) -> None:
    assert size(count) == text


def test_rates() -> None:
    assert rate(9.7 * (1 << 20)) == "9.7 MiB/s"
    assert rate(None) == UNKNOWN


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0004, "0.4 ms"),
        (0.00996, "10 ms"),
        (0.36, "360 ms"),
        (0.9996, "1.00 s"),
        (3.562, "3.56 s"),
        (18.94, "18.9 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3900, "1 h 05 min"),
        (3 * 86_400 + 4 * 3600, "3 d 04 h"),
        (None, UNKNOWN),
        (float("inf"), UNKNOWN),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 1e18))
def test_a_size_is_never_wide(count: float) -> None:
    assert len(size(count)) <= 8


@given(st.text())
def test_what_is_clean_steers_no_terminal(text: str) -> None:
    assert clean(text).isprintable()
    assert len(clean(text)) == len(text)


def test_plurals() -> None:
    assert [plural(n, "round") for n in (0, 1, 2)] == ["0 rounds", "1 round", "2 rounds"]
