"""Every reader of the kernel's text and messages: right, and never upset by what is none."""

import os
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.errors import PhaulError
from phaul.facts import Cgroup
from phaul.subjects.confinement import parse_cgroups, parse_label
from phaul.subjects.fdinfo import FdInfo, parse_fdinfo
from phaul.subjects.memory import add_up, parse_smaps
from phaul.subjects.mounts import parse_mountinfo
from phaul.subjects.nettables import parse_inet, parse_netlink, parse_packet
from phaul.subjects.proc import parse_stat, parse_status
from phaul.subjects.sockdiag import parse_answers, parse_groups, parse_unix

STAT = "42 (a) R (b) S 7 42 41 34816 -1 4194304 " + "0 " * 12 + "12345 " + "0 " * 8 + "256 0\n"
STATUS = "Name:\tx\nTgid:\t42\nTracerPid:\t0\nNSpid:\t42\t1\n"
SMAPS = """\
7f0000000000-7f0000200000 rw-p 00000000 00:00 0
Size:               2048 kB
KernelPageSize:        4 kB
Pss:                1024 kB
Anonymous:          1024 kB
AnonHugePages:      2048 kB
Swap:                 12 kB
SwapPss:               8 kB
Locked:              512 kB
VmFlags: rd wr mr mw me ac sd
7f0000200000-7f0000400000 rw-s 00000000 00:01 2099 /dev/zero (deleted)
Pss:                  64 kB
VmFlags: rd wr sh mr mw me ms sd
7f0000400000-7f0000800000 rw-p 00000000 00:0f 33 /anon_hugepage (deleted)
KernelPageSize:     2048 kB
Pss:                   0 kB
Private_Hugetlb:    4096 kB
VmFlags: rd wr mr mw me de ht sd
00400000-0040b000 r-xp 00002000 fe:00 1450644                    /usr/bin/a b
Pss:                  28 kB
VmFlags: rd ex mr mw me
"""
MOUNTS = """\
74 73 0:27 / / rw,relatime shared:1 - tmpfs tmpfs rw,size=4k
80 74 254:1 /a\\040b /mnt/x\\011y ro master:2 propagate_from:1 - ext4 /dev/vda rw
"""
FDINFO = """\
pos:	0
flags:	0102001
mnt_id:	74
lock:	1: FLOCK  ADVISORY  WRITE 4242 fe:00:1234 0 EOF
tty-index:	3
Pid:	-1
inotify wd:1 ino:6d3 sdev:800013 mask:2 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:d3060000a4b0
fanotify mnt_id:4a mflags:0 mask:1 ignored_mask:0
fanotify sdev:800013 mflags:0 mask:1 ignored_mask:0
"""  # noqa: E501
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 4711 1
   1: 0000000000000000FFFF00000100A8C0:0016 00000000000000000000000001000000:D431 01 00000000:00000000 02:0 0 0 0 4712 2
