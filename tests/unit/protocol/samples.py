"""One valid message of each kind, and strategies for more."""

from typing import Any

from hypothesis import strategies as st

from phaul.protocol import messages as m
from phaul.protocol import preflight as p
from phaul.protocol.settlement import Copy

CRIU = m.CriuVersion(major=4, minor=2, sublevel=1)
FACTS = m.HostFacts(
    host="host2",
    phaul="0.1.0",
    criu=CRIU,
    kernel="6.18.1",
    machine="x86_64",
    mem_track=True,
    lazy_pages=True,
    restore_rate=1 << 30,
)
TOKEN = "0123456789abcdef" * 2
HELLO = m.Hello(
    versions=m.Versions(oldest=1, newest=4),
    phaul="0.1.0",
    host="host1.example.org",
    criu=CRIU,
    migration="m-7f3a",
)
NEEDS: tuple[p.Need, ...] = (
    p.FileNeed(
        path="/usr/lib/x86_64-linux-gnu/libc.so.6",
        use="mapped",
        kind="file",
        mode=0o755,
        pid=4242,
        size=2_000_000,
        build_id="00ff",
    ),
    p.PidsNeed(pids=(4242, 4243)),
    p.AddressNeed(address="10.77.0.1", port=80, protocol="tcp", listening=True, pid=4242),
    p.MemoryNeed(resident=1 << 30),
    p.ImagesNeed(size=1 << 30),
    p.CpuNeed(image=b"image", machine="x86_64"),
    p.CgroupNeed(controllers="", path="/system.slice"),
    p.LsmNeed(kind="apparmor", profile="a-profile (enforce)", pid=4242),
    p.NamespaceNeed(kinds=("pid", "mnt")),
    p.ToolNeed(name="tar", purpose="for a tmpfs"),
)
FINDING = p.Finding(
    check="files",
    level=p.Level.NO,
    where=p.Where.DESTINATION,
    what="/x is not there",
    remedy="copy it",
)
KEY = "fedcba9876543210" * 2
PREPARE = m.Prepare(key=KEY, name="victim", pids=(1, 4242, 1 << 22), memory_bytes=1 << 30)

REQUESTS: tuple[m.Request, ...] = (
    HELLO,
    m.Clock(),
    m.Survey(needs=NEEDS),
    PREPARE,
    m.StartRound(number=0),
    m.StopRound(number=999_999),
    m.Image(name="core-4242.img", size=1234),
    m.Restore(images=12),
    m.Commit(),
    m.Drain(),
    m.Discard(),
    m.Ask(key=KEY),
    m.Recover(),
    m.Follow(),
    m.Attach(),
    m.Abandon(),
    m.Bye(),
    m.Alive(),
)
ANSWERS: tuple[m.Answer, ...] = (
    m.Welcome(version=1, facts=FACTS, token=TOKEN),
    m.Time(unix_ns=1_800_000_000_000_000_000),
    m.Surveyed(findings=(FINDING,)),
    m.Done(),
    m.Ready(pid=4242),
    m.Running(),
    m.Draining(pages=1 << 18, given=7, seconds=0.5, over=False),
    m.Standing(copy=Copy.HELD, pid=4242, path="/var/lib/phaul/incoming/m-7f3a-0"),
    m.Failed(kind="CriuError", what="it failed", errno=-5, notes=("one", "two")),
    m.Alive(),
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
options = st.builds(
    m.RestoreOptions,
    shell_job=st.booleans(),
    tcp_established=st.booleans(),
    timeout=st.none() | st.integers(0, 86_400),
    network_lock=st.none() | st.integers(1, 3),
)
valid: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        m.Prepare,
        key=st.just(KEY),
        lease_s=st.integers(1, 604_800),
        name=st.text(st.characters(exclude_categories=["Cs"]), max_size=256),
        pids=st.lists(st.integers(1, 1 << 22), min_size=1, max_size=50).map(tuple),
        memory_bytes=st.integers(0, 1 << 50),
        options=options,
    ),
    st.builds(m.StartRound, number=st.integers(0, 999_999)),
    st.builds(
        m.Image,
        name=st.from_regex(r"[a-z0-9-]{1,64}\.img", fullmatch=True),
        size=st.integers(0, 1 << 40),
    ),
    st.builds(m.Restore, images=st.integers(1, 1_000_000)),
    st.builds(m.Ready, pid=st.integers(1, 1 << 22), durable=st.booleans()),
    st.builds(
        m.Standing,
        copy=st.sampled_from(Copy),
        pid=st.none() | st.integers(1, 1 << 22),
        path=text,
    ),
    st.builds(
        m.Failed,
        kind=st.sampled_from(["CriuError", "Cancelled", "FromTheFuture"]),
        what=text,
        remedy=text,
        notes=st.lists(text, max_size=8).map(tuple),
    ),
    st.sampled_from(REQUESTS + ANSWERS),
)
