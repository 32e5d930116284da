from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.criu.messages import message_class
from phaul.criu.rpc import (
    CriuOptions,
    NetworkLock,
    PreDumpMode,
    Request,
    RequestType,
    Response,
    Stage,
    Version,
    decode,
    encode,
    encode_notify_answer,
)
from phaul.errors import ImageError, UsageError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
NUMBERS = {
    "ghost_limit": st.integers(0, 2**32 - 1),
    "timeout": st.integers(0, 2**32 - 1),
    "cpu_cap": st.integers(0, 2**32 - 1),
    "manage_cgroups_mode": st.integers(-1, 8),
    "empty_ns": st.integers(0, 2**32 - 1),
}


def _strategy(name: str) -> st.SearchStrategy[Any]:
    if name in NUMBERS:
        return st.none() | NUMBERS[name]
    if name in {"cg_root", "join_ns"}:
        return PAIRS
    if name == "inherit_fd":
        return st.lists(st.tuples(TEXT, st.integers(0, 2**31 - 1)), max_size=3).map(tuple)
    if name in {"external", "skip_mnt", "enable_fs", "irmap_scan_paths"}:
        return TEXTS
    if name == "network_lock":
        return st.none() | st.sampled_from(NetworkLock)
    if name == "pre_dump_mode":
        return st.sampled_from(PreDumpMode)
    if name in {"freeze_cgroup", "lsm_profile", "config_file", "root"}:
        return st.none() | TEXT
    if name == "tcp_close":
        return st.just(False)
    return st.booleans()


OPTIONS = st.builds(CriuOptions, **{f.name: _strategy(f.name) for f in fields(CriuOptions)})
WITH_OPTIONS = st.sampled_from(
    [t for t in RequestType if t.name not in {"VERSION", "FEATURE_CHECK"}]
)


def _packet(request: Request) -> Any:  # noqa: ANN401
    return message_class("Request").FromString(encode(request))


@given(OPTIONS, WITH_OPTIONS)
def test_all_options_reach_the_wire(options: CriuOptions, kind: RequestType) -> None:
    opts = _packet(Request(kind, options=options)).opts
    for spec in fields(options):
        value = getattr(options, spec.name)
        if spec.name == "cg_root":
            assert tuple((c.ctrl, c.path) for c in opts.cg_root) == value
        elif spec.name == "join_ns":
            assert tuple((j.ns, j.ns_file) for j in opts.join_ns) == value
        elif spec.name == "inherit_fd":
            assert tuple((i.key, i.fd) for i in opts.inherit_fd) == value
        elif isinstance(value, tuple):
            assert tuple(getattr(opts, spec.name)) == value
        elif spec.name == "network_lock" and value is None:
            connected = options.tcp_established
            assert opts.network_lock == (NetworkLock.NFTABLES if connected else NetworkLock.SKIP)
        elif value is None or value is False:
            assert not opts.HasField(spec.name)
        else:
            assert getattr(opts, spec.name) == value


descriptors = st.none() | st.integers(0, 2**31 - 1)


@given(
    st.builds(
        Request,
        WITH_OPTIONS,
        images_dir_fd=descriptors,
        work_dir_fd=descriptors,
        pid=st.none() | st.integers(1, 2**22),
        parent_img=st.none() | TEXT,
        track_mem=st.booleans(),
        leave_running=st.booleans(),
        lazy_pages=st.booleans(),
        notify=st.booleans(),
        memory_fd=descriptors,
        log_file=st.none() | TEXT,
        log_level=st.integers(0, 4),
        keep_open=st.booleans(),
    )
)
def test_requests_go_round(request_: Request) -> None:
    packet = _packet(request_)
    opts = packet.opts
    assert packet.type == request_.type
    assert packet.keep_open == request_.keep_open
    assert opts.images_dir_fd == (-1 if request_.images_dir_fd is None else request_.images_dir_fd)
    for name in ("work_dir_fd", "pid", "parent_img", "log_file"):
        value = getattr(request_, name)
        assert (getattr(opts, name) if opts.HasField(name) else None) == value
    assert (opts.ps.fd if opts.HasField("ps") else None) == request_.memory_fd
    for name, field in (
        ("track_mem", "track_mem"),
        ("leave_running", "leave_running"),
        ("lazy_pages", "lazy_pages"),
        ("notify", "notify_scripts"),
    ):
        assert getattr(opts, field) == getattr(request_, name)
    assert opts.log_level == request_.log_level


