"""Root directories, kernel and guest disks, built once and cached.  Runs on the host, as root.

Each artefact lies in the cache folder as KIND-NAME-KEY, where the key is a hash of its
recipe and of the artefacts it is made from: a changed recipe gets a new name and is built
anew.  It is built under a temporary name and renamed when whole, so what has its final name
is complete.  One lock keeps builders apart.

    root-forky-KEY/    Debian forky with CRIU 4.2.1: the sandbox's root, and the current guest's
    root-trixie-KEY/   Debian trixie with CRIU 4.1.1: the compat guest's
    kernel-KEY/        trixie's cloud kernel: `vmlinuz` and `modules/`
    disk-NAME-KEY.img  ext4 with a root, the kernel's modules and the guest's own files
"""

import contextlib
import fcntl
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from . import host
from .errors import BuildError

ImageName = Literal["current", "compat"]
"""`current` is forky (CRIU 4.2.1); `compat` is trixie (4.1.1, the other page-server format)."""

SUITES: dict[ImageName, str] = {"current": "forky", "compat": "trixie"}
KERNEL_SUITE = "trixie"  # forky splits its kernel packages; trixie's kernel runs forky's root well
PACKAGES = (
    "criu", "python3", "iproute2", "procps", "kmod", "nftables", "iputils-ping", "util-linux",
    "strace", "openssh-server", "openssh-client", "libcap2-bin", "zstd",
)  # fmt: skip
DISK_SIZE = "6G"  # sparse: it takes what it holds
BUILD_TIMEOUT = 900.0

# The kernel is unpacked, not installed: no initramfs-tools, no boot loader.
_KERNEL_HOOK = """
set -eu
export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
cd "$1/tmp"
kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/{print $2; exit}')
apt-get download -q "$kernel"
dpkg-deb -x "$kernel"_*.deb "$1/kernel"
"""
_MACHINE = Path(__file__).parent / "machine"
_FRAMES = Path(__file__).parent / "frames.py"

Progress = Callable[[str], None]


def _quiet(_line: str) -> None:
    """Say nothing."""


def extra_packages() -> tuple[str, ...]:
    """Return the packages added by $PHAUL_LAB_PACKAGES, sorted."""
    return tuple(sorted(set(os.environ.get("PHAUL_LAB_PACKAGES", "").replace(",", " ").split())))


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:12]


def _root_key(suite: str) -> str:
    return _key("root", 1, suite, PACKAGES, extra_packages())


def _kernel_key() -> str:
    return _key("kernel", 2, KERNEL_SUITE, _KERNEL_HOOK)


def _guest_files() -> dict[str, Path]:
    """Return what the guest has in /lab: the tool's own files."""
    own = {path.name: path for path in _MACHINE.iterdir() if path.is_file()}
    return {**own, _FRAMES.name: _FRAMES}


def _disk_key(name: ImageName) -> str:
    contents = {file: path.read_text() for file, path in sorted(_guest_files().items())}
    return _key("disk", 1, _root_key(SUITES[name]), _kernel_key(), DISK_SIZE, contents)


def root_path(suite: str) -> Path:
    """Return where the suite's root directory is, or will be."""
    return host.cache() / f"root-{suite}-{_root_key(suite)}"


def kernel_path() -> Path:
    """Return where the kernel's folder is, or will be."""
    return host.cache() / f"kernel-{_kernel_key()}"


def disk_path(name: ImageName) -> Path:
    """Return where the guest disk is, or will be."""
    return host.cache() / f"disk-{name}-{_disk_key(name)}.img"


def sandbox_root(progress: Progress = _quiet) -> Path:
    """Return the sandbox's root directory; build it when it is not there."""
    return _ensure(root_path(SUITES["current"]), progress)


def guest_disk(name: ImageName, progress: Progress = _quiet) -> tuple[Path, Path]:
    """Return the kernel and the disk of a guest; build what is not there."""
    return _ensure(kernel_path(), progress) / "vmlinuz", _ensure(disk_path(name), progress)


