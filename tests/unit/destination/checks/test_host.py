import os
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaul.criu.engine import Engine
from phaul.destination.checks import CheckContext, files, look, pids
from phaul.destination.checks import host as host_module
from phaul.plan.catalogue import CHECKS
from phaul.protocol import preflight as p
from phaul.protocol.messages import Surveyed, encode
from phaul.protocol.preflight import Finding, Level, Need, Where
from tests.unit.conftest import Fake
from tests.unit.destination.checks.conftest import FakeHost, only

paths = st.sampled_from(
    ["/", "/dev/null", "/dev/zero", "/proc/self/mem", "/proc/kmsg", "/sys/kernel/notes", "/bin/sh",
     "/proc/1/root/etc/shadow", "/dev/tty", "/tmp", "/" + "x" * 4000, "/a\x1b[31m/\u202e"]
) | st.from_regex(r"(/[^/\x00\ud800-\udfff.]{1,40}){1,6}", fullmatch=True)  # fmt: skip
numbers = st.integers(0, 1 << 50) | st.sampled_from([0, 1, 1 << 50])
pid = st.integers(1, 1 << 22)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=512)

needs = st.lists(
    st.one_of(
        st.builds(
            p.FileNeed,
            path=paths,
            use=st.sampled_from(["exe", "mapped", "open", "cwd", "root", "inotify", "unix"]),
            kind=st.sampled_from(["file", "directory", "character", "block", "fifo", "socket"]),
            mode=st.integers(0, 0o7777),
            pid=pid,
            size=st.none() | numbers,
            build_id=st.sampled_from(["", "00", "ff" * 64]),
            device=st.integers(0, (1 << 63) - 1),
        ),
        st.builds(p.PidsNeed, pids=st.lists(pid, min_size=1, max_size=50).map(tuple)),
        st.builds(
            p.AddressNeed,
            address=st.from_regex(r"[0-9a-fA-F:.]{1,45}", fullmatch=True)
            | st.ip_addresses().map(str),
            port=st.integers(0, 65535),
            protocol=st.sampled_from(["tcp", "udp", "udplite", "raw"]),
            listening=st.booleans(),
            pid=pid,
        ),
        st.builds(p.MemoryNeed, resident=numbers, locked=numbers, huge=numbers, huge_page=numbers),
        st.builds(p.ImagesNeed, size=numbers),
        st.builds(
            p.CpuNeed, image=st.binary(min_size=1, max_size=100), machine=st.text(max_size=64)
        ),
        st.builds(p.CgroupNeed, controllers=text, path=paths),
        st.builds(p.LsmNeed, kind=st.sampled_from(["apparmor", "selinux"]), profile=text, pid=pid),
        st.builds(
            p.NamespaceNeed,
            kinds=st.lists(
                st.sampled_from(["pid", "mnt", "net", "ipc", "uts", "user", "cgroup", "time"]),
                min_size=1,
                max_size=8,
            ).map(tuple),
        ),
        st.builds(
            p.ToolNeed, name=st.sampled_from(["iptables-restore", "tar", "ip"]), purpose=text
        ),
    ),
    min_size=1,
    max_size=12,
)


def run(asked: list[Need], context: CheckContext) -> tuple[Finding, ...]:
    return anyio.run(look, asked, context)


def is_sound(found: tuple[Finding, ...]) -> None:
    encode(Surveyed(findings=found))  # it raises what cannot be sent
    assert found
    for finding in found:
        assert finding.check in CHECKS
        assert finding.where is Where.DESTINATION
        assert finding.what.isprintable()
        assert finding.remedy.isprintable()
        assert finding.what
        assert bool(finding.remedy) is (finding.level is not Level.OK)
    order = [list(CHECKS).index(finding.check) for finding in found]
    assert order == sorted(order)


@settings(deadline=None, max_examples=60)
@given(asked=needs)
def test_whatever_is_asked_of_this_host(asked: list[Need]) -> None:
    is_sound(run(asked, CheckContext(Engine(("/no/criu",)), Path("/var/lib/no/such/agent"))))


