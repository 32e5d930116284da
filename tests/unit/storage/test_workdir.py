"""A work directory is refused with nothing changed, and leaves nothing but what it should."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from phaul.errors import WorkDirError
from phaul.storage.workdir import WorkDir

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.usefixtures("no_leaks")


def listing(path: Path) -> set[str]:
    return {str(entry.relative_to(path)) for entry in path.rglob("*")}


def refused(path: Path, said: str) -> None:
    """`path` is refused, with what lies around it left alone."""
    around = path.parent if path.parent.is_dir() else path.parent.parent
    before = listing(around)
    with pytest.raises(WorkDirError, match=said) as caught:
        WorkDir.open(path, "source")
    assert caught.value.host == "source"
    assert caught.value.remedy
    assert listing(around) == before


def test_it_is_made_and_removed(tmp_path: Path) -> None:
    work = WorkDir.open(tmp_path / "work")
    assert (tmp_path / "work").stat().st_mode & 0o777 == 0o700
    (work.next().path / "a.img").touch()
    work.close(remove=True)
    assert listing(tmp_path) == set()


def test_one_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "note.txt").touch()
    work = WorkDir.open(tmp_path)
    work.next()
    work.close(remove=True)
    assert listing(tmp_path) == {"note.txt"}


def test_without_remove_the_images_stay(tmp_path: Path) -> None:
    work = WorkDir.open(tmp_path)
    (work.next().path / "a.img").touch()
    work.close()
    work.close(remove=True)
    assert listing(tmp_path) == {"0", "0/a.img"}
    refused(tmp_path, r"0/a\.img")


def test_the_chain(tmp_path: Path) -> None:
    work = WorkDir.open(tmp_path)
    assert [work.last] == [None]
    made = [work.next() for _ in range(3)]
    assert [(d.path.name, d.parent) for d in made] == [("0", None), ("1", "../0"), ("2", "../1")]
    assert work.last == tmp_path / "2"
    work.drop_chain()
    assert [work.last] == [None]
    assert listing(tmp_path) == set()
    assert work.next().parent is None
    work.close(remove=True)


def test_dropped_images_leave_their_logs(tmp_path: Path) -> None:
    work = WorkDir.open(tmp_path)
    path = work.next().path
    for name in ("a.img", "stats-dump", "dump.log"):
        (path / name).touch()
    (path / "parent").symlink_to("../nowhere")
    work.drop_chain(keep_logs=True)
    assert listing(tmp_path) == {"0", "0/dump.log"}
    again = work.next()
    assert (again.path.name, again.parent) == ("1", None)
    work.close()


def test_numbers_go_on_behind_logs_that_were_left(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/dump.log").touch()
    work = WorkDir.open(tmp_path)
    assert work.next().path.name == "8"
    work.close(remove=True)
    assert listing(tmp_path) == {"7", "7/dump.log"}


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    work = WorkDir.open(tmp_path)
    (tmp_path / "0").touch()
    with pytest.raises(WorkDirError, match="cannot be made"):
        work.next()
    work.close()


def test_dropping_what_is_gone_already(tmp_path: Path) -> None:
    work = WorkDir.open(tmp_path)
    work.next().path.rmdir()
    work.drop_chain(keep_logs=True)
    work.next().path.rmdir()
    work.close(remove=True)


@pytest.mark.parametrize("name", ["core-1.img", "3/pages-1.img"])
def test_images(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    refused(tmp_path, "has images already")


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "work").touch()
    refused(tmp_path / "work", "not a directory")


def test_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "work").symlink_to("nowhere")
    refused(tmp_path / "work", "not a directory")


def test_no_parent(tmp_path: Path) -> None:
    refused(tmp_path / "no/work", "No such file")


def test_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(tmp_path / "file/work", "Not a directory")


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    refused(tmp_path / ("x" * 300), "too long")


def test_one_that_is_locked(tmp_path: Path) -> None:
    work = WorkDir.open(tmp_path / "work")
    refused(tmp_path / "work", "used by another migration")
    work.close()
    WorkDir.open(tmp_path / "work").close()


def test_a_link_to_a_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "work").symlink_to("real")
    work = WorkDir.open(tmp_path / "work")
    work.next()
    work.close(remove=True)
    assert listing(tmp_path) == {"real", "work"}


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    work = WorkDir.open(Path("work"))
    monkeypatch.chdir("/")
    assert work.next().path == tmp_path / "work/0"
    work.close(remove=True)
    assert listing(tmp_path) == set()


OPEN = """
import sys
from pathlib import Path
from phaul.errors import WorkDirError
from phaul.storage.workdir import WorkDir
try:
    WorkDir.open(Path(sys.argv[1])).close()
except WorkDirError as error:
    print(error)
"""


def open_in(command: list[str], path: Path) -> str:
    """What is said of `path` in another process."""
    done = subprocess.run(
        [*command, sys.executable, "-c", OPEN, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return done.stdout


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.parametrize("made", [False, True])
def test_not_writable(tmp_path: Path, unprivileged: list[str], made: bool) -> None:
    for path in (tmp_path, *tmp_path.parents):
        path.chmod(path.stat().st_mode | 0o055)
    if made:
        (tmp_path / "work").mkdir(mode=0o755)
    before = listing(tmp_path)
    said = open_in(unprivileged, tmp_path / "work")
    assert "cannot be used: Permission denied" in said
    assert "may write to" in said
    assert listing(tmp_path) == before


FULL = 'mount -t tmpfs -o size=64k none "$0" && mkdir "$0/work" && "$@"; ls -A "$0/work" >&2'


@needs_root
def test_a_full_disk(tmp_path: Path) -> None:
    said = open_in(["unshare", "-m", "sh", "-c", FULL, str(tmp_path)], tmp_path / "work")
    assert "No space left" in said
    assert "make room" in said


READ_ONLY = 'mount -t tmpfs -o ro none "$0" && "$@"'


@needs_root
def test_a_read_only_file_system(tmp_path: Path) -> None:
    said = open_in(["unshare", "-m", "sh", "-c", READ_ONLY, str(tmp_path)], tmp_path / "work")
    assert "Read-only file system" in said
