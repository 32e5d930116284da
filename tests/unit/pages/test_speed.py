from pathlib import Path

from phaul.pages.speed import USUAL, restore_rate


def test_it_is_a_rate_and_leaves_nothing(tmp_path: Path) -> None:
    assert restore_rate(tmp_path) > 1 << 20
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert restore_rate(tmp_path / "missing") == USUAL
