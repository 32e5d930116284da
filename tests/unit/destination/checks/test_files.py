import os
import socket
from pathlib import Path
from typing import Any

import pytest

from phaul.destination.checks import files
from phaul.protocol.preflight import FileNeed, Finding, Level
from tests.unit.criu.test_elf import ID, elf, note
from tests.unit.destination.checks.conftest import FakeHost, only

pytestmark = pytest.mark.usefixtures("no_leaks")

BUILD = elf((4, note(3, ID)))
OTHER = elf((4, note(3, ID[::-1])))


def need(path: str = "/lib/a.so", **changes: Any) -> FileNeed:  # noqa: ANN401
    values = {"use": "mapped", "kind": "file", "mode": 0o644, "pid": 4242, "path": path}
    return FileNeed(**{**values, **changes})


def look(host: FakeHost, *needs: FileNeed) -> list[Finding]:
    return files.look(needs, host.context())


@pytest.fixture
def library(host: FakeHost) -> Path:
    """/lib/a.so, reached through a link as libraries are."""
    path = host.root / "usr/lib/a.so"
    path.parent.mkdir(parents=True)
    path.write_bytes(BUILD)
    path.chmod(0o644)
    (host.root / "lib").symlink_to("usr/lib")
    return path


SAME: dict[str, Any] = {"size": len(BUILD), "build_id": ID.hex()}


def test_the_same(host: FakeHost, library: Path) -> None:
    same = need(**SAME)
    assert only(look(host, same), Level.OK, "files").what == "1 file is the same"
    assert only(look(host, same, same), Level.OK, "files").what == "2 files are the same"


def test_missing(host: FakeHost) -> None:
    found = only(look(host, need("/opt/app")), Level.NO, "files")
    assert found.what == "/opt/app is not there"
    assert "`dpkg -S /opt/app` on the source" in found.remedy
    assert only(look(host, need("/d/log", use="open")), Level.NO, "files").remedy == "copy it there"


def test_a_part_that_is_no_directory(host: FakeHost, library: Path) -> None:
    assert "is not there" in only(look(host, need("/lib/a.so/x")), Level.NO, "files").what


def test_another_size(host: FakeHost, library: Path) -> None:
    found = only(look(host, need(size=5)), Level.NO, "files")
    assert found.what == f"/lib/a.so has {len(BUILD)} bytes there, not 5"


def test_a_size_that_does_not_matter(host: FakeHost, library: Path) -> None:
    only(look(host, need(build_id="00")), Level.OK, "files")


def test_another_build(host: FakeHost, library: Path) -> None:
    library.write_bytes(OTHER)
    found = only(look(host, need(**SAME)), Level.NO, "files")
    assert "another build there (its build-id)" in found.what
    assert "package" in found.remedy
    assert ID[::-1].hex() not in str(found)


def test_a_file_without_build_id_is_compared_by_size(host: FakeHost, library: Path) -> None:
    library.write_bytes(bytes(len(BUILD)))
    only(look(host, need(**SAME)), Level.OK, "files")


def test_another_mode(host: FakeHost, library: Path) -> None:
    library.chmod(0o4755)
    found = only(look(host, need(use="exe", **SAME)), Level.NO, "files")
    assert found.what == "/lib/a.so has mode 4755 there, not 0644"
    assert found.remedy == "there: `chmod 0644 /lib/a.so`"


def test_the_mode_of_what_criu_does_not_open(host: FakeHost, library: Path) -> None:
    only(look(host, need("/lib", use="inotify", kind="directory", mode=0)), Level.OK, "inotify")


@pytest.mark.parametrize(
    ("use", "kind", "check"),
    [
        ("cwd", "directory", "directories"),
        ("root", "directory", "directories"),
        ("open", "directory", "directories"),
        ("open", "character", "devices"),
        ("mapped", "block", "devices"),
        ("open", "fifo", "files"),
        ("inotify", "file", "inotify"),
        ("unix", "directory", "unix"),
        ("cgroup", "directory", "cgroup"),
    ],
)
def test_which_check(host: FakeHost, use: str, kind: str, check: str) -> None:
    only(look(host, need("/gone", use=use, kind=kind)), Level.NO, check)


