"""A stand-in for CRIU: `fake_criu.py SCENARIO.json swrk FD` speaks the wire protocol of its RPC.

It looks descriptors up as CRIU does, through /proc of whoever holds the other end of its socket,
writes the files that phaul reads, and sends some pages through the memory socket as CRIU does.  A
dump stops its process with SIGSTOP, and continues or kills it in the end.
"""

import json
import os
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / "src"), str(_ROOT)]

from phaul.criu.messages import message_class  # noqa: E402
from phaul.criu.rpc import RequestType, Version  # noqa: E402
from phaul.pages.pageserver import CLOSED, PARENT, PRESENT  # noqa: E402
from phaul.pages.receiving import Commands, Kind, Map  # noqa: E402
from phaul.pages.receiving.wire import Add, Close, Open  # noqa: E402
from phaul.pages.store.index import PAGE  # noqa: E402
from tests.unit.scenario import Dump, Fault, Scenario  # noqa: E402

_U32 = struct.Struct("<I")


def image(magics: tuple[int, ...], *messages: bytes) -> bytes:
    """An image file of CRIU's form."""
    head = b"".join(_U32.pack(magic) for magic in magics)
    return head + b"".join(_U32.pack(len(m)) + m for m in messages)


def dump_stats(dump: Dump) -> bytes:
    """The file `stats-dump` of `dump`."""
    stats = message_class("Stats")()
    wire = stats.dump
    wire.freezing_time = dump.freezing_us
    wire.frozen_time = dump.frozen_us
    wire.memdump_time = wire.memwrite_time = 100
    wire.pages_scanned = 1000
    wire.pages_skipped_parent = dump.pages_skipped_parent
    wire.pages_written = dump.pages_written
    wire.shpages_written = dump.shpages_written
    return image((0x55105940, 0x57093306), stats.SerializeToString())


def inventory() -> bytes:
    """A file `inventory.img`."""
    return image((0x58313116,), message_class("Inventory")(img_version=2).SerializeToString())


