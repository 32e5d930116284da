"""Puts the project into the lab's guests, so that it runs there as it is here.

Runs on the host, for the demo, the guests' tests and the benches.  What goes there is compiled in
the sandbox first, which has the guests' Python: an emulated guest would take seconds for it.
"""

import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from lab import Guest, Sandbox
from tests.victims.build import build
from tools.stage import ROOT, site_packages

__all__ = [
    "COMPAT",
    "CURRENT",
    "ENVIRONMENT",
    "PROJECT",
    "Python",
    "install",
    "install_all",
    "stage",
]

PROJECT = "/opt/phaul"
"""Where the project lies in a guest."""

_COMMAND = f"""#!/bin/sh
PYTHONPATH={PROJECT}/src:{PROJECT}/site exec python3 -S -P -m phaul "$@"
"""
"""The command `phaul`; -S -P: nothing is looked for beside what is named."""

_PARTS = ("src", "examples", "bench", "tests")


@dataclass(frozen=True)
class Python:
    """The Python of a guest image; only the sandbox's can be compiled for here."""

    version: str
    compiled: bool


CURRENT = Python("3.14", compiled=True)
COMPAT = Python("3.13", compiled=False)


def stage(python: Python = CURRENT) -> Path:
    """The folder that a guest gets: the project, its victims, what it requires, the command."""
    folder = ROOT / "build" / f"guest-{python.version}"
    fresh = folder.with_suffix(".partial")
    shutil.rmtree(fresh, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__", "*.partial")
    for part in _PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, fresh / part, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", fresh)
    victims = ROOT / "build" / "victims"
    build(victims)
    shutil.copytree(victims, fresh / "victims", ignore=ignore)
    site = site_packages(python.version, "requirements-test.txt")
    if (folder / f"{site.name}.key").exists() and (folder / "site").is_dir():
        shutil.move(folder / "site", fresh / "site")  # it is compiled already
    else:
        shutil.copytree(site, fresh / "site", ignore=ignore)
    (fresh / f"{site.name}.key").touch()
    (fresh / "phaul").write_text(_COMMAND)
    (fresh / "phaul").chmod(0o755)
    if python.compiled:
        sandbox = Sandbox(binds=[f"{fresh}:{PROJECT}"], cwd=PROJECT)
        sandbox.run(["python3", "-m", "compileall", "-q", "-j2", "."], timeout=300, check=True)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return folder


def install(guest: Guest, folder: Path) -> None:
    """Put a staged folder into a guest, and the command where also an ssh finds it."""
    guest.put(sorted(folder.iterdir()), PROJECT)
    guest.sh(f"ln -sf {PROJECT}/phaul /usr/local/bin/phaul")


def install_all(guests: tuple[Guest, ...], folder: Path) -> None:
    """`install` into all at once."""
    threads = [threading.Thread(target=install, args=(guest, folder)) for guest in guests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


ENVIRONMENT = {
    "PYTHONPATH": f"{PROJECT}/src:{PROJECT}:{PROJECT}/site",
    "PHAUL_VICTIMS": f"{PROJECT}/victims",
    "PYTHONUNBUFFERED": "1",
}