@settings(deadline=None, max_examples=30)
@given(asked=needs)
def test_whatever_is_asked_of_a_host_without_proc(asked: list[Need]) -> None:
    nothing = Path("/no/such/root")
    context = CheckContext(Engine(("/no/criu",)), nothing, proc=nothing, root=nothing)
    is_sound(run(asked, context))


def test_a_whole_survey(host: FakeHost, fake: Fake) -> None:
    host.put("/bin/app", "x").chmod(0o755)
    host.put_proc("meminfo", "MemAvailable: 8388608 kB\n")
    asked: list[Need] = [
        p.ImagesNeed(size=1),
        p.MemoryNeed(resident=1 << 30),
        p.FileNeed(path="/bin/app", use="exe", kind="file", mode=0o755, pid=7, size=1),
        p.FileNeed(path="/bin/none", use="exe", kind="file", mode=0o755, pid=7, size=1),
        p.CpuNeed(image=b"x", machine="x86_64"),
        p.PidsNeed(pids=(4242, 4243)),
    ]
    found = run(asked, host.context(*fake.command))
    is_sound(found)
    assert [(finding.check, finding.level.value) for finding in found] == [
        ("cpu", "ok"), ("files", "no"), ("pids", "ok"), ("memory", "ok"), ("space", "ok")
    ]  # fmt: skip


def test_a_thousand_bad_needs_make_one_message(host: FakeHost) -> None:
    odd = '"\\' * 900
    asked: list[Need] = []
    for number in range(140):
        gone = p.FileNeed(path=f"/{number}/{odd}", use="exe", kind="block", mode=0, pid=1)
        uses: tuple[Any, ...] = ("exe", "cwd", "inotify", "unix", "cgroup")
        asked += [msgspec.structs.replace(gone, use=use) for use in uses]
    asked += [
        p.AddressNeed(address=f"10.1.{n}.1", port=1, protocol="tcp", listening=n % 2 == 0, pid=1)
        for n in range(100)
    ]
    asked += [p.CgroupNeed(controllers="ü" * 500, path=f"/{n}") for n in range(100)]
    asked += [p.LsmNeed(kind="apparmor", profile=f"{odd[:400]}{n}", pid=1) for n in range(60)]
    asked += [p.PidsNeed(pids=(4242 + n,)) for n in range(60)]
    host.mount("cgroup2", "/sys/fs/cgroup")
    found = run(asked, host.context())
    is_sound(found)
    assert any("and 44 more of this check" in finding.what for finding in found)


def test_images_in_memory_count_as_memory(host: FakeHost) -> None:
    device = host.work.stat().st_dev
    host.mount("tmpfs", "/run", device=f"{os.major(device)}:{os.minor(device)}")
    host.put_proc("meminfo", "MemAvailable: 1024 kB\n")
    found = run([p.ImagesNeed(size=2 << 20)], host.context())
    only([one for one in found if one.check == "memory"], Level.NO, "memory")


def test_what_hangs_is_left_behind(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()

    def look_for_ever(*_arguments: object) -> list[Finding]:
        hang.wait(60)
        return []

    monkeypatch.setattr(host_module, "_LOOK_S", 0.05)
    monkeypatch.setattr(files, "look", look_for_ever)
    begun = time.monotonic()

    async def main() -> tuple[Finding, ...]:
        try:
            asked = p.FileNeed(path="/x", use="exe", kind="file", mode=0, pid=1)
            return await look([asked], host.context())
        finally:
            hang.set()

    found = only(anyio.run(main), Level.NO, "files")
    assert "took over 0.05 s" in found.what
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("odd")])
def test_what_fails_is_a_finding(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_arguments: object) -> list[Finding]:
        raise error

    monkeypatch.setattr(pids, "look", fail)
    found = only(run([p.PidsNeed(pids=(1,))], host.context()), Level.NO, "pids")
    assert found.what.startswith("it cannot be looked at there: ")
