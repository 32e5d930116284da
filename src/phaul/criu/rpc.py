"""What is said to CRIU and what it answers, as typed values; `encode` and `decode` are the wire.

Used in every phase, on both hosts.  Pure: no I/O.  The fields are those of CRIU's `rpc.proto`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum, IntEnum
from typing import Any

from phaul.criu.messages import message_class, parse
from phaul.errors import UsageError

__all__ = [
    "MAX_PACKET",
    "CriuOptions",
    "NetworkLock",
    "PreDumpMode",
    "Request",
    "RequestType",
    "Response",
    "Stage",
    "Version",
    "decode",
    "encode",
    "encode_notify_answer",
]

MAX_PACKET = 1 << 20
"""The largest answer that is read, in bytes.  CRIU's are a few hundred, an error text at most 1 KiB
more; a longer one is cut by the kernel and then does not parse."""


class RequestType(IntEnum):
    """The requests that phaul makes."""

    DUMP = 1
    RESTORE = 2
    CHECK = 3
    PRE_DUMP = 4
    NOTIFY = 6
    CPUINFO_DUMP = 7
    CPUINFO_CHECK = 8
    FEATURE_CHECK = 9
    VERSION = 10
    SINGLE_PRE_DUMP = 13


class Stage(Enum):
    """The notifications, each a moment in which CRIU waits for our answer.

    A dump sends PRE_DUMP, [the freeze], NETWORK_LOCK (only with a network namespace of its own),
    QUERY_EXT_FILES, POST_DUMP.  A restore sends PRE_RESTORE, SETUP_NAMESPACES,
    POST_SETUP_NAMESPACES, POST_RESTORE, NETWORK_UNLOCK, PRE_RESUME, POST_RESUME.
    """

    PRE_DUMP = "pre-dump"
    NETWORK_LOCK = "network-lock"
    QUERY_EXT_FILES = "query-ext-files"
    POST_DUMP = "post-dump"
    PRE_RESTORE = "pre-restore"
    SETUP_NAMESPACES = "setup-namespaces"
    POST_SETUP_NAMESPACES = "post-setup-namespaces"
    POST_RESTORE = "post-restore"
    NETWORK_UNLOCK = "network-unlock"
    PRE_RESUME = "pre-resume"
    POST_RESUME = "post-resume"
    ORPHAN_PTS_MASTER = "orphan-pts-master"
    STATUS_READY = "status-ready"
    PRE_STREAM = "pre-stream"


class NetworkLock(IntEnum):
    """How CRIU keeps packets from a frozen process's connections."""

    IPTABLES = 1
    NFTABLES = 2
    SKIP = 3


class PreDumpMode(IntEnum):
    """How a pre-dump reads the memory.

    SPLICE holds the pages in pipes while the process runs on; READ copies them with
    process_vm_readv, freezes for less time, and skips what the process itself may not read.
    """

    SPLICE = 1
    READ = 2


@dataclass(frozen=True)
class CriuOptions:
    """The options of CRIU that are the caller's to choose, by CRIU's names and with its defaults.

    One difference: `network_lock` by default is NFTABLES where `tcp_established` keeps connections,
    since CRIU's default needs iptables' binaries, and else SKIP.  Without connections there is
    nothing to lock, but to look takes nftables 13 to 20 ms of the downtime in each restore.
    `ghost_limit` is in bytes, `timeout` in seconds (how long CRIU may try to freeze).
    """

    shell_job: bool = False
    tcp_established: bool = False
    tcp_close: bool = False
    tcp_skip_in_flight: bool = False
    ext_unix_sk: bool = False
    file_locks: bool = False
    link_remap: bool = False
    evasive_devices: bool = False
    force_irmap: bool = False
    orphan_pts_master: bool = False
    weak_sysctls: bool = False
    auto_ext_mnt: bool = False
    ext_sharing: bool = False
    ext_masters: bool = False
    rst_sibling: bool = False
    ghost_limit: int | None = None
    timeout: int | None = None
    cpu_cap: int | None = None
    manage_cgroups_mode: int | None = None
    empty_ns: int | None = None
    network_lock: NetworkLock | None = None
    pre_dump_mode: PreDumpMode = PreDumpMode.SPLICE
    freeze_cgroup: str | None = None
    lsm_profile: str | None = None
    config_file: str | None = None
    root: str | None = None
    external: tuple[str, ...] = ()
    skip_mnt: tuple[str, ...] = ()
    enable_fs: tuple[str, ...] = ()
    irmap_scan_paths: tuple[str, ...] = ()
    cg_root: tuple[tuple[str, str], ...] = ()
    """Pairs of a controller (empty: all) and the path to use instead."""
    join_ns: tuple[tuple[str, str], ...] = ()
    """Pairs of a namespace's kind and a file that names it."""
    inherit_fd: tuple[tuple[str, int], ...] = ()
    """Pairs of CRIU's key and a descriptor of this process, for a restore."""

    def __post_init__(self) -> None:
        if self.tcp_established and self.tcp_close:
            raise UsageError("tcp_established and tcp_close exclude each other")
        if vars(self) == _DEFAULTS:
            return  # nothing to check, so protobuf need not be loaded yet
        try:
            _fill_options(message_class("Options")(), self)
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"an option of CRIU has a value that it cannot have: {error}"
            ) from error


