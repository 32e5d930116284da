from typing import Any

import pytest

from phaul.destination.checks import cpu
from phaul.protocol.preflight import CpuNeed, Finding, Level
from tests.unit.conftest import Fake
from tests.unit.destination.checks.conftest import FakeHost, only
from tests.unit.scenario import Fault

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


async def look(host: FakeHost, fake: Fake, *needs: CpuNeed) -> list[Finding]:
    return await cpu.look(needs, host.context(*fake.command))


def need(**changes: Any) -> CpuNeed:  # noqa: ANN401
    return CpuNeed(**{"image": b"an image", "machine": "x86_64", **changes})


async def test_the_same(host: FakeHost, fake: Fake) -> None:
    only(await look(host, fake, need(), need()), Level.OK, "cpu")
    assert fake.names() == ["CPUINFO_CHECK"]


async def test_less(host: FakeHost, fake: Fake) -> None:
    log = "Error (criu/arch/x86/cpu.c:293): cpu: CPU instruction capabilities do not match\n"
    fake.play(cpuinfo=Fault(kind="fail", log=log))
    found = only(await look(host, fake, need()), Level.NO, "cpu")
    assert found.what.endswith(log.strip())
    assert "--allow cpu" in found.remedy


async def test_another_machine(host: FakeHost, fake: Fake) -> None:
    found = only(await look(host, fake, need(machine="aarch64")), Level.NO, "cpu")
    assert found.what == "the CPU is x86_64 there, aarch64 on the source"
    assert fake.names() == []


async def test_an_image_that_kills_criu(host: FakeHost, fake: Fake) -> None:
    fake.play(cpuinfo=Fault(kind="signal", number=11))
    assert "SIGSEGV" in only(await look(host, fake, need()), Level.NO, "cpu").what


async def test_without_criu(host: FakeHost) -> None:
    found = only(await cpu.look([need()], host.context()), Level.NO, "cpu")
    assert "/no/criu cannot be started" in found.what
    assert "install CRIU" in found.remedy


async def test_too_many(host: FakeHost, fake: Fake) -> None:
    needs = [need(image=bytes([number])) for number in range(1, 30)]
    assert "25 more" in only(await look(host, fake, *needs), Level.NO, "cpu").what
    assert len(fake.names()) == 4