"""  # noqa: E501
NETLINK = """\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
00000000f264ad5f 0   4242       80000001 212      0        0     2        0        30777
"""
PACKET = """\
sk               RefCnt Type Proto  Iface R Rmem   User   Inode
00000000f264ad5f 3      3    0003   2     1 0      0      30778
"""
CGROUP = "4:memory,cpu:/user/x y\n0::/system.slice/a.service (deleted)\nnonsense\n"


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


UNIX = (
    struct.pack("=BBBxI8x", 1, 1, 1, 4711)
    + attribute(0, b"/run/x\0")
    + attribute(2, struct.pack("=I", 4712))
    + attribute(3, struct.pack("=II", 5, 6))
    + attribute(6, b"\3")
)
GROUPS = struct.pack("=BBBBIIII8x", 16, 3, 0, 7, 42, 0, 0, 99) + attribute(1, b"\1\0\0\0\2\0\0\0")
ANSWER = struct.pack("=IHHII", 16 + len(UNIX), 20, 2, 1, 0) + UNIX


def test_stat_of_a_name_that_looks_like_fields() -> None:
    stat = parse_stat(STAT)
    assert (stat.name, stat.state, stat.parent) == ("a) R (b", "S", 7)
    assert (stat.group, stat.session, stat.terminal, stat.start) == (42, 41, 34816, 12345)
    assert stat.pending == 256


def test_a_name_cannot_pretend_to_be_another_line_of_status() -> None:
    assert parse_status("Name:\tx\x1cTgid:\t1\nTgid:\t42\n")["Tgid"] == "42"


def test_smaps_adds_up() -> None:
    areas = parse_smaps(SMAPS)
    assert [area.path for area in areas][1:] == [
        "/dev/zero (deleted)",
        "/anon_hugepage (deleted)",
        "/usr/bin/a b",
    ]
    assert [area.of_file for area in areas] == [False, False, False, True]
    assert areas[3].name == "400000-40b000", "as in map_files, which has no leading zeros"
    memory = add_up([areas, areas])
    assert memory.private == 2 << 20
    assert memory.shared_anonymous == 128 << 10
    assert memory.files == 56 << 10
    assert memory.transparent_huge == 4 << 20
    assert memory.locked == 1 << 20
    assert memory.swapped == 16 << 10
    assert (memory.huge, memory.huge_page) == (8 << 20, 2 << 20)
    assert memory.resident == 2 * (1024 + 64 + 28 + 4096 << 10)


def test_mountinfo() -> None:
    first, second = parse_mountinfo(MOUNTS)
    assert (first.id, first.device, first.point, first.type) == (74, (0, 27), "/", "tmpfs")
    assert (second.root, second.point) == ("/a b", "/mnt/x\ty")


def test_fdinfo() -> None:
    info = parse_fdinfo(FDINFO)
    assert info.access == os.O_WRONLY
    assert info.flags & os.O_APPEND
    assert (info.mount, info.tty_index, info.pidfd, info.locks) == (74, 3, -1, ("FLOCK",))
    inode, mount, filesystem = info.marks
    assert (inode.by, inode.of, inode.inode, inode.device) == ("inotify", "inode", 0x6D3, 0x800013)
    assert (inode.handle_type, inode.handle) == (1, bytes.fromhex("d3060000a4b0"))
    assert (mount.by, mount.of, mount.mount) == ("fanotify", "mount", 0x4A)
    assert filesystem.of == "filesystem"
    assert parse_fdinfo("") == FdInfo()


def test_tables_of_sockets() -> None:
    listener, connected = parse_inet(TCP, "tcp")
    assert (listener.address, listener.port, listener.state) == ("127.0.0.1", 8080, "LISTEN")
    assert (listener.queued, listener.inode) == (3, 4711)
    assert (connected.address, connected.port) == ("192.168.0.1", 22), "IPv4 in IPv6 is IPv4"
    assert (connected.remote, connected.state) == ("::1", "ESTABLISHED")
    (link,) = parse_netlink(NETLINK)
    assert (link.port, link.groups, link.queued, link.inode) == (4242, 0x80000001, 212, 30777)
    assert parse_packet(PACKET) == {30778: 2}


def test_sock_diag() -> None:
    ((kind, payload),) = parse_answers(ANSWER)
    assert kind == 20
    row = parse_unix(payload)
    assert row is not None
    assert (row.inode, row.name, row.peer, row.waiting) == (4711, b"/run/x\0", 4712, (5, 6))
    assert row.closed
    assert parse_groups(GROUPS) == (99, 34)
    assert parse_unix(GROUPS) is None
    assert parse_groups(UNIX) is None


def test_cgroups() -> None:
    assert parse_cgroups(CGROUP) == [
        Cgroup(controllers="memory,cpu", path="/user/x y"),
        Cgroup(controllers="", path="/system.slice/a.service"),
    ]


@pytest.mark.parametrize(
    ("text", "apparmor", "kind", "profile"),
    [
        ("docker-default (enforce)\n", True, "apparmor", "docker-default"),
        ("docker-default (enforce)\n", False, "apparmor", "docker-default"),
        ("system_u:system_r:container_t:s0:c1,c2\0", False, "selinux", None),
        ("unconfined\n", True, "", ""),
        ("unconfined_u:unconfined_r:unconfined_t:s0\0", False, "", ""),
        ("", False, "", ""),
    ],
)
def test_labels(text: str, apparmor: bool, kind: str, profile: str | None) -> None:
    found = parse_label(7, text, apparmor=apparmor)
    assert (found.kind if found else "") == kind
    if found:
        assert found.profile == (profile or text.rstrip("\0"))


TEXTS: list[tuple[Callable[[str], object], str]] = [
    (parse_stat, STAT),
    (parse_status, STATUS),
    (lambda text: add_up([parse_smaps(text)]), SMAPS),
    (parse_mountinfo, MOUNTS),
    (parse_fdinfo, FDINFO),
    (lambda text: parse_inet(text, "tcp"), TCP),
    (parse_netlink, NETLINK),
    (parse_packet, PACKET),
    (parse_cgroups, CGROUP),
    (lambda text: parse_label(1, text, apparmor=False), "a:b:c:d"),
]
BYTES: list[tuple[Callable[[bytes], object], bytes]] = [
    (lambda data: list(parse_answers(data)), ANSWER),
    (parse_unix, UNIX),
    (parse_groups, GROUPS),
]


@pytest.mark.parametrize("which", range(len(TEXTS)))
@given(data=st.data())
def test_foreign_or_damaged_text_is_no_trouble(which: int, data: st.DataObject) -> None:
    parse, sound = TEXTS[which]
    cut = data.draw(st.integers(0, len(sound)))
    end = data.draw(st.integers(cut, len(sound)))
    strange = data.draw(st.text(max_size=30) | st.sampled_from(["9" * 5000, "-1", ":", "\u0663"]))
    for text in (strange, sound[:cut], sound[:cut] + strange + sound[end:]):
        try:
            parse(text)
        except PhaulError:
            assert parse is parse_stat


@pytest.mark.parametrize("which", range(len(BYTES)))
@given(data=st.data())
def test_foreign_or_damaged_bytes_are_no_trouble(which: int, data: st.DataObject) -> None:
    parse, sound = BYTES[which]
    cut = data.draw(st.integers(0, len(sound)))
    end = data.draw(st.integers(cut, len(sound)))
    strange = data.draw(st.binary(max_size=30) | st.sampled_from([b"\xff" * 40, b"\0" * 40]))
    for damaged in (strange, sound[:cut], sound[:cut] + strange + sound[end:]):
        parse(damaged)
