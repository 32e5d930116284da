"""What another Python needs of the pinned requirements, as a folder to be put on its path.

The sandbox and the guests have Debian's Python and no network: their folder is filled here, by pip,
for their version.  Runs on the host; the second run reuses the folder.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

__all__ = ["ROOT", "site_packages"]

ROOT = Path(__file__).resolve().parent.parent


def site_packages(python: str, requirements: str) -> Path:
    """The folder with `requirements` (a file of this project) for Python `python` ("3.14").

    Raises subprocess.CalledProcessError if pip fails.
    """
    pins = ROOT / requirements
    key = hashlib.sha256(pins.read_bytes()).hexdigest()[:12]
    folder = ROOT / "build" / f"site-{python}-{pins.stem}-{key}"
    if folder.exists():
        return folder
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    wanted = folder.with_name(f"{folder.name}.txt")
    wanted.write_text(_for_python(python, pins.read_text()))
    print(f"filling {folder.name}", file=sys.stderr)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"),
            *("--require-hashes", "--only-binary", ":all:", "--no-deps", "-r", str(wanted)),
            *("--python-version", python, "--implementation", "cp", "--target", str(partial)),
        ],
        check=True,
        stderr=subprocess.PIPE,
        timeout=600,
    )
    partial.rename(folder)
    wanted.unlink()
    return folder


def _for_python(python: str, pins: str) -> str:
    """The pins that Python `python` needs: pip takes the markers for those of its own Python."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    kept = []
    for pin in pins.replace("\\\n", " ").splitlines():
        if pin.strip() and not pin.lstrip().startswith("#"):
            requirement, *hashes = pin.split(" --hash=")
            marker = Requirement(requirement).marker
            if marker is None or marker.evaluate(environment):
                kept.append(" --hash=".join([requirement.partition(";")[0], *hashes]))
    return "\n".join(kept) + "\n"
