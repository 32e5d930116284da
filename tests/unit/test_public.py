import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import phaul

PUBLIC = {
    "Client",
    "Config",
    "Criu",
    "CriuOptions",
    "Downtime",
    "Event",
    "HeldDump",
    "Local",
    "NetworkLock",
    "PhaulError",
    "PreDumpMode",
    "Remote",
    "Report",
    "Round",
    "Server",
    "StopReason",
    "StopRule",
    "Timeouts",
    "Version",
    "Way",
    "__version__",
}
MODULES = [
    module.name
    for module in pkgutil.walk_packages(phaul.__path__, "phaul.")
    if not module.name.startswith("phaul._")
]


def test_the_public_names_are_exactly_these() -> None:
    assert set(phaul.__all__) == PUBLIC
    assert len(phaul.__all__) == len(PUBLIC)


def test_each_is_there_and_nothing_else_is_at_hand() -> None:
    values = {name: getattr(phaul, name) for name in PUBLIC}
    names = {
        name
        for name, value in vars(phaul).items()
        if not isinstance(value, ModuleType) and not name.startswith("_")
    }
    assert names == PUBLIC - {"__version__"}
    assert set(dir(phaul)) == PUBLIC
    assert all(values[name] is getattr(phaul, name) for name in PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = getattr(phaul, "Nothing")  # noqa: B009 -- a type checker knows that it is not there


def test_a_star_import_gets_them_all() -> None:
    names: dict[str, object] = {}
    exec("from phaul import *", names)
    assert set(names) - {"__builtins__"} == PUBLIC


def test_type_checkers_see_the_same_names() -> None:
    source = ast.parse(Path(phaul.__file__).read_text())
    block = next(node for node in source.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "typing.TYPE_CHECKING"
    seen: dict[str, object] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        module = importlib.import_module(str(node.module))
        seen |= {alias.name: getattr(module, alias.name) for alias in node.names}
    assert seen == {name: getattr(phaul, name) for name in PUBLIC - {"__version__"}}


@pytest.mark.parametrize(
    ("imports", "left_out"),
    [
        ("phaul", {"anyio", "asyncio", "msgspec", "google", "dataclasses"}),
        ("phaul.agent, phaul.transport.stdio", {"google", "click", "rich", "phaul.criu"}),
        ("phaul.transport.answering", {"google", "click", "rich", "phaul.criu"}),
        ("phaul.destination", {"google", "click", "rich", "phaul.source", "phaul.report"}),
    ],
)
def test_what_an_agent_does_not_wait_for(imports: str, left_out: set[str]) -> None:
    code = f"import sys, {imports}\nprint(*sys.modules)"
    run = [sys.executable, "-c", code]
    loaded = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    # What a `.pth` file of the environment brings in is not ours.
    bare = [sys.executable, "-c", "import sys\nprint(*sys.modules)"]
    there = subprocess.run(bare, capture_output=True, text=True, check=True).stdout.split()
    assert not left_out & (set(loaded) - set(there))


@pytest.mark.parametrize("name", MODULES)
def test_each_module_s_all_exists(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public), f"{name}.{public}"


def test_the_version() -> None:
    assert all(part.isdecimal() for part in phaul.__version__.split(".")[:2])
