from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.facts import (
    Cgroup,
    Fate,
    File,
    FileKind,
    FileUse,
    Inet,
    InetProtocol,
    Memory,
    Process,
    Profile,
    Survey,
    sendable,
)
from phaul.protocol.preflight import (
    AddressNeed,
    CgroupNeed,
    FileNeed,
    LsmNeed,
    MemoryNeed,
    NamespaceNeed,
    Need,
    PidsNeed,
    ToolNeed,
)
from phaul.subjects.needs import needs


def process(pid: int = 10, session: int = 10, group: int = 10, *threads: int) -> Process:
    return Process(
        pid=pid,
        inner=pid,
        parent=1,
        group=group,
        session=session,
        start=1,
        name="x",
        state="S",
        terminal=0,
        tracer=0,
        threads=(pid, *threads),
        namespaces={},
    )


PLAIN = Survey(root=10, processes=(process(),), memory=Memory(resident=4096))


def file(path: str = "/lib/x", use: FileUse = "mapped", kind: FileKind = "file") -> File:
    return File(path=path, use=use, kind=kind, mode=0o644, pid=10, size=7, build_id="ab")


def inet(
    address: str, state: str = "LISTEN", protocol: InetProtocol = "tcp", remote_port: int = 0
) -> Inet:
    return Inet(
        pid=10,
        fd=3,
        protocol=protocol,
        address=address,
        port=80,
        remote="10.0.0.2",
        remote_port=remote_port,
        state=state,
    )


def of(survey: Survey, kind: type, **options: bool) -> list[Need]:
    found = needs(survey, **options)
    # Every need can be sent, and comes out as it went in.
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=tuple[Need, ...])
    assert again == found
    return [need for need in found if isinstance(need, kind)]


def test_a_path_is_asked_for_once_with_all_that_is_compared() -> None:
    opened = replace(file(use="open"), append_only=True)
    (need,) = of(replace(PLAIN, files=(opened, file(), file(use="exe"))), FileNeed)
    assert isinstance(need, FileNeed)
    assert (need.size, need.build_id, need.use) == (7, "ab", "mapped")


def test_what_is_only_appended_to_may_have_any_size() -> None:
    opened = replace(file(use="open"), append_only=True)
    (need,) = of(replace(PLAIN, files=(opened,)), FileNeed)
    assert isinstance(need, FileNeed)
    assert (need.size, need.build_id) == (None, "")


@pytest.mark.parametrize("fate", [Fate.UNLINKED, Fate.ELSEWHERE, Fate.REPLACED])
def test_what_has_no_name_cannot_be_asked_for(fate: Fate) -> None:
    assert of(replace(PLAIN, files=(replace(file(), fate=fate),)), FileNeed) == []


@pytest.mark.parametrize(
    "path", ["/proc/10/maps", "/a\udcffb", "/a//b", "/a/../b", "/" + "x" * 4096]
)
def test_paths_that_are_the_tree_s_own_or_cannot_be_sent(path: str) -> None:
    assert of(replace(PLAIN, files=(file(path),)), FileNeed) == []


@given(st.text(max_size=20))
def test_what_is_sendable_can_be_sent(path: str) -> None:
    if sendable(path):
        assert of(replace(PLAIN, files=(file(path, use="open"),)), FileNeed)


def test_pids_are_those_of_threads_groups_and_sessions() -> None:
    tree = (process(10, 10, 10, 12), process(11, 9, 8))
    (need,) = of(replace(PLAIN, processes=tree), PidsNeed)
    assert need == PidsNeed(pids=(8, 9, 10, 11, 12))


def test_a_session_of_others_is_not_asked_for() -> None:
    """With shell_job CRIU uses the restorer's own instead, for the group of the root too."""
    tree = (process(10, 5, 6), process(11, 5, 11))
    assert of(replace(PLAIN, processes=tree), PidsNeed) == [PidsNeed(pids=(10, 11))]


def test_a_tree_with_a_pid_namespace_needs_no_pid() -> None:
    assert of(replace(PLAIN, own=("pid",)), PidsNeed) == []


def test_many_pids_are_asked_for_in_turns() -> None:
    found = of(replace(PLAIN, processes=(process(10, 10, 10, *range(100, 20_100)),)), PidsNeed)
    assert [len(need.pids) for need in found if isinstance(need, PidsNeed)] == [16_384, 3617]


def test_addresses() -> None:
    sockets = (
        inet("0.0.0.0"),
        inet("0.0.0.0"),
        inet("192.0.2.1", "ESTABLISHED", remote_port=5),
        inet("192.0.2.1", "ESTABLISHED", remote_port=6),
        inet("::", "CLOSE", "udp"),
        inet("0.0.0.0", "CLOSE", "raw"),
        inet("192.0.2.1", "CLOSE", "raw"),
        inet("192.0.2.1", "CLOSE", "icmp"),
    )
    survey = replace(PLAIN, inet=sockets)
    assert of(survey, AddressNeed) == [
        AddressNeed(address="0.0.0.0", port=80, protocol="tcp", listening=True, pid=10),
        AddressNeed(address="192.0.2.1", port=80, protocol="tcp", listening=False, pid=10),
        AddressNeed(address="::", port=80, protocol="udp", listening=True, pid=10),
        AddressNeed(address="192.0.2.1", port=0, protocol="raw", listening=False, pid=10),
    ]
    closed = of(survey, AddressNeed, tcp_kept=False)
    assert len(closed) == 3
    assert of(survey, ToolNeed) == []
    assert of(replace(survey, own=("net",)), AddressNeed) == []


def test_the_rest() -> None:
    survey = replace(
        PLAIN,
        own=("mnt", "net"),
        memory=Memory(resident=5, locked=4, huge=3, huge_page=2),
        cgroups=(Cgroup(controllers="", path="/a"),),
        profiles=(Profile(pid=10, kind="apparmor", profile="p"),),
    )
    assert of(survey, MemoryNeed) == [MemoryNeed(resident=5, locked=4, huge=3, huge_page=2)]
    assert of(survey, CgroupNeed) == [CgroupNeed(controllers="", path="/a")]
    assert of(survey, LsmNeed) == [LsmNeed(kind="apparmor", profile="p", pid=10)]
    assert of(survey, NamespaceNeed) == [NamespaceNeed(kinds=("mnt", "net"))]
    assert [n.name for n in of(survey, ToolNeed) if isinstance(n, ToolNeed)] == ["tar", "ip"]
    assert of(PLAIN, NamespaceNeed) == []
