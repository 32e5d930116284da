"""What the lab needs of the host: packages, privileges, a cache folder.  Runs on the host."""

import os
import shutil
from pathlib import Path

from .errors import HostError

PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "qemu-system-x86_64": "qemu-system-x86",
    "mke2fs": "e2fsprogs",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "cp": "coreutils",
}
"""Programs the lab starts, and the Debian package each comes in."""

PACKAGES = tuple(dict.fromkeys(PROGRAMS.values()))
"""The Debian packages the lab needs."""


def cache() -> Path:
    """Return the folder of images and running labs: $PHAUL_LAB or /var/tmp/phaul-lab."""
    folder = Path(os.environ.get("PHAUL_LAB") or "/var/tmp/phaul-lab")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return folder.resolve()


def missing() -> list[str]:
    """Return the packages whose programs are not on the PATH."""
    # Root's PATH has the sbin folders, a user's may not.
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [program for program in PROGRAMS if not shutil.which(program, path=path)]
    return list(dict.fromkeys(PROGRAMS[program] for program in absent))


def require(*programs: str) -> None:
    """Check that the programs are installed.

    Raises:
        HostError: one is not; the message has the line that installs it.
    """
    lacking = set(missing())
    packages = [PROGRAMS[program] for program in programs if PROGRAMS[program] in lacking]
    if packages:
        names = " ".join(dict.fromkeys(packages))
        raise HostError(f"this host lacks {names}: apt-get install --no-install-recommends {names}")


def require_root() -> None:
    """Check that this process is root.

    Raises:
        HostError: it is not.
    """
    if os.geteuid():
        raise HostError("namespaces, mounts and images need root: run this as root")


def doctor() -> list[str]:
    """Return what is wrong with this host, one line a fault; empty when nothing is."""
    faults = []
    lacking = missing()
    if lacking:
        faults.append(f"lacking: apt-get install --no-install-recommends {' '.join(lacking)}")
    if os.geteuid():
        faults.append("not root: images and sandboxes need it (guests alone do not)")
    if os.uname().machine != "x86_64":
        faults.append(f"this is {os.uname().machine}: the guests and the warden are x86-64 only")
    free = shutil.disk_usage(cache()).free
    if free < 4 << 30:
        faults.append(f"{cache()} has {free >> 20} MiB free: images and disks need some 4096")
    return faults
