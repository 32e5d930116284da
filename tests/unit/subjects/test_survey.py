"""The survey of a fake /proc, part by part."""

import os
import stat
import struct
from pathlib import Path

import pytest

from phaul.facts import Fate, File, Peer, Survey
from phaul.subjects.sockdiag import Diag, UnixRow
from phaul.subjects.survey import survey
from tests.unit.criu.test_elf import elf, note
from tests.unit.subjects.fake_proc import FakeProc, unlinked
from tests.unit.subjects.test_parsers import NETLINK, PACKET

NO_DIAG = Diag({}, {})
HEAD = "  sl local rem st tx:rx tr:tm retr uid timeout inode\n"


def look(fake: FakeProc, diag: Diag | None = NO_DIAG) -> Survey:
    return survey(10, fake.proc, lambda _namespace: diag)


def by_path(found: Survey, path: Path) -> File:
    (file,) = [file for file in found.files if file.path == str(path)]
    return file


def test_mapped_files_have_what_a_restore_compares(fake_proc: FakeProc, tmp_path: Path) -> None:
    library = tmp_path / "lib so"
    library.write_bytes(elf((4, note(3, b"0123456789"))))
    library.chmod(0o640)
    fake_proc.process(10, children=(11,))
    fake_proc.process(11, 10)
    for pid in (10, 11):
        fake_proc.map(pid, 0x400000, library)
        fake_proc.map(pid, 0x500000, library)
    file = by_path(look(fake_proc), library)
    assert (file.use, file.kind, file.mode, file.pid) == ("mapped", "file", 0o640, 10)
    assert file.size == library.stat().st_size
    assert bytes.fromhex(file.build_id) == b"0123456789"
    assert file.fate is Fate.THERE


def test_memory_without_a_file_is_no_file(fake_proc: FakeProc) -> None:
    fake_proc.process(10)
    for at, path in enumerate(("/memfd:x (deleted)", "/dev/zero (deleted)", "[heap]", "/[aio]")):
        fake_proc.map(10, 0x100000 * (at + 1), path, "rw-s")
    assert {file.use for file in look(fake_proc).files} == {"cwd", "root"}


def test_names_that_no_longer_lead_there(fake_proc: FakeProc, tmp_path: Path) -> None:
    fake_proc.process(10)
    ghost = unlinked(tmp_path / "ghost", 3 << 20)
    renamed = tmp_path / "renamed"
    renamed.write_text("x")
    other = tmp_path / "other"
    other.hardlink_to(renamed)
    replaced = tmp_path / "replaced"
    replaced.write_text("x")
    held = [os.open(renamed, os.O_RDONLY), os.open(replaced, os.O_RDONLY)]
    replaced.rename(tmp_path / "kept")
    renamed.unlink()
    replaced.write_text("another")
    try:
        status = {
            3: (ghost, f"{tmp_path}/ghost (deleted)"),
            4: (held[0], f"{tmp_path}/renamed (deleted)"),
            5: (held[1], str(replaced)),
        }
        for fd in status:
            fake_proc.open(10, fd, tmp_path)

        # A link in /proc leads to the file itself, and yet reads as its name: no fake can.
        proc = fake_proc.proc
        real_link, real_stat = type(proc).link, type(proc).stat
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                type(proc),
                "link",
                lambda self, pid, *parts: (
                    status[int(parts[1])][1]
                    if parts[0] == "fd" and int(parts[1]) in status
                    else real_link(self, pid, *parts)
                ),
            )
            patch.setattr(
                type(proc),
                "stat",
                lambda self, pid, *parts: (
                    os.fstat(status[int(parts[1])][0])
                    if parts[0] == "fd" and int(parts[1]) in status
                    else real_stat(self, pid, *parts)
                ),
            )
            found = {file.fd: file for file in look(fake_proc).files if file.fd}
    finally:
        for fd in (ghost, *held):
            os.close(fd)
    assert [found[fd].fate for fd in (3, 4, 5)] == [Fate.UNLINKED, Fate.ELSEWHERE, Fate.REPLACED]
    assert [found[fd].path for fd in (3, 4)] == [f"{tmp_path}/ghost", f"{tmp_path}/renamed"]
    assert found[3].disk >= 3 << 20


