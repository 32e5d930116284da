#!/usr/bin/env python3
"""Compile the victims into a directory: `build.py OUTDIR`, or `build(outdir)`.

What is up to date, by a hash of the sources, the compiler and its options, is left as it is.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CC = os.environ.get("CC", "cc")
FLAGS = ["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-std=gnu17", "-pthread"]
COMMON = ["victim.c", "report.c"]
SOURCES = {
    "piggie": ["piggie.c"],
    "dirtier": ["dirtier.c"],
    "tree": ["tree.c", "tree_make.c", "tree_child.c", "tree_parts.c"],
    "echo_server": ["echo_server.c", "echo.c"],
    "echo_client": ["echo_client.c", "echo.c"],
    "forker": ["forker.c"],
    "mapper": ["mapper.c"],
    "crowd": ["crowd.c"],
}
SCRIPTS = ["pyheap.py", "harness.py"]


def _compiler() -> str:
    done = subprocess.run([CC, "--version"], check=True, capture_output=True, text=True)
    return done.stdout


def _digest(sources: list[str], compiler: str) -> str:
    of = hashlib.sha256(f"{compiler} {FLAGS} {sources}".encode())
    for path in [*sorted(HERE.glob("*.h")), *(HERE / name for name in sources)]:
        of.update(path.read_bytes())
    return of.hexdigest()


def _compile(name: str, outdir: Path, compiler: str) -> Path:
    sources = SOURCES[name] + COMMON
    binary, stamp = outdir / name, outdir / f".{name}.hash"
    digest = _digest(sources, compiler)
    if binary.exists() and stamp.exists() and stamp.read_text() == digest:
        return binary
    # Renamed into place: a running victim keeps its binary, two builds at once do no harm.
    fresh = outdir / f".{name}.{os.getpid()}"
    subprocess.run([CC, *FLAGS, *(HERE / s for s in sources), "-o", fresh], check=True)
    fresh.rename(binary)
    stamp.write_text(digest)
    return binary


def _copy(name: str, outdir: Path) -> Path:
    copy = outdir / name
    if copy.exists() and copy.read_bytes() == (HERE / name).read_bytes():
        return copy
    fresh = outdir / f".{name}.{os.getpid()}"
    shutil.copy(HERE / name, fresh)
    fresh.chmod(0o755)
    return fresh.rename(copy)


def build(outdir: Path) -> dict[str, Path]:
    """Bring all victims up to date; their names (scripts without .py) and where they are."""
    outdir.mkdir(parents=True, exist_ok=True)
    compiler = _compiler()
    made = {name: _compile(name, outdir, compiler) for name in SOURCES}
    made.update((name.removesuffix(".py"), _copy(name, outdir)) for name in SCRIPTS)
    return made


def main() -> int:
    """Build into the directory given as the argument, and list what was made."""
    if len(sys.argv) != 2:
        print("usage: build.py OUTDIR", file=sys.stderr)
        return 2
    for name, path in build(Path(sys.argv[1])).items():
        print(name, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
