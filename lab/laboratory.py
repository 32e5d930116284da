"""Two machines and the link between them.  Runs on the host."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import host, images, ssh, state
from .errors import GuestError, HostError, LabError
from .guest import Guest
from .images import ImageName
from .link import Link
from .qemu import NAMES, Machine, Name, Thp

_KEEPER = Path(__file__).with_name("keeper.py").resolve()
_CLOSE_TIMEOUT = 30.0
_COPY_TIMEOUT = 120.0


class Lab:
    """Two guests, `src` and `dst`, that live as long as this object's process at most.

    Use it as a context manager, or call `start` and `close`.  Any number run side by side.

    Args:
        memory_mib: of each guest.
        cpus: of each guest.  With more than one an emulated kernel panics now and then while it
            patches its own code, which it does when cgroups limit CPU time, or modules are loaded:
            "Oops: int3" in update_curr, once in some 30 starts.
        thp: what transparent huge pages are set to at boot.
        src_image: `current` (CRIU 4.2.1) or `compat` (4.1.1, another page-server format).
        dst_image: likewise.
        persistent: what is written to a guest's disk outlives `power_cut` and `boot`;
            otherwise each boot starts from the image.
        progress: is told, line by line, what is built and started.
    """

    def __init__(
        self,
        memory_mib: int = 2048,
        cpus: int = 1,
        thp: Thp = "never",
        src_image: ImageName = "current",
        dst_image: ImageName = "current",
        persistent: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        """Keep the options; `start` does the work."""
        self._options = (memory_mib, cpus, thp, persistent)
        self._images: dict[Name, ImageName] = {"src": src_image, "dst": dst_image}
        self._progress = progress or (lambda _line: None)
        self._keeper: subprocess.Popen[bytes] | None = None
        self._guests: dict[Name, Guest] = {}
        self.run_dir: Path | None = None

    @classmethod
    def attach(cls, name: str | None = None) -> "Lab":
        """Reach a lab that another process owns, by its run directory's name, or the newest.

        Raises:
            LabError: there is none.
        """
        found = [path for path in state.running() if name in (None, path.name)]
        if not found:
            which = f"lab {name}" if name else "lab"
            raise LabError(f"no {which} is up under {host.cache()}/run: `python3 -m lab up`")
        lab = cls()
        lab._adopt(found[-1], state.read(found[-1] / "lab.json")["machines"])
        return lab

    @property
    def src(self) -> Guest:
        """The machine that a process leaves."""
        return self._guest("src")

    @property
    def dst(self) -> Guest:
        """The machine that it comes to."""
        return self._guest("dst")

    @property
    def link(self) -> Link:
        """The cable between them."""
        return Link(self.src, self.dst)

    @property
    def guests(self) -> tuple[Guest, Guest]:
        """Both machines."""
        return self.src, self.dst

    def _guest(self, name: Name) -> Guest:
        if name not in self._guests:
            raise GuestError(f"{name}: the lab is not started: use it as a context manager")
        return self._guests[name]

    def authorize(self) -> None:
        """Let root on `src` log in to `dst` by SSH: `ssh dst` and `ssh peer` just work."""
        ssh.authorize(self.src, self.dst)

    # -- life

    def start(self) -> None:
        """Boot both guests side by side and set their clocks; builds images when needed.

        Raises:
            LabError: it did not work; all that was started is ended.
        """
        if self._keeper:
            raise LabError("this lab is started already")
        host.require("qemu-system-x86_64")
        parts = {name: images.guest_disk(self._images[name], self._progress) for name in NAMES}
        begin = time.monotonic()
        try:
            run_dir = self._start_keeper()
            machines = self._machines(run_dir, parts)
            assert self._keeper
            state.write(
                run_dir / "lab.json",
                {
                    "owner": state.identify(os.getpid()),
                    "keeper": state.identify(self._keeper.pid),
                    "machines": machines,
                },
            )
            self._adopt(run_dir, machines)
            for guest in self.guests:
                guest.start()
            for guest in self.guests:
                guest.wait_up()
                self._progress(f"{guest.name} up after {time.monotonic() - begin:.1f} s")
            self.src.sh("ping -c1 -W10 peer")
        except BaseException:
            self.close()
            raise

    def _machines(
        self, run_dir: Path, parts: dict[Name, tuple[Path, Path]]
    ) -> list[dict[str, Any]]:
        memory_mib, cpus, thp, persistent = self._options
        machines = []
        for name, (kernel, disk) in parts.items():
            if persistent:
                own = run_dir / f"{name}.img"
                _copy_sparse(disk, own)
                disk = own
            machine = Machine(name, kernel, disk, persistent, memory_mib, cpus, thp)
            machines.append({**asdict(machine), "kernel": str(kernel), "disk": str(disk)})
        return machines

    def _adopt(self, run_dir: Path, machines: list[dict[str, Any]]) -> None:
        self.run_dir = run_dir
        for fields in machines:
            fields = {**fields, "kernel": Path(fields["kernel"]), "disk": Path(fields["disk"])}
            self._guests[fields["name"]] = Guest(Machine(**fields), run_dir)

    def _start_keeper(self) -> Path:
        """Make the run directory and start who will remove it."""
        run_dir = self.run_dir = state.create(state.identify(os.getpid()))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(run_dir / "keeper.sock"))
            listener.listen()
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_KEEPER), str(run_dir), str(os.getpid()),
                 str(listener.fileno())],
                stdin=subprocess.PIPE,  # we hold it: its end ends the lab
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(listener.fileno(),),
                start_new_session=True,  # ^C is for us; we then end it in order
            )  # fmt: skip
        return run_dir

    def close(self) -> None:
        """End both guests and remove the run directory; a second call does nothing."""
        keeper, run_dir = self._keeper, self.run_dir
        self._keeper = self.run_dir = None
        self._guests.clear()
        if keeper and keeper.stdin:
            with contextlib.suppress(BrokenPipeError):
                keeper.stdin.close()
            try:
                keeper.wait(_CLOSE_TIMEOUT)
            except subprocess.TimeoutExpired:
                keeper.send_signal(signal.SIGKILL)  # the QEMUs then die with it
                keeper.wait(_CLOSE_TIMEOUT)
        if keeper and run_dir:  # the keeper has removed it, unless it was killed
            shutil.rmtree(run_dir, ignore_errors=True)

    def __enter__(self) -> "Lab":
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """End it."""
        self.close()


def _copy_sparse(source: Path, target: Path) -> None:
    """Copy a disk image: its holes stay holes."""
    try:
        done = subprocess.run(
            ["cp", "--sparse=always", "--reflink=auto", source, target],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=_COPY_TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise HostError(f"copying {source} took over {_COPY_TIMEOUT:.0f} s") from None
    if done.returncode:
        raise HostError(f"cannot copy {source} to {target}: {done.stderr.decode().strip()}")