def test_queries_carry_no_options() -> None:
    assert not _packet(Request(RequestType.VERSION)).HasField("opts")
    features = _packet(Request(RequestType.FEATURE_CHECK, features=frozenset({"mem_track"})))
    assert features.features.mem_track
    assert not features.features.lazy_pages


@pytest.mark.parametrize("accept", [True, False])
def test_notification_answers(accept: bool) -> None:
    packet = message_class("Request").FromString(encode_notify_answer(accept=accept))
    assert packet.type == RequestType.NOTIFY
    assert packet.HasField("notify_success")
    assert packet.notify_success is accept


def _answer(**fields: object) -> bytes:
    wire = message_class("Response")(**{"type": 1, "success": True, **fields})
    data: bytes = wire.SerializeToString()
    return data


@given(st.sampled_from(Stage), st.none() | st.integers(1, 2**22))
def test_notifications_are_read(stage: Stage, pid: int | None) -> None:
    notify: dict[str, object] = {"script": stage.value}
    answer = decode(_answer(notify=notify if pid is None else {**notify, "pid": pid}))
    assert (answer.stage, answer.script, answer.pid) == (stage, stage.value, pid)


def test_a_stage_that_is_new() -> None:
    answer = decode(_answer(notify={"script": "brand-new"}))
    assert answer.stage is None
    assert answer.script == "brand-new"


def test_answers_are_read() -> None:
    assert decode(_answer(restore={"pid": 7})).pid == 7
    assert decode(_answer()).version is None
    features = decode(_answer(features={"mem_track": True})).features
    assert (features["mem_track"], features["lazy_pages"]) == (True, False)
    version = {"major_number": 4, "minor_number": 2, "sublevel": 1}
    assert decode(_answer(version=version)).version == Version(4, 2, 1)
    failed = decode(_answer(success=False, cr_errno=3, cr_errmsg=" why\n"))
    assert (failed.success, failed.errno, failed.message) == (False, 3, "why")


# Field 9 is the message, field 5 the notification with the script as its field 1.
NOT_UTF8 = [b"\x08\x01\x10\x00\x4a\x03ab\xff", b"\x08\x01\x10\x01\x2a\x04\x0a\x02\xfe\xff"]


@given(
    st.binary(max_size=300)
    | st.binary(max_size=50).map(lambda tail: b"\x08\x01\x10\x00" + tail)
    | st.binary(max_size=50).map(lambda said: b"\x08\x01\x10\x00\x4a" + bytes([len(said)]) + said)
    | st.sampled_from(NOT_UTF8)
)
def test_any_bytes_decode_to_an_answer_or_an_image_error(data: bytes) -> None:
    try:
        answer = decode(data)
    except ImageError:
        return
    assert isinstance(answer, Response)
    assert isinstance(answer.message, str)
    assert answer.script is None or isinstance(answer.script, str)


@given(st.integers(0, 5), st.integers(0, 20), st.integers(0, 9))
def test_versions(major: int, minor: int, sub: int) -> None:
    version = Version(major, minor, sub)
    assert version.wide_page_server == (version >= Version(4, 2))
    assert str(version).startswith(f"{major}.{minor}")
    assert version <= Version(major, minor, sub + 1) < Version(major, minor + 1)


def test_options_that_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="exclude"):
        CriuOptions(tcp_established=True, tcp_close=True)


@pytest.mark.parametrize(
    "wrong", [{"ghost_limit": -1}, {"timeout": 2**32}, {"external": ("a\udcff",)}]
)
def test_options_that_criu_cannot_be_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        encode(Request(RequestType.DUMP, options=CriuOptions(**wrong)))
