"""The files of a tree: what it has mapped and open, its programs, where its processes stand.

Used in preflight, on the source.  A file is looked at through the process that has it, in
/proc/PID/map_files, /proc/PID/fd, /proc/PID/exe; its name is looked up below /proc/PID/root where
the process has mounts of its own.

What is compared in a restore, by CRIU's `files-reg.c` (4.1, 4.2): the mode of each; the size of a
regular file that is mapped or open in any way, also for writing, but for O_WRONLY together with
O_APPEND; with the size the build-id, where it has one.
"""

import os
import re
import stat
from collections.abc import Iterable
from typing import Final

from phaul.criu.elf import build_id
from phaul.errors import SubjectError
from phaul.facts import Fate, File, FileKind, FileUse, Process
from phaul.subjects.descriptors import Descriptor
from phaul.subjects.memory import Area
from phaul.subjects.mounts import Mount, read_mounts
from phaul.subjects.proc import Proc

__all__ = ["Files"]

_DELETED: Final = " (deleted)"
# What NFS renames an unlinked file to, that is still open.
_SILLY: Final = re.compile(r"\.nfs[0-9a-f]{16,}\Z")
_KINDS: Final[dict[int, FileKind]] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_BLOCK: Final = 512
"""The unit of st_blocks, on any file system."""


class Files:
    """Collects the files of a tree, each once for one use; `found` has them.

    `shared_mounts` says that the tree sees phaul's own mounts.
    """

    def __init__(self, proc: Proc, tree: tuple[Process, ...], *, shared_mounts: bool) -> None:
        self._proc = proc
        self._own = not shared_mounts
        self._mounts = _mount_ids(proc, tree)
        if shared_mounts:  # a chroot hides mounts in its mountinfo
            self._mounts |= {mount.id for mount in read_mounts("self", proc)}
        self._found: dict[tuple[object, ...], File] = {}

    @property
    def found(self) -> tuple[File, ...]:
        """All files so far."""
        return tuple(self._found.values())

    def add_process(self, pid: int) -> None:
        """Its program, its working directory and its root."""
        self._add(pid, "exe", ("exe",))
        self._add(pid, "cwd", ("cwd",))
        self._add(pid, "root", ("root",))

    def add_mapped(self, pid: int, areas: Iterable[Area]) -> None:
        """The files that it has mapped."""
        seen = set()
        for area in areas:
            if area.of_file and (key := (area.device, area.inode, area.path)) not in seen:
                seen.add(key)
                self._add(pid, "mapped", ("map_files", area.name))

    def add_open(self, descriptors: Iterable[Descriptor]) -> None:
        """The files that are open, fifos and devices too, but for terminals and memory."""
        for each in descriptors:
            terminal = each.terminal
            if each.status and not each.memfd and (terminal is None or terminal[0] == "current"):
                self._add_open(each, each.status)

    def add_place(self, pid: int, use: FileUse, path: str) -> None:
        """A file or directory that is known by its path alone, as the process sees it."""
        status = self._look_up(pid, path)
        key = (path, use)
        if status is not None and path.startswith("/") and key not in self._found:
            self._found[key] = self._file(pid, path, use, (), status, read=False)

    def _add_open(self, each: Descriptor, status: os.stat_result) -> None:
        where = ("fd", str(each.fd))
        flags = each.info.flags
        append_only = each.info.access == os.O_WRONLY and bool(flags & os.O_APPEND)
        key = (each.link, status.st_dev, status.st_ino, "open", append_only)
        if key not in self._found:
            mounted = not self._mounts or each.info.mount in self._mounts
            # A lease is broken by an open, and what was opened O_PATH was not read.
            read = "LEASE" not in each.info.locks
            self._found[key] = self._file(
                each.pid,
                each.link,
                "open",
                where,
                status,
                fd=each.fd,
                append_only=append_only,
                written=each.info.access != os.O_RDONLY,
                mounted=mounted,
                read=read and not append_only,
            )

    def _add(self, pid: int, use: FileUse, where: tuple[str, ...]) -> None:
        link, status = self._proc.link(pid, *where), self._proc.stat(pid, *where)
        if link is None or status is None or not link.startswith("/"):
            return
        key = (link, status.st_dev, status.st_ino, use)
        if key not in self._found:
            self._found[key] = self._file(pid, link, use, where, status)

    def _file(
        self,
        pid: int,
        link: str,
        use: FileUse,
        where: tuple[str, ...],
        status: os.stat_result,
        *,
        fd: int | None = None,
        append_only: bool = False,
        written: bool = False,
        mounted: bool = True,
        read: bool = True,
    ) -> File:
        path, fate = self._named(pid, link, status)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "file")
        return File(
            path=path,
            use=use,
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            pid=pid,
            fd=fd,
            size=status.st_size if kind == "file" else 0,
            disk=status.st_blocks * _BLOCK,
            device=status.st_rdev if kind in {"character", "block"} else 0,
            build_id=self._build_id(pid, where) if kind == "file" and read else "",
            append_only=append_only,
            written=written,
            fate=fate,
            mounted=mounted,
        )

    def _named(self, pid: int, link: str, status: os.stat_result) -> tuple[str, Fate]:
        """The path without the kernel's mark of a deleted one, and whether it still leads there."""
        bare = link.removesuffix(_DELETED)
        if status.st_nlink == 0:
            return bare, Fate.UNLINKED
        now = self._look_up(pid, link)
        if now is None and bare != link:
            now = self._look_up(pid, bare)
        elif now is not None:
            bare = link
        if now is None:
            # In /proc, and in a devpts, names come and go by the kernel's own will.
            return bare, Fate.THERE if bare.startswith(("/proc/", "/dev/pts/")) else Fate.ELSEWHERE
        if (now.st_dev, now.st_ino) != (status.st_dev, status.st_ino):
            return bare, Fate.REPLACED
        if _SILLY.match(os.path.basename(bare)):  # noqa: PTH119 -- text, no file
            return bare, Fate.ELSEWHERE
        return bare, Fate.THERE

    def _look_up(self, pid: int, path: str) -> os.stat_result | None:
        if self._own:
            return self._proc.stat(pid, "root", path.lstrip("/"))
        return self._proc.stat("self", "root", path.lstrip("/"))

    def _build_id(self, pid: int, where: tuple[str, ...]) -> str:
        try:
            fd = os.open(
                self._proc.path(pid, *where),
                os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
            )
        except OSError:  # gone by now, or not to be read: CRIU then compares the size alone
            return ""
        try:
            return build_id(fd)
        except OSError:
            return ""
        finally:
            os.close(fd)


def _mount_ids(proc: Proc, tree: tuple[Process, ...]) -> set[int]:
    """The IDs of the mounts in all mount namespaces of the tree."""
    mounts: list[Mount] = []
    seen = set()
    for process in tree:
        namespace = process.namespaces.get("mnt", 0)
        if namespace not in seen:
            try:
                found = read_mounts(process.pid, proc)
            except SubjectError:
                continue
            if found:
                seen.add(namespace)
            mounts += found
    return {mount.id for mount in mounts}
