"""The one token: for one host, for a while, for few guesses."""

import threading
from pathlib import Path

import pytest

from phaul.errors import StateError, TokenExpired, TokenWrong, UsageError
from phaul.storage.admission import LONGEST_S, MOST_GUESSES, Admission

WRONG = b"\0" * 16


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    time = [1_000_000.0]
    monkeypatch.setattr("phaul.storage.admission.time.time", lambda: time[0])
    return time


def test_it_is_good_once(tmp_path: Path) -> None:
    admission = Admission(tmp_path)
    assert not admission.is_out()
    secret = admission.issue(60)
    assert len(secret) == 16
    assert admission.is_out()
    assert secret.hex() not in (tmp_path / "token.json").read_text()
    assert (tmp_path / "token.json").stat().st_mode & 0o777 == 0o600
    admission.use(secret)
    assert not (tmp_path / "token.json").exists()
    with pytest.raises(TokenExpired):
        admission.use(secret)


def test_it_expires(tmp_path: Path, now: list[float]) -> None:
    admission = Admission(tmp_path)
    secret = admission.issue(60)
    now[0] += 59
    assert admission.is_out()
    now[0] += 1
    assert not admission.is_out()
    with pytest.raises(TokenExpired):
        admission.use(secret)
    assert not (tmp_path / "token.json").exists()


def test_a_clock_that_is_set_back_makes_none_last_longer(tmp_path: Path, now: list[float]) -> None:
    admission = Admission(tmp_path)
    admission.issue(60)
    now[0] -= LONGEST_S
    assert not admission.is_out()


def test_guesses(tmp_path: Path) -> None:
    admission = Admission(tmp_path)
    secret = admission.issue(60)
    for _ in range(MOST_GUESSES - 1):
        with pytest.raises(TokenWrong):
            admission.use(WRONG)
        assert admission.is_out()
    with pytest.raises(TokenWrong, match="void"):
        admission.use(WRONG)
    with pytest.raises(TokenExpired):
        admission.use(secret)


def test_a_new_one_ends_the_one_before(tmp_path: Path) -> None:
    admission = Admission(tmp_path)
    first, second = admission.issue(60), admission.issue(60)
    with pytest.raises(TokenWrong):
        admission.use(first)
    admission.withdraw(first)  # too late: it is no longer the one
    admission.use(second)


def test_it_can_be_withdrawn(tmp_path: Path) -> None:
    admission = Admission(tmp_path)
    secret = admission.issue(60)
    admission.withdraw(secret)
    assert not admission.is_out()
    with pytest.raises(TokenExpired):
        admission.use(secret)


def test_many_at_once_use_it_once(tmp_path: Path) -> None:
    secret = Admission(tmp_path).issue(60)
    good: list[int] = []

    def use(number: int) -> None:
        try:
            Admission(tmp_path).use(secret)
        except TokenExpired:
            return
        good.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(good) == 1


@pytest.mark.parametrize("lifetime", [0, -1, float("nan"), LONGEST_S + 1, float("inf")])
def test_lifetimes_that_cannot_be_meant(tmp_path: Path, lifetime: float) -> None:
    with pytest.raises(UsageError):
        Admission(tmp_path).issue(lifetime)


@pytest.mark.parametrize("data", [b"", b"{}", b"x" * 2000, b'{"digest":"../x","expires":1}'])
def test_a_damaged_file_lets_nobody_in(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "token.json").write_bytes(data)
    with pytest.raises(StateError, match="damaged"):
        Admission(tmp_path).is_out()
    with pytest.raises(StateError, match="damaged"):
        Admission(tmp_path).use(WRONG)
