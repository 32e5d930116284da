"""khugepaged waits, and goes on at its own pace when the last phaul is done with it."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.errors import SubjectError
from phaul.subjects.khugepaged import WAITS_MS, Khugepaged
from tests.unit.subjects.fake_huge import FakeKhugepaged


@pytest.fixture
def khugepaged(tmp_path: Path) -> FakeKhugepaged:
    return FakeKhugepaged.at(tmp_path)


def test_it_waits_and_goes_on(khugepaged: FakeKhugepaged) -> None:
    khugepaged.available()
    assert khugepaged.pace() == 10_000
    khugepaged.wait()
    assert khugepaged.pace() == WAITS_MS
    khugepaged.resume(10_000)
    assert khugepaged.pace() == 10_000


def test_what_somebody_else_has_set_since_stays(khugepaged: FakeKhugepaged) -> None:
    khugepaged.wait()
    khugepaged.file.write_text("500\n")
    khugepaged.resume(10_000)
    assert khugepaged.pace() == 500


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=30))
def test_whatever_several_phauls_do_its_pace_comes_back(steps: list[tuple[int, bool]]) -> None:
    with TemporaryDirectory() as folder:
        khugepaged = FakeKhugepaged.at(Path(folder), 777)
        owed: dict[int, int] = {}

        def end(who: int) -> None:
            if who in owed:
                khugepaged.resume(owed.pop(who))

        for who, ends in steps:
            if ends:
                end(who)
            elif (pace := khugepaged.pace()) != WAITS_MS:
                owed[who] = pace
                khugepaged.wait()
        for who in list(owed):
            end(who)
        assert khugepaged.pace() == 777


@pytest.mark.parametrize("text", [None, "", "no number"])
def test_one_that_does_not_say_its_pace(khugepaged: FakeKhugepaged, text: str | None) -> None:
    khugepaged.file.unlink()
    if text is not None:
        khugepaged.file.write_text(text)
    with pytest.raises(SubjectError, match="does not say its pace"):
        khugepaged.available()


def test_a_kernel_without_it_owes_nothing(tmp_path: Path) -> None:
    Khugepaged(tmp_path).resume(10_000)


def test_one_that_may_not_be_told(
    khugepaged: FakeKhugepaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Khugepaged, "pace", lambda _self: 10_000)
    for ask in (khugepaged.available, Khugepaged(khugepaged.sys).wait):
        with pytest.raises(SubjectError, match="cannot be made to wait") as caught:
            ask()
        assert "leave out --split-huge-pages" in caught.value.remedy
