"""Compiles CRIU's message schema into the descriptor set that the package loads.

For developers only (`make descriptors`); a test holds that the committed file is up to date.
"""

import sys
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

SCHEMA = Path(__file__).parent.parent / "src/phaul/criu/schema"


def generate(target: Path) -> None:
    """Write the descriptor set of all schema files to `target`."""
    sources = sorted(path.name for path in SCHEMA.glob("*.proto"))
    status = protoc.main(["protoc", f"-I{SCHEMA}", f"--descriptor_set_out={target}", *sources])
    if status:
        raise SystemExit(f"protoc failed with status {status}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else SCHEMA / "descriptors.binpb")