class Worker:
    """The fake itself, over the socket `descriptor`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.scenario = Scenario.read(path)
        self.sock = socket.socket(fileno=descriptor)
        credentials = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.peer = struct.unpack("iII", credentials)[0]

    def serve(self) -> None:
        """Answer requests until one that is the last."""
        if self.scenario.start:
            self.fail(self.scenario.start, 0)
        while packet := self.receive():
            # A worker may wait for long before it is used: the scenario is what it is by now.
            self.scenario = Scenario.read(self.path)
            kind = RequestType(packet.type)
            images = self.images_dir(packet)
            self.note(
                kind.name,
                images=str(images or ""),
                options={field.name: _plain(value) for field, value in packet.opts.ListFields()},
                pid=packet.opts.pid or packet.pid,
            )
            getattr(self, f"on_{kind.name.lower()}")(packet, images)
            if not packet.keep_open:
                return

    def receive(self) -> Any:  # noqa: ANN401
        """The next request, None at the end."""
        packet = self.sock.recv(1 << 16)
        return message_class("Request").FromString(packet) if packet else None

    def images_dir(self, packet: Any) -> Path | None:  # noqa: ANN401
        """The directory that a request names, as the requester has it open."""
        if not packet.HasField("opts") or packet.opts.images_dir_fd < 0:
            return None
        return Path(f"/proc/{self.peer}/fd/{packet.opts.images_dir_fd}").readlink()

    def note(self, what: str, **more: Any) -> None:  # noqa: ANN401
        """Note one thing, in a single write."""
        line = json.dumps({"what": what, "worker": os.getpid(), **more}) + "\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        file = os.open(self.scenario.notes, flags, 0o600)
        os.write(file, line.encode())
        os.close(file)

    def asked(self, what: str) -> int:
        """How often all workers together were asked for `what`."""
        lines = Path(self.scenario.notes).read_text().splitlines()
        return sum(json.loads(line)["what"] == what for line in lines)

    def answer(self, kind: int, *, success: bool = True, **fields: Any) -> None:  # noqa: ANN401
        """Send an answer; nobody may be there any more."""
        packet = message_class("Response")(type=kind, success=success, **fields)
        with suppress(OSError):
            self.sock.send(packet.SerializeToString())

    def fail(self, fault: Fault, kind: int, log: Path | None = None) -> None:
        """Go wrong in the way of `fault`; returns only where the worker may live on."""
        if log and fault.log:
            log.write_text(fault.log)
        sys.stderr.write(fault.stderr)
        sys.stderr.flush()
        match fault.kind:
            case "signal":
                os.kill(os.getpid(), fault.number)
            case "exit":
                os._exit(fault.number)
            case "hang":
                while self.sock.recv(1 << 16):
                    pass
            case "stubborn":
                while True:
                    signal.pause()
            case "garbage":
                self.sock.send(b"\xff\xff\xff no message \x00")
            case "truncated":
                whole = message_class("Response")(type=kind, success=True, cr_errmsg="x" * 100)
                self.sock.send(whole.SerializeToString()[:-50])
            case "empty":
                self.sock.send(b"")
                self.sock.recv(1)
            case "fail":
                more: dict[str, Any] = {"cr_errno": fault.errno} if fault.errno else {}
                packet = message_class("Response")(type=kind, success=False, **more)
                said = bytes.fromhex(fault.raw_message) or fault.message.encode()
                tail = b"\x4a" + bytes([len(said)]) + said if said else b""  # field 9
                with suppress(OSError):
                    self.sock.send(packet.SerializeToString() + tail)
        sys.exit(1)

    def notify(self, kind: RequestType, script: str, **more: Any) -> bool:  # noqa: ANN401
        """Notify; whether the answer was to go on."""
        self.answer(kind, notify={"script": script, **more})
        packet = self.receive()
        accepted = bool(packet and packet.notify_success)
        self.note(f"answer:{script}", accepted=accepted)
        return accepted

    def on_version(self, packet: Any, _images: Path | None) -> None:  # noqa: ANN401
        major, minor, sub = self.scenario.version
        if not self.scenario.tell_version:
            return self.answer(packet.type)
        version = {"major_number": major, "minor_number": minor, "sublevel": sub}
        return self.answer(packet.type, version=version)

    def on_feature_check(self, packet: Any, _images: Path | None) -> None:  # noqa: ANN401
        if self.scenario.features:
            self.fail(self.scenario.features, packet.type)
        have = {"mem_track": self.scenario.mem_track, "lazy_pages": self.scenario.lazy_pages}
        self.answer(packet.type, features=have)

    def on_check(self, packet: Any, _images: Path | None) -> None:  # noqa: ANN401
        if self.scenario.check:
            self.fail(self.scenario.check, packet.type)
        self.answer(packet.type)

    def on_cpuinfo_dump(self, packet: Any, images: Path) -> None:  # noqa: ANN401
        if self.scenario.cpuinfo:
            self.fail(self.scenario.cpuinfo, packet.type, images / packet.opts.log_file)
        if packet.type == RequestType.CPUINFO_DUMP:
            (images / "cpuinfo.img").write_bytes(b"cpu")
        self.answer(packet.type)

    on_cpuinfo_check = on_cpuinfo_dump

    def on_single_pre_dump(self, packet: Any, images: Path) -> None:  # noqa: ANN401
        number = self.asked("SINGLE_PRE_DUMP") - 1
        number = min(number, len(self.scenario.rounds) - 1)
        dump = self.scenario.rounds[number]
        log = images / packet.opts.log_file
        self._memory(packet, images, dump, log)
        if dump.write_stats:
            (images / "stats-dump").write_bytes(dump_stats(dump))
        self.answer(packet.type)

    def on_dump(self, packet: Any, images: Path) -> None:  # noqa: ANN401
        dump = self.scenario.final
        log = images / packet.opts.log_file
        victim = packet.opts.pid
        kind = RequestType.DUMP
        accepted = self.notify(kind, "pre-dump")
        _stop(victim)
        try:
            if accepted and dump.network_lock:
                accepted = self.notify(kind, "network-lock")
            accepted = accepted and self.notify(kind, "query-ext-files")
            if accepted:
                self._memory(packet, images, dump, log)
                if not dump.reach_post_dump:
                    return self.answer(kind)
                accepted = self.notify(kind, "post-dump")
            if accepted and dump.fault and dump.fault_at == "released":
                os.kill(victim, signal.SIGCONT)
                self.fail(dump.fault, kind, log)
            if accepted:
                if dump.write_stats:
                    (images / "stats-dump").write_bytes(dump_stats(dump))
                _kill(victim)
                if dump.fault and dump.fault_at == "killed":
                    self.fail(dump.fault, kind, log)
                return self.answer(kind, dump={"restored": False})
        finally:
            # What the kernel does for the tasks that a dying CRIU had seized, too.
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGCONT)
            self.note("thawed", pid=victim)
        log.write_text("(00.1) Error (criu/cr-service.c:1): RPC client reported script error\n")
        return self.answer(kind, success=False)

    def _memory(self, packet: Any, images: Path, dump: Dump, log: Path) -> None:  # noqa: ANN401
        if packet.opts.parent_img:
            (images / "parent").symlink_to(packet.opts.parent_img)
        if dump.fault and dump.fault_at == "begin":
            self._thaw_and_fail(dump.fault, packet, log)
        (images / "inventory.img").write_bytes(inventory())
        (images / "pstree.img").write_bytes(b"tree")
        try:
            wide = Version(*self.scenario.version).wide_page_server
            later = bool(packet.opts.parent_img)
            send_pages(packet.opts.ps.fd, packet.opts.pid, dump, wide=wide, later=later)
        except OSError as err:
            line = f"Can't write pages to socket: {err.strerror}"
            text = f"(00.012345) Error (criu/page-xfer.c:202): page-xfer: {line}\n"
            self._thaw_and_fail(Fault(kind="fail", log=text), packet, log)
        if dump.fault and dump.fault_at == "sent":
            self._thaw_and_fail(dump.fault, packet, log)

    def _thaw_and_fail(self, fault: Fault, packet: Any, log: Path) -> None:  # noqa: ANN401
        if fault.kind not in ("hang", "stubborn"):
            os.kill(packet.opts.pid, signal.SIGCONT)
        self.fail(fault, packet.type, log)

    def on_restore(self, packet: Any, images: Path) -> None:  # noqa: ANN401
        restore = self.scenario.restore
        kind = RequestType.RESTORE
        log = images / packet.opts.log_file
        if restore.fault and restore.fault_at == "begin":
            self.fail(restore.fault, kind, log)
        for script in ("pre-restore", "setup-namespaces", "post-setup-namespaces"):
            if not self.notify(kind, script):
                return self.answer(kind, success=False)
        pid = self._restored()
        if not self.notify(kind, "post-restore", **({"pid": pid} if restore.tell_pid else {})):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self.note("discarded", pid=pid)
            return self.answer(kind, success=False)
        if restore.fault:
            self.fail(restore.fault, kind, log)
        tail = ("network-unlock",) if restore.network_unlock else ()
        for script in (*tail, "pre-resume", "post-resume"):
            self.notify(kind, script)
        return self.answer(kind, restore={"pid": pid})

    def _restored(self) -> int:
        pid = os.fork()
        if not pid:
            os.setsid()
            self.sock.close()
            time.sleep(600)
            os._exit(0)
        self.note("restored", pid=pid)
        return pid


def _stop(pid: int) -> None:
    """Stop a process and see it stand, as a tracer does."""
    os.kill(pid, signal.SIGSTOP)
    stat = Path(f"/proc/{pid}/stat")
    until = time.monotonic() + 10
    while stat.read_text().rpartition(") ")[2][0] not in "TZ" and time.monotonic() < until:
        time.sleep(0.001)


def _kill(pid: int) -> None:
    """Kill a process and see it dead, as a tracer does; its parent may still have to reap it."""
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([descriptor], [], [])
    os.close(descriptor)


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | str) else str(value)


def _send_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read_exactly(descriptor: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = os.read(descriptor, count - len(data))
        if not part:
            raise OSError(0, "no acknowledgement")
        data += part
    return data


def send_pages(descriptor: int, pid: int, dump: Dump, *, wide: bool, later: bool) -> None:
    """Send a round; a `later` one finds its first page in the one before."""
    wire, of = Commands(wide=wide), Map(Kind.PROCESS, pid)
    _send_all(descriptor, wire.encode(Open(of, answered=True)))
    if _read_exactly(descriptor, 1) != bytes([later]):
        raise OSError(0, "another parent")
    at = PAGE
    if later:
        _send_all(descriptor, wire.encode(Add(of, at, 1, PARENT)))
        at += PAGE
    add = Add(of, at, dump.send_pages, PRESENT)
    _send_all(descriptor, wire.encode(add) + bytes(dump.send_pages * PAGE))
    if dump.unfounded:
        _send_all(descriptor, wire.encode(Add(of, 1 << 40, 1, PARENT)))
    _send_all(descriptor, wire.encode(Close()))
    if _read_exactly(descriptor, len(CLOSED)) != CLOSED:
        raise OSError(0, "it was not taken")


def main() -> None:
    """Be the worker that the arguments ask for."""
    Worker(Path(sys.argv[1]), int(sys.argv[-1])).serve()


if __name__ == "__main__":
    main()
