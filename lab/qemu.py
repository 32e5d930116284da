"""QEMU's command line and its monitor (QMP).  Runs on the host."""

import json
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from . import frames
from .errors import GuestError

Name = Literal["src", "dst"]
Thp = Literal["never", "madvise", "always"]

NAMES: tuple[Name, Name] = ("src", "dst")
ADDRESSES: dict[Name, str] = {"src": "10.77.0.1", "dst": "10.77.0.2"}
QMP_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What a guest is made of."""

    name: Name
    kernel: Path
    disk: Path
    persistent: bool
    """The disk is the guest's own and keeps what is written; otherwise that is thrown away."""
    memory_mib: int
    cpus: int
    thp: Thp

    @property
    def peer(self) -> Name:
        """The other guest's name."""
        return "dst" if self.name == "src" else "src"


def command_line(machine: Machine, run_dir: Path) -> list[str]:
    """Return the QEMU command of a guest."""
    number = NAMES.index(machine.name) + 1
    # What is not synced is written when there is need, and not after some seconds, and a rename
    # over another file syncs nothing: a power cut shows where an fsync is missing.
    unkind = "rootflags=noauto_da_alloc,commit=300 sysctl.vm.dirty_writeback_centisecs=0 "
    # Emulated, so mitigations and the watchdog only cost.  nvme and ext4 are built into the
    # cloud kernel: no initramfs.
    kernel_options = (
        "root=/dev/nvme0n1 rw rootfstype=ext4 init=/lab/init console=ttyS0 quiet loglevel=4 "
        "panic=-1 mitigations=off audit=0 random.trust_cpu=on tsc=reliable no_timer_check "
        f"nowatchdog net.ifnames=0 transparent_hugepage={machine.thp} "
        f"{unkind if machine.persistent else ''}"
        f"lab.name={machine.name} lab.addr={ADDRESSES[machine.name]}/24"
    )
    # Writeback honours the guest's flushes, so what it fsynced is in the file when QEMU is killed.
    disk = "snapshot=off,cache=writeback" if machine.persistent else "snapshot=on,cache=unsafe"
    return [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off",
        "-smp", str(machine.cpus), "-m", str(machine.memory_mib), "-rtc", "base=utc",
        "-kernel", str(machine.kernel), "-append", kernel_options,
        "-drive", f"file={machine.disk},if=none,id=disk,format=raw,{disk}",
        "-device", "nvme,drive=disk,serial=lab",
        # restrict=on: the guest reaches nothing outside; only connections to its agent pass.
        # Port 0: the kernel chooses a free one, so that labs never collide.
        "-netdev", "user,id=mgmt,restrict=on,ipv6=off,"
                   f"hostfwd=tcp:127.0.0.1:0-10.0.2.15:{frames.PORT}",
        "-device", f"virtio-net-pci,netdev=mgmt,mac=52:54:00:aa:00:0{number},romfile=",
        "-netdev", f"dgram,id=lan,local.type=unix,local.path={run_dir}/{machine.name}.lan,"
                   f"remote.type=unix,remote.path={run_dir}/{machine.peer}.lan",
        "-device", f"virtio-net-pci,id=lancard,netdev=lan,mac=52:54:00:bb:00:0{number},romfile=",
        "-qmp", f"unix:{run_dir}/{machine.name}.qmp,server=on,wait=off",
        "-chardev", f"file,id=console,path={run_dir}/{machine.name}.console,append=on",
        "-serial", "chardev:console",
    ]  # fmt: skip


def monitor(path: Path, command: str, **arguments: str | bool) -> object:
    """Give QEMU's monitor one command; return its answer.

    Raises:
        GuestError: the monitor is not there, or refused.
    """
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(QMP_TIMEOUT)
            sock.connect(str(path))
            with sock.makefile("rw", encoding="utf-8") as file:
                json.loads(file.readline())  # the greeting
                _ask(file, "qmp_capabilities", {})
                return _ask(file, command, arguments)
    except (OSError, ValueError) as error:
        raise GuestError(f"QEMU's monitor {path}, {command}: {error}") from error


def _ask(file: IO[str], command: str, arguments: dict[str, str | bool]) -> object:
    file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    file.flush()
    while line := file.readline():
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"]["desc"])
        if "return" in answer:
            value: object = answer["return"]
            return value
    raise ValueError("it closed the connection")


def agent_port(path: Path) -> int:
    """Ask which loopback port QEMU forwards to the guest's agent."""
    text = monitor(path, "human-monitor-command", **{"command-line": "info usernet"})
    found = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", str(text))
    if not found:
        raise GuestError(f"QEMU's monitor {path} names no forwarded port: {text}")
    return int(found[1])