def test_directories(host: FakeHost, library: Path) -> None:
    library.parent.chmod(0o750)
    cwd = need("/lib", use="cwd", kind="directory", mode=0o750)
    assert only(look(host, cwd), Level.OK, "directories").what == "1 directory is there"
    only(look(host, need("/lib", use="cwd", kind="directory")), Level.NO, "directories")
    gone = need("/a b", use="root", kind="directory")
    assert "mkdir -p '/a b'" in only(look(host, gone), Level.NO, "directories").remedy


def test_another_type(host: FakeHost, library: Path) -> None:
    os.mkfifo(host.root / "fifo", 0o644)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(host.root / "socket"))
    for path, here in (("/fifo", "a FIFO"), ("/socket", "a socket"), ("/lib", "a directory")):
        found = only(look(host, need(path, build_id="00", size=1)), Level.NO, "files")
        assert found.what == f"{path} is {here} there, a regular file is needed"
    only(look(host, need("/fifo", kind="fifo", mode=0o644)), Level.OK, "files")


def test_devices(host: FakeHost) -> None:
    null = Path("/dev/null").stat()
    (host.root / "null").symlink_to("/dev/null")
    same = need("/null", use="open", kind="character", mode=null.st_mode & 0o777)
    here = FileNeed(**{**{n: getattr(same, n) for n in same.__struct_fields__}, "device": 0x103})
    assert only(look(host, here), Level.OK, "devices").what == "1 device is the same"
    found = only(look(host, same), Level.NO, "devices")
    assert found.what == "/null is device 1:3 there, not 0:0"
    gone = need("/sda", use="open", kind="block", device=os.makedev(8, 1))
    assert "`mknod /sda b 8 1`" in only(look(host, gone), Level.NO, "devices").remedy


def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The descriptors that were handed to the reader of build-ids."""
    found: list[int] = []

    def read(descriptor: int) -> str:
        found.append(descriptor)
        return ID.hex()

    monkeypatch.setattr(files, "build_id", read)
    return found


def test_what_is_the_kernels_is_never_opened(
    host: FakeHost, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = opened(monkeypatch)
    host.put("proc/kmsg").chmod(0o644)
    host.put("sys/module/x").chmod(0o644)
    (host.root / "link").symlink_to("/proc/self/stat")
    device = Path("/proc/self/stat").stat().st_dev
    host.mount("proc", "/proc", device=f"{os.major(device)}:{os.minor(device)}")
    needs = [need(path, size=0, build_id="00") for path in ("/proc/kmsg", "/sys/module/x")]
    only(look(host, *needs), Level.OK, "files")
    only(look(host, need("/link", size=0, build_id="00", mode=0o444)), Level.OK, "files")
    assert read == []
    only(look(host, need(**SAME)), Level.OK, "files")
    assert len(read) == 1


def test_without_the_mounts_nothing_is_opened(
    host: FakeHost, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = opened(monkeypatch)
    (host.proc / "self/mountinfo").unlink()
    only(look(host, need(**SAME)), Level.OK, "files")
    assert read == []


def test_what_cannot_be_looked_at(host: FakeHost) -> None:
    (host.root / "loop").symlink_to("loop")
    for path in ("/loop", "/" + "x" * 300):
        found = only(look(host, need(path)), Level.NO, "files")
        assert "cannot be looked at" in found.what


def test_a_long_path_is_no_command(host: FakeHost) -> None:
    long = "/" + "/".join(["part'"] * 600)
    found = only(look(host, need(long, kind="directory")), Level.NO, "directories")
    assert "mkdir -p PATH" in found.remedy
    assert found.what.startswith("/part'/")
    assert "..." in found.what
