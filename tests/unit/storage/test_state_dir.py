"""The state directory is this user's alone, or it is refused; files are old or new, never half."""

import os
import stat
from pathlib import Path

import pytest

from phaul.errors import StateError, UsageError
from phaul.storage.state_dir import StateDir, locate, read_whole, write_whole

pytestmark = pytest.mark.usefixtures("no_leaks")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize(
    ("environment", "uid", "path"),
    [
        ({"PHAUL_STATE": "/x/y", "XDG_STATE_HOME": "/z"}, 0, "/x/y"),
        ({"XDG_STATE_HOME": "/z", "HOME": "/root"}, 0, "/var/lib/phaul"),
        ({"XDG_STATE_HOME": "/z", "HOME": "/h"}, 7, "/z/phaul"),
        ({"XDG_STATE_HOME": "z", "HOME": "/h"}, 7, "/h/.local/state/phaul"),
        ({"PHAUL_STATE": "", "HOME": "/h"}, 7, "/h/.local/state/phaul"),
    ],
)
def test_where_it_is(environment: dict[str, str], uid: int, path: str) -> None:
    assert locate(environment, uid) == Path(path)


@pytest.mark.parametrize(
    "environment", [{"PHAUL_STATE": "x"}, {"PHAUL_STATE": "/x/../y"}, {}, {"HOME": "x"}]
)
def test_where_it_cannot_be(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"PHAUL_STATE|home"):
        locate(environment, 7)


def test_the_variable_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHAUL_STATE", str(tmp_path / "state"))
    assert StateDir.open().path == tmp_path / "state"
    assert (tmp_path / "state").is_dir()


def test_it_is_made_for_this_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        state = StateDir.open(tmp_path / "a/b/state")
        below = state.directory("migrations")
    finally:
        os.umask(before)
    for path in (tmp_path / "a", tmp_path / "a/b", state.path, below):
        assert mode(path) == 0o700
    assert StateDir.open(state.path).directory("migrations") == below


def test_to_look_makes_nothing(tmp_path: Path) -> None:
    assert StateDir.open(tmp_path / "state", make=False).path == tmp_path / "state"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [True, False])
@pytest.mark.parametrize("target", ["real", "nowhere"])
def test_a_link(tmp_path: Path, target: str, make: bool) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "state").symlink_to(target)
    with pytest.raises(StateError, match="is a link"):
        StateDir.open(tmp_path / "state", make=make)
    assert not (tmp_path / "nowhere").exists()


def test_a_link_below(tmp_path: Path) -> None:
    state = StateDir.open(tmp_path / "state")
    (tmp_path / "real").mkdir()
    (state.path / "migrations").symlink_to(tmp_path / "real")
    with pytest.raises(StateError, match="is a link"):
        state.directory("migrations")


@pytest.mark.parametrize("bits", [0o770, 0o707, 0o777, 0o1777])
def test_one_that_others_may_write(tmp_path: Path, bits: int) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(bits)
    with pytest.raises(StateError, match="written by others") as caught:
        StateDir.open(tmp_path / "state")
    assert "chmod go-w" in caught.value.remedy


@pytest.mark.parametrize("bits", [0o755, 0o750, 0o700])
def test_one_that_others_may_read_is_taken(tmp_path: Path, bits: int) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(bits)
    assert mode(StateDir.open(tmp_path / "state").path) == bits


def test_one_that_others_may_replace(tmp_path: Path) -> None:
    (tmp_path / "open/state").mkdir(parents=True)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(StateError, match=r"lies in .*/open, which can be written by others"):
        StateDir.open(tmp_path / "open/state")
    (tmp_path / "open").chmod(0o1777)
    StateDir.open(tmp_path / "open/state")


def test_one_that_others_may_replace_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "open/in/state").mkdir(parents=True, mode=0o700)
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to("open/in")
    with pytest.raises(StateError, match=r"lies in .*/open, which"):
        StateDir.open(tmp_path / "link/state")
    (tmp_path / "open").chmod(0o755)
    StateDir.open(tmp_path / "link/state")


@needs_root
def test_another_s(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    os.chown(tmp_path / "state", 65534, 65534)
    with pytest.raises(StateError, match="belongs to user 65534"):
        StateDir.open(tmp_path / "state")


@needs_root
@pytest.mark.parametrize("link", [True, False])
def test_in_another_s(tmp_path: Path, link: bool) -> None:
    (tmp_path / "theirs/state").mkdir(parents=True, mode=0o700)
    (tmp_path / "link").symlink_to("theirs")
    os.chown(tmp_path / ("link" if link else "theirs"), 65534, 65534, follow_symlinks=False)
    with pytest.raises(StateError, match="belongs to user 65534"):
        StateDir.open(tmp_path / "link/state")


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(StateError, match="not a directory"):
        StateDir.open(tmp_path / "state")
    with pytest.raises(StateError, match="cannot be made: Not a directory"):
        StateDir.open(tmp_path / "state/below")


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    for data, sync in ((b"old", True), (b"newer", False), (b"", True)):
        write_whole(path, data, sync=sync)
        assert read_whole(path, 5) == data
        assert mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_it_reaches_the_disk_before_it_has_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    path = tmp_path / "entry"
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), path.exists()))  # noqa: PTH115
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_whole(path, b"data")
    (name, early), (folder, late) = synced
    assert name.startswith(f"{tmp_path}/.entry.")
    assert folder == str(tmp_path)
    assert (early, late) == (False, True)
    synced.clear()
    write_whole(path, b"data", sync=False)
    assert synced == []


def test_a_failure_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "entry"
    write_whole(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "entry").symlink_to("other")
    with pytest.raises(OSError, match="symbolic links"):
        read_whole(tmp_path / "entry", 100)
    write_whole(tmp_path / "entry", b"mine")
    assert (tmp_path / "other").read_bytes() == b"other"
    assert not (tmp_path / "entry").is_symlink()


def test_what_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"123456")
    with pytest.raises(ValueError, match="more than 5"):
        read_whole(tmp_path / "long", 5)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    for name in ("fifo", "directory"):
        with pytest.raises(ValueError, match="not a file"):
            read_whole(tmp_path / name, 5)
