import importlib
import pkgutil
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


def test_nothing_else_is_at_hand() -> None:
    names = {
        name
        for name, value in vars(phaul).items()
        if not isinstance(value, ModuleType) and not name.startswith("_")
    }
    assert names == PUBLIC - {"__version__"}


@pytest.mark.parametrize("name", MODULES)
def test_each_module_s_all_exists(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public), f"{name}.{public}"


def test_the_version() -> None:
    assert all(part.isdecimal() for part in phaul.__version__.split(".")[:2])