def test_open_files_and_how_they_are_open(fake_proc: FakeProc, tmp_path: Path) -> None:
    fake_proc.process(10)
    log, data = tmp_path / "log", tmp_path / "data"
    log.write_text("log")
    data.write_text("data")
    fake_proc.open(10, 1, log, "flags:\t0102001\n")
    fake_proc.open(10, 2, data, "flags:\t0102002\nlock:\t1: POSIX ADVISORY WRITE 10 0:1:2 0 EOF\n")
    fake_proc.open(10, 5, "/dev/null")
    found = look(fake_proc)
    assert by_path(found, log).append_only, "O_WRONLY and O_APPEND: CRIU does not compare it"
    assert not by_path(found, data).append_only, "O_RDWR and O_APPEND: CRIU does"
    null = by_path(found, Path("/dev/null"))
    assert (null.kind, null.device) == ("character", os.makedev(1, 3))
    ((lock),) = found.locks
    assert (lock.fd, lock.kind, lock.path) == (2, "POSIX", str(data))


def test_a_file_opened_on_a_mount_that_the_process_does_not_see(
    fake_proc: FakeProc, tmp_path: Path
) -> None:
    here = fake_proc.process(10)
    (here / "mountinfo").write_text("74 73 0:27 / / rw - tmpfs tmpfs rw\n")
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.write_text("")
    outside.write_text("")
    fake_proc.open(10, 0, inside, "mnt_id:\t74\n")
    fake_proc.open(10, 1, outside, "mnt_id:\t99\n")
    found = look(fake_proc)
    assert by_path(found, inside).mounted
    assert not by_path(found, outside).mounted


def test_pipes_by_the_ends_that_the_tree_has(fake_proc: FakeProc, tmp_path: Path) -> None:
    fake_proc.process(10, children=(11,))
    fake_proc.process(11, 10)
    fake_proc.open(10, 0, "pipe:[1]", "flags:\t00\n")
    fake_proc.open(10, 1, "pipe:[2]", "flags:\t01\n")
    fake_proc.open(10, 3, "pipe:[3]", "flags:\t01\n")
    fake_proc.open(11, 3, "pipe:[3]", f"flags:\t{os.O_DIRECT:o}\n")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fake_proc.open(10, 4, fifo, "flags:\t00\n")
    found = [(p.reads, p.writes, p.packets, p.path) for p in look(fake_proc).pipes]
    assert found == [
        (True, False, False, ""),
        (False, True, False, ""),
        (True, True, True, ""),
        (True, False, False, str(fifo)),
    ]


def test_anonymous_inodes_and_namespaces(fake_proc: FakeProc) -> None:
    fake_proc.process(10)
    for fd, (link, info) in enumerate(
        {
            "anon_inode:[io_uring]": "",
            "anon_inode:inotify": "",
            "anon_inode:[pidfd]": "Pid:\t77\n",
            "net:[3]": "",
            "net:[33]": "",
        }.items()
    ):
        fake_proc.open(10, fd, link, info)
    found = [(s.kind, s.target, s.inside) for s in look(fake_proc).specials]
    assert found == [
        ("io_uring", 0, True),
        ("inotify", 0, True),
        ("pidfd", 77, False),
        ("net", 3, True),
        ("net", 33, False),
    ]


def test_a_terminal_with_and_without_its_master(fake_proc: FakeProc) -> None:
    fake_proc.process(10)
    master, slave = os.openpty()
    try:
        name = os.ttyname(slave)
        index = os.minor(os.fstat(slave).st_rdev)
        fake_proc.open(10, 0, name)
        (alone,) = look(fake_proc).terminals
        assert (alone.role, alone.index, alone.paired) == ("slave", index, False)
        fake_proc.open(10, 1, f"/proc/self/fd/{master}", f"tty-index:\t{index}\n")
        both = {t.role: t for t in look(fake_proc).terminals}
        assert both["master"].index == index
        assert both["slave"].paired
    finally:
        os.close(master)
        os.close(slave)


def test_sockets_are_looked_up_by_their_inode(fake_proc: FakeProc) -> None:
    fake_proc.process(10, children=(11,))
    fake_proc.process(11, 10)
    for fd, inode in enumerate((1, 2, 30777, 30778)):
        fake_proc.open(10, fd, f"socket:[{inode}]")
    fake_proc.open(11, 0, "socket:[2]")
    fake_proc.table(
        10,
        "tcp",
        HEAD
        + " 0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0 1\n"
        + " 1: 0100007F:1F90 0100007F:D431 01 0:0 0:0 0 0 0 2\n"
        + " 2: 0100007F:D431 0100007F:1F90 01 0:0 0:0 0 0 0 999\n",
    )
    fake_proc.table(10, "netlink", NETLINK)
    fake_proc.table(10, "packet", PACKET)
    found = look(fake_proc, Diag({}, {30777: 34}))
    listener, connected = found.inet
    assert (listener.state, listener.outside) == ("LISTEN", False)
    assert connected.outside, "the other end, inode 999, is not the tree's"
    assert found.connections == (connected,)
    assert found.netlink[0].groups == 34
    assert found.packet[0].interface == 2


