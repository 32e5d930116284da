import math
from dataclasses import fields
from pathlib import Path

import pytest

from phaul import Config, Timeouts
from phaul.errors import UsageError


def test_the_defaults() -> None:
    config = Config(memory_fd=3, work_dir=Path("/x"))
    assert config.criu_command == ("criu",)
    assert config.pid is None
    assert config.log_level == 2
    assert not config.require_pre_copy


def test_a_work_dir_may_be_a_string() -> None:
    config = Config(memory_fd=3, work_dir="/x/y")  # type: ignore[arg-type]
    assert config.work_dir == Path("/x/y")


def test_criu_may_be_a_command() -> None:
    assert Config(memory_fd=3, work_dir=Path("/x"), criu=["a", "b"]).criu_command == ("a", "b")


@pytest.mark.parametrize("level", [-1, 5])
def test_log_levels_that_do_not_exist(level: int) -> None:
    with pytest.raises(UsageError, match="log_level"):
        Config(memory_fd=3, work_dir=Path("/x"), log_level=level)


@pytest.mark.parametrize("criu", [(), ""])
def test_an_empty_command(criu: str | tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="empty"):
        Config(memory_fd=3, work_dir=Path("/x"), criu=criu)


@pytest.mark.parametrize("name", [f.name for f in fields(Timeouts)])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_time_limits_that_cannot_be_meant(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        Timeouts(**{name: value})


def test_no_time_limit_at_all() -> None:
    assert Timeouts(dump=math.inf).dump == math.inf
