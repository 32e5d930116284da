"""A /proc made of files, for what a test cannot have for real: other kernels' words, races."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from phaul.subjects.proc import Proc

SMAPS = """\
{start:x}-{end:x} {permissions} 00000000 {device} {inode} {path}
Size:                {size} kB
KernelPageSize:        4 kB
Pss:                 {size} kB
Anonymous:           {anonymous} kB
VmFlags: rd wr mr mw me ac sd
"""


@dataclass
class FakeProc:
    """Write processes into `root`; `proc` reads them."""

    root: Path
    links: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root.mkdir()
        self.process("self", inner=1)

    @property
    def proc(self) -> Proc:
        return Proc(self.root)

    def process(
        self,
        pid: int | str,
        parent: int = 1,
        *,
        group: int | None = None,
        session: int | None = None,
        name: str = "fake",
        children: tuple[int, ...] | None = (),
        threads: tuple[int, ...] = (),
        inner: int | None = None,
        tracer: int = 0,
        terminal: int = 0,
        namespaces: dict[str, int] | None = None,
        cgroup: str = "0::/\n",
    ) -> Path:
        """A process; `children` None: a kernel that does not say them."""
        here = self.root / str(pid)
        here.mkdir(exist_ok=True)
        number = pid if isinstance(pid, int) else 1
        middle = " ".join("0" for _ in range(12))
        (here / "stat").write_text(
            f"{number} ({name}) S {parent} {number if group is None else group} "
            f"{number if session is None else session} {terminal} -1 0 {middle} "
            f"{1000 + number} 0 0 0 0 0 0 0 0 0 0\n"
        )
        (here / "status").write_text(
            f"Name:\t{name}\nTracerPid:\t{tracer}\nNSpid:\t{number}\t{inner or number}\n"
        )
        for thread in {number, *threads}:
            (here / "task" / str(thread)).mkdir(parents=True, exist_ok=True)
        if children is not None:
            (here / "task" / str(number) / "children").write_text(" ".join(map(str, children)))
        (here / "cgroup").write_text(cgroup)
        for folder in ("fd", "fdinfo", "map_files", "ns", "net"):
            (here / folder).mkdir(exist_ok=True)
        own = {"pid": 1, "mnt": 2, "net": 3, "ipc": 4, "uts": 5, "user": 6, **(namespaces or {})}
        for kind, inode in own.items():
            self.link(here / "ns" / kind, f"{kind}:[{inode}]")
        self.link(here / "root", "/")
        self.link(here / "cwd", "/")
        (here / "statm").write_text("100 50 0 0 0 0 0\n")
        (here / "smaps").write_text("")
        return here

    def link(self, path: Path, target: str | Path) -> None:
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    def open(self, pid: int, fd: int, target: str | Path, info: str = "") -> None:
        here = self.root / str(pid)
        self.link(here / "fd" / str(fd), target)
        (here / "fdinfo" / str(fd)).write_text(f"pos:\t0\nflags:\t0100000\nmnt_id:\t1\n{info}")

    def map(self, pid: int, start: int, path: Path | str, permissions: str = "r--p") -> None:
        here = self.root / str(pid)
        real = Path(path)
        inode = real.stat().st_ino if real.exists() else 7
        end = start + 0x2000
        with (here / "smaps").open("a") as file:
            file.write(
                SMAPS.format(
                    start=start,
                    end=end,
                    permissions=permissions,
                    device="fe:00",
                    inode=inode,
                    path=path,
                    size=8,
                    anonymous=0,
                )
            )
        if real.exists():
            self.link(here / "map_files" / f"{start:x}-{end:x}", real)

    def table(self, pid: int, name: str, text: str) -> None:
        (self.root / str(pid) / "net" / name).write_text(text)


def unlinked(path: Path, size: int) -> int:
    """A descriptor of this process, of a file that has no name any more."""
    path.write_bytes(b"x" * size)
    fd = os.open(path, os.O_RDWR)
    path.unlink()
    return fd