def test_a_connection_within_the_tree(fake_proc: FakeProc) -> None:
    fake_proc.process(10)
    fake_proc.open(10, 3, "socket:[2]")
    fake_proc.open(10, 4, "socket:[3]")
    fake_proc.table(
        10,
        "tcp",
        HEAD
        + " 1: 0100007F:1F90 0100007F:D431 01 0:0 0:0 0 0 0 2\n"
        + " 2: 0100007F:D431 0100007F:1F90 01 0:0 0:0 0 0 0 3\n",
    )
    assert [s.outside for s in look(fake_proc).connections] == [False, False]


def test_where_the_other_end_of_a_unix_socket_is(fake_proc: FakeProc) -> None:
    fake_proc.process(10)
    fake_proc.process(20, name="journald")
    fake_proc.open(20, 7, "socket:[100]")
    rows = [
        UnixRow(1, 1, 1, peer=2),
        UnixRow(2, 1, 1, name=b"\0abstract", peer=1),
        UnixRow(3, 2, 7, peer=100),
        UnixRow(100, 2, 7, name=b"/dev/log\0"),
        UnixRow(4, 1, 10, name=b"/run/x\0", waiting=(5,)),
        UnixRow(5, 1, 1),
        UnixRow(6, 1, 1),
        UnixRow(8, 1, 10, waiting=(9,)),
        UnixRow(9, 1, 1),
    ]
    for fd in (1, 2, 3, 4, 5, 6, 9):
        fake_proc.open(10, fd, f"socket:[{fd}]")
    found = {s.fd: s for s in look(fake_proc, Diag({row.inode: row for row in rows}, {})).unix}
    assert {fd: s.peer for fd, s in found.items()} == {
        1: Peer.INSIDE,
        2: Peer.INSIDE,
        3: Peer.OUTSIDE,
        4: Peer.NONE,
        5: Peer.WAITING,
        6: Peer.CLOSED,
        9: Peer.OUTSIDE,
    }
    assert found[2].path == "@abstract"
    assert (found[3].peer_path, found[3].holder) == ("/dev/log", "journald, PID 20")
    assert found[4].listens
    assert any(
        f.use == "unix" and f.path == "/run"
        for f in look(fake_proc, Diag({row.inode: row for row in rows}, {})).files
    )


def test_a_watch_whose_handle_leads_nowhere(fake_proc: FakeProc) -> None:
    here = fake_proc.process(10)
    (here / "mountinfo").write_text("74 73 0:27 / / rw - tmpfs tmpfs rw\n")
    fake_proc.open(
        10,
        3,
        "anon_inode:inotify",
        "inotify wd:1 ino:6d3 sdev:1b mask:2 ignored_mask:0 fhandle-bytes:8 fhandle-type:81 "
        "f_handle:0000000000000000\n",
    )
    (watch,) = look(fake_proc).watches
    assert (watch.fd, watch.of, watch.path) == (3, "inode", "")


def test_confinement(fake_proc: FakeProc) -> None:
    here = fake_proc.process(10, cgroup="0::/system.slice/a\n4:memory:/\n")
    (here / "attr" / "apparmor").mkdir(parents=True)
    (here / "attr" / "apparmor" / "current").write_text("docker-default (enforce)\n")
    found = look(fake_proc)
    assert [(c.controllers, c.path) for c in found.cgroups] == [("", "/system.slice/a")]
    assert [(p.kind, p.profile) for p in found.profiles] == [("apparmor", "docker-default")]


def test_devices_and_system_v_memory_that_are_mapped(fake_proc: FakeProc) -> None:
    fake_proc.process(10)
    fake_proc.map(10, 0x100000, "/dev/null", "rw-s")
    fake_proc.map(10, 0x200000, "/dev/zero")
    fake_proc.map(10, 0x300000, "/SYSV00000000 (deleted)", "rw-s")
    found = look(fake_proc).mappings
    assert [(m.kind, m.address) for m in found] == [("device", 0x100000), ("sysv", 0x300000)]


def test_a_real_file_is_never_changed_by_the_look(fake_proc: FakeProc, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(struct.pack("<I", 1))
    os.utime(file, (1, 1))
    fake_proc.process(10)
    fake_proc.open(10, 3, file)
    look(fake_proc)
    assert stat.S_IMODE(file.stat().st_mode) == by_path(look(fake_proc), file).mode
    assert file.stat().st_mtime == 1
