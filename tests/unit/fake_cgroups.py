"""A hierarchy of cgroups made of files, and a kernel that does as it is told, for what a test
cannot have for real: limits, other namespaces, groups that refuse."""

import errno
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from phaul.cgroups import Cgroups
from tests.unit.subjects.fake_proc import FakeProc


@dataclass(frozen=True)
class FakeCgroups(Cgroups):
    """`refuses` are groups that let nothing in, `numb` ones that never stand still, `full` ones
    have no room for children, `stuck` pass no controller on."""

    refuses: set[str] = field(default_factory=set)
    numb: set[str] = field(default_factory=set)
    full: set[str] = field(default_factory=set)
    stuck: set[str] = field(default_factory=set)

    @classmethod
    def at(cls, tmp_path: Path) -> "FakeCgroups":
        """An empty hierarchy, and a /proc without processes but this one."""
        FakeProc(tmp_path / "proc")
        found = cls(tmp_path / "cg", host="here", proc=tmp_path / "proc")
        found._mkdir(found.point)
        (found.point / "cgroup.controllers").write_text("cpuset cpu memory\n")
        (found.point / "cgroup.type").unlink()
        (found.point / "cgroup.freeze").unlink()
        return found

    def process(self, pid: int, group: str = "/", **options: object) -> None:
        """A process in a group, which is made if it is not there."""
        here = self.point
        for part in group.strip("/").split("/") if group != "/" else ():
            here /= part
            if not here.exists():
                self._mkdir(here)
        known = FakeProc.__new__(FakeProc)
        known.root = self.proc
        known.process(pid, **options)  # type: ignore[arg-type]
        self._enter(pid, group)

    def zombie(self, pid: int) -> None:
        """Have it end, unreaped."""
        stat = self.proc / str(pid) / "stat"
        head, _, rest = stat.read_text().rpartition(") S ")
        stat.write_text(f"{head}) Z {rest}")
        self._leave(pid)

    def gone(self, pid: int) -> None:
        """Have it end, reaped."""
        self._leave(pid)
        shutil.rmtree(self.proc / str(pid))

    def tree(self) -> set[str]:
        """All groups."""
        return {
            "/" + os.path.relpath(folder, self.point).lstrip(".")
            for folder, _, _ in os.walk(self.point)
        }

    def set_type(self, group: str, kind: str) -> None:
        """Make it a threaded one, or the root of such."""
        (self._path(group) / "cgroup.type").write_text(kind + "\n")

    def is_frozen(self, group: str) -> bool:
        return self._read(group, "cgroup.freeze").strip() == "1"

    def _leave(self, pid: int) -> None:
        for procs in self.point.rglob("cgroup.procs"):
            words = procs.read_text().split()
            procs.write_text("".join(f"{w}\n" for w in words if w != str(pid)))
        tasks = {str(pid), *(path.name for path in (self.proc / str(pid) / "task").iterdir())}
        for threads in self.point.rglob("cgroup.threads"):
            words = threads.read_text().split()
            threads.write_text("".join(f"{w}\n" for w in words if w not in tasks))
        self._tell()

    def _enter(self, pid: int, group: str) -> None:
        self._leave(pid)
        here = self.proc / str(pid)
        with (self._path(group) / "cgroup.procs").open("a") as procs:
            procs.write(f"{pid}\n")
        with (self._path(group) / "cgroup.threads").open("a") as threads:
            threads.writelines(f"{task.name}\n" for task in (here / "task").iterdir())
        for task in (here, *(here / "task").iterdir()):
            (task / "cgroup").write_text(f"4:memory:/elsewhere\n0::{group}\n")
        self._tell()

    def _tell(self) -> None:
        """The events of all groups."""
        for folder, _, _ in os.walk(self.point):
            here = Path(folder)
            inside = any(p.read_text().split() for p in here.rglob("cgroup.procs"))
            freeze = here / "cgroup.freeze"
            name = "/" + os.path.relpath(folder, self.point).lstrip(".")
            frozen = freeze.exists() and freeze.read_text().strip() == "1" and name not in self.numb
            (here / "cgroup.events").write_text(f"populated {int(inside)}\nfrozen {int(frozen)}\n")

    def _leader(self, task: str) -> str:
        """The process of a task; itself if it is one."""
        for process in self.proc.iterdir():
            if process.name.isdecimal() and (process / "task" / task).exists():
                return process.name
        return task

    def _mkdir(self, path: Path) -> None:
        if "/" + os.path.relpath(path.parent, self.point).lstrip(".") in self.full:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        path.mkdir()
        for name, text in (
            ("procs", ""),
            ("threads", ""),
            ("controllers", ""),
            ("subtree_control", ""),
            ("type", "domain\n"),
            ("freeze", "0\n"),
            ("kill", ""),
            ("events", "populated 0\nfrozen 0\n"),
        ):
            (path / f"cgroup.{name}").write_text(text)
        self._share_out()

    def _share_out(self) -> None:
        """Which groups have the controller `cpu`, and so a limit; and which are threaded."""
        for folder, _, _ in os.walk(self.point):
            here = Path(folder)
            passes = "cpu" in (here / "cgroup.subtree_control").read_text().split()
            crowded = passes and bool((here / "cgroup.procs").read_text().split())
            children = [entry for entry in here.iterdir() if entry.is_dir()]
            root = here == self.point
            if not root:
                threaded = any((c / "cgroup.type").read_text() == "threaded\n" for c in children)
                kind = here / "cgroup.type"
                if kind.read_text() in ("domain\n", "domain threaded\n"):
                    kind.write_text("domain threaded\n" if crowded or threaded else "domain\n")
            for child in children:
                limit = child / "cpu.max"
                if passes and not limit.exists():
                    limit.write_text("max 100000\n")
                elif not passes and limit.exists():
                    limit.unlink()
                kind = child / "cgroup.type"
                if crowded and not root and kind.read_text() == "domain\n":
                    kind.write_text("domain invalid\n")

    def _control(self, group: str, value: str) -> None:
        path = self._path(group) / "cgroup.subtree_control"
        has = "cpu" in path.read_text().split()
        children = [entry for entry in path.parent.iterdir() if entry.is_dir()]
        if value == "+cpu":
            top = path.parent == self.point
            if not top and not (path.parent / "cpu.max").exists():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            below = any("populated 1" in (c / "cgroup.events").read_text() for c in children)
            own = bool((path.parent / "cgroup.procs").read_text().split())
            if group in self.stuck or (not top and own and below):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            path.write_text("cpu\n")
        elif has:
            if any("cpu" in (c / "cgroup.subtree_control").read_text() for c in children):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            path.write_text("\n")
        self._share_out()

    def _rmdir(self, path: Path) -> None:
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        inside = (path / "cgroup.procs").read_text().split()
        if inside or any(entry.is_dir() for entry in path.iterdir()):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        shutil.rmtree(path)
        self._share_out()

    def _write(self, group: str, name: str, value: str) -> None:
        path = self._path(group) / name
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if name == "cgroup.kill":
            for procs in self._path(group).rglob("cgroup.procs"):
                for pid in procs.read_text().split():
                    self.gone(int(pid))
        elif name == "cgroup.subtree_control":
            self._control(group, value)
        elif name == "cpu.max":
            words = value.split()
            period = path.read_text().split()[1] if len(words) == 1 else words[1]
            path.write_text(f"{words[0]} {period}\n")
        elif name == "cgroup.procs":
            value = self._leader(value)
            if not (self.proc / value).exists():
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
            if group in self.refuses:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            if " Z " not in (self.proc / value / "stat").read_text():
                self._enter(int(value), group)
        else:
            path.write_text(value + "\n")
            self._tell()
