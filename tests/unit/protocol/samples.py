"""One valid message of each kind, and strategies for more."""

from typing import Any

from hypothesis import strategies as st

from phaul.protocol import messages as m

CRIU = m.CriuVersion(major=4, minor=2, sublevel=1)
FACTS = m.HostFacts(
    host="host2",
    phaul="0.1.0",
    criu=CRIU,
    kernel="6.18.1",
    machine="x86_64",
    mem_track=True,
    lazy_pages=True,
)
TOKEN = "0123456789abcdef" * 2
HELLO = m.Hello(
    versions=m.Versions(oldest=1, newest=3),
    phaul="0.1.0",
    host="host1.example.org",
    criu=CRIU,
    migration="m-7f3a",
)
PREPARE = m.Prepare(pids=(1, 4242, 1 << 22), memory_bytes=1 << 30)

REQUESTS: tuple[m.Request, ...] = (
    HELLO,
    PREPARE,
    m.StartRound(number=0),
    m.StopRound(number=999_999),
    m.Image(name="core-4242.img", size=1234),
    m.Restore(images=12),
    m.Release(),
    m.Discard(),
    m.Bye(),
    m.Alive(),
)
ANSWERS: tuple[m.Answer, ...] = (
    m.Welcome(version=1, facts=FACTS, token=TOKEN),
    m.Done(),
    m.Restored(pid=4242),
    m.Failed(kind="CriuError", what="it failed", errno=-5, notes=("one", "two")),
    m.Alive(),
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
options = st.builds(
    m.RestoreOptions,
    shell_job=st.booleans(),
    tcp_established=st.booleans(),
    timeout=st.none() | st.integers(0, 86_400),
    network_lock=st.integers(1, 3),
)
valid: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        m.Prepare,
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
    st.builds(m.Restored, pid=st.integers(1, 1 << 22)),
    st.builds(
        m.Failed,
        kind=st.sampled_from(["CriuError", "Cancelled", "FromTheFuture"]),
        what=text,
        remedy=text,
        notes=st.lists(text, max_size=8).map(tuple),
    ),
    st.sampled_from(REQUESTS + ANSWERS),
)