_DEFAULTS = {spec.name: spec.default for spec in fields(CriuOptions)}


@dataclass(frozen=True)
class Request:
    """One request.  The descriptors are this process's; CRIU opens them through /proc.

    `memory_fd` is the exception: it is a number in CRIU's own table, so the worker must have been
    started with it.
    """

    type: RequestType
    options: CriuOptions = CriuOptions()
    images_dir_fd: int | None = None
    work_dir_fd: int | None = None
    pid: int | None = None
    parent_img: str | None = None
    track_mem: bool = False
    leave_running: bool = False
    lazy_pages: bool = False
    notify: bool = False
    memory_fd: int | None = None
    log_file: str | None = None
    log_level: int = 2
    keep_open: bool = False
    features: frozenset[str] = frozenset()


@dataclass(frozen=True, order=True)
class Version:
    """A version of CRIU; comparable."""

    major: int
    minor: int
    sublevel: int = 0

    def __str__(self) -> str:
        tail = f".{self.sublevel}" if self.sublevel else ""
        return f"{self.major}.{self.minor}{tail}"

    @property
    def wide_page_server(self) -> bool:
        """Whether the page server's header has 32 bytes (from 4.2), not 24.

        The wire has no field for it, so both ends must agree before they speak.
        """
        return (self.major, self.minor) >= (4, 2)


@dataclass(frozen=True)
class Response:
    """One answer; fields that it does not have are None, `features` then empty."""

    type: int
    success: bool
    stage: Stage | None = None
    script: str | None = None
    pid: int | None = None
    errno: int = 0
    message: str = ""
    features: Mapping[str, bool] = field(default_factory=dict)
    version: Version | None = None


# Fields whose wire form is not simply their value.
_SHAPED = {"cg_root", "join_ns", "inherit_fd"}


def _fill_options(wire: Any, options: CriuOptions) -> None:  # noqa: ANN401
    for name, value in vars(options).items():
        if name in _SHAPED or value is None or value is False or value == ():
            continue
        if isinstance(value, tuple):
            getattr(wire, name).extend(value)
        else:
            setattr(wire, name, value)
    if options.network_lock is None:
        connected = options.tcp_established
        wire.network_lock = NetworkLock.NFTABLES if connected else NetworkLock.SKIP
    for ctrl, path in options.cg_root:
        wire.cg_root.add(ctrl=ctrl, path=path) if ctrl else wire.cg_root.add(path=path)
    for kind, path in options.join_ns:
        wire.join_ns.add(ns=kind, ns_file=path)
    for key, descriptor in options.inherit_fd:
        wire.inherit_fd.add(key=key, fd=descriptor)


_WITHOUT_OPTIONS = {RequestType.VERSION, RequestType.FEATURE_CHECK}


def encode(request: Request) -> bytes:
    """The request as one packet."""
    wire = message_class("Request")(type=request.type)
    if request.keep_open:
        wire.keep_open = True
    for name in request.features:
        setattr(wire.features, name, True)
    if request.type in _WITHOUT_OPTIONS:
        return bytes(wire.SerializeToString())
    opts = wire.opts
    opts.images_dir_fd = -1 if request.images_dir_fd is None else request.images_dir_fd
    opts.log_level = request.log_level
    for name in ("work_dir_fd", "pid", "parent_img", "log_file"):
        value = getattr(request, name)
        if value is not None:
            setattr(opts, name, value)
    for name in ("track_mem", "leave_running", "lazy_pages"):
        if getattr(request, name):
            setattr(opts, name, True)
    if request.notify:
        opts.notify_scripts = True
    if request.memory_fd is not None:
        opts.ps.fd = request.memory_fd
    _fill_options(opts, request.options)
    return bytes(wire.SerializeToString())


def encode_notify_answer(*, accept: bool) -> bytes:
    """The answer to a notification: go on, or give up."""
    wire = message_class("Request")(type=RequestType.NOTIFY, notify_success=accept)
    return bytes(wire.SerializeToString())


def _text(value: str | bytes) -> str:
    # A file name in an error need not be UTF-8; protobuf then hands the bytes out.
    return value if isinstance(value, str) else value.decode(errors="replace")


def decode(packet: bytes) -> Response:
    """The answer in one packet; raises ImageError if it is none."""
    wire = parse("Response", packet, "criu's answer")
    has = wire.HasField
    pid: int | None = None
    stage: Stage | None = None
    script: str | None = None
    if has("notify"):
        script = _text(wire.notify.script)
        stage = next((known for known in Stage if known.value == script), None)
        pid = wire.notify.pid if wire.notify.HasField("pid") else None
    elif has("restore"):
        pid = wire.restore.pid
    features = {}
    if has("features"):
        features = {
            name: bool(getattr(wire.features, name))
            for name in ("mem_track", "lazy_pages", "pidfd_store")
        }
    version = None
    if has("version"):
        version = Version(
            wire.version.major_number, wire.version.minor_number, wire.version.sublevel
        )
    return Response(
        type=wire.type,
        success=wire.success,
        stage=stage,
        script=script,
        pid=pid,
        errno=wire.cr_errno,
        message=_text(wire.cr_errmsg).strip(),
        features=features,
        version=version,
    )