def clean() -> list[Path]:
    """Remove artefacts of other recipes than the current ones; return what was removed.

    Do not call it while another clone of the repository, with other recipes, runs its lab.
    """
    keep = {root_path("forky"), root_path("trixie"), kernel_path()}
    keep |= {disk_path("current"), disk_path("compat")}
    removed = []
    with _lock():
        for pattern in ("root-*", "kernel-*", "disk-*", ".new-*"):
            for path in host.cache().glob(pattern):
                if path not in keep:
                    _remove(path)
                    removed.append(path)
    return removed


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """Keep other builders out; the kernel drops the lock when its holder dies."""
    handle = os.open(host.cache() / "build.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        end = time.monotonic() + BUILD_TIMEOUT
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise BuildError(
                        f"another builder has held {host.cache()}/build.lock for "
                        f"{BUILD_TIMEOUT:.0f} s: see who with `fuser`"
                    ) from None
                time.sleep(0.2)
        yield
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _ensure(path: Path, progress: Progress) -> Path:
    """Build the artefact unless it is there."""
    if path.exists():
        return path
    host.require_root()
    host.require(*host.PROGRAMS)
    with _lock():
        for stale in host.cache().glob(".new-*"):  # we hold the lock: nobody is writing these
            _remove(stale)
        _build(path, progress)
    return path


def _build(path: Path, progress: Progress) -> None:
    """Build one artefact and what it needs, under the lock."""
    if path.exists():  # another builder was first
        return
    start = time.monotonic()
    new = path.with_name(f".new-{path.name}")
    kind, _, rest = path.name.partition("-")
    progress(f"building {path.name}")
    if kind == "root":
        _build_root(rest.rpartition("-")[0], new)
    elif kind == "kernel":
        _build_kernel(new)
    else:
        name: ImageName = "compat" if rest.startswith("compat-") else "current"
        root = root_path(SUITES[name])
        _build(root, progress)
        _build(kernel_path(), progress)
        _build_disk(root, kernel_path(), new)
    new.rename(path)
    progress(f"built {path} in {time.monotonic() - start:.1f} s")


def _run(argv: list[str | Path], log_name: str) -> None:
    """Run a build step; its output goes to a log in the cache folder."""
    log = host.cache() / f"{log_name}.log"
    environment = {
        "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        **{key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")},
    }
    with log.open("ab") as output:
        output.write(f"$ {' '.join(map(str, argv))}\n".encode())
        output.flush()
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=environment, timeout=BUILD_TIMEOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise BuildError(f"{argv[0]} took over {BUILD_TIMEOUT:.0f} s: see {log}") from None
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise BuildError(f"{argv[0]} ended with status {done.returncode}: see {log}\n{tail}")


def _mmdebstrap(suite: str, target: Path, *options: str) -> None:
    # forky's Release file may be past its Valid-Until where the archive is an old snapshot
    _run(
        ["mmdebstrap", "--mode=root", '--aptopt=Acquire::Check-Valid-Until "false"',
         *options, suite, target],
        f"build-{suite}",
    )  # fmt: skip


def _build_root(suite: str, new: Path) -> None:
    packages = ",".join((*PACKAGES, *extra_packages()))
    _mmdebstrap(suite, new, "--variant=minbase", f"--include={packages}")
    for key in new.glob("etc/ssh/ssh_host_*"):  # each guest makes its own
        key.unlink()
    new.chmod(0o755)


def _build_kernel(new: Path) -> None:
    tree = new.with_name(new.name + ".tree")
    try:
        _mmdebstrap(KERNEL_SUITE, tree, "--variant=custom", f"--customize-hook={_KERNEL_HOOK}")
        images = list(tree.glob("kernel/boot/vmlinuz-*"))
        modules = tree / "kernel/usr/lib/modules"
        if len(images) != 1 or not modules.is_dir():
            raise BuildError(f"{KERNEL_SUITE}'s kernel package has no single vmlinuz and modules")
        new.mkdir()
        images[0].rename(new / "vmlinuz")
        modules.rename(new / "modules")
        _unpack_modules(new / "modules")
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def _unpack_modules(folder: Path) -> None:
    """Decompress the modules: an emulated processor takes seconds to, at every boot."""
    for packed in folder.rglob("*.ko.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()


def _build_disk(root: Path, kernel: Path, new: Path) -> None:
    """Write an ext4 file system from the root, the modules and the guest's files."""
    stage = new.with_name(new.name + ".stage")
    try:
        # Hard links: files are only added or replaced here, never changed.
        _run(["cp", "-al", root, stage], "build-disk")
        _run(["cp", "-al", kernel / "modules", stage / "usr/lib/"], "build-disk")
        version = next((kernel / "modules").iterdir()).name
        _run(["chroot", stage, "depmod", version], "build-disk")
        (stage / "lab").mkdir()
        for name, path in _guest_files().items():
            shutil.copyfile(path, stage / "lab" / name)
        (stage / "lab/init").chmod(0o755)
        # Its own UUID is fixed: the kernel command line names the device, nothing the UUID.
        _run(
            ["mke2fs", "-q", "-t", "ext4", "-U", "6c616200-0000-4000-8000-000000000001",
             "-E", "root_owner=0:0", "-d", stage, new, DISK_SIZE],
            "build-disk",
        )  # fmt: skip
    finally:
        shutil.rmtree(stage, ignore_errors=True)
