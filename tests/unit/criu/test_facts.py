import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul._version import __version__
from phaul.criu.engine import Engine, Facts
from phaul.criu.facts import host_facts, make_facts
from phaul.criu.rpc import Version
from phaul.errors import CriuNotFound, CriuTooOld
from phaul.protocol.messages import CriuVersion, Welcome, decode_answer, encode
from tests.unit.conftest import Fake

FACTS = Facts(Version(4, 2, 1), mem_track=True, lazy_pages=False)
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)
number = st.integers(-(1 << 31), (1 << 31) - 1)


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_of_this_host(fake: Fake) -> None:
    fake.play(version=(4, 1, 1), lazy_pages=True, mem_track=False)
    facts = await host_facts(Engine(fake.command))
    assert facts.criu == CriuVersion(major=4, minor=1, sublevel=1)
    assert (facts.mem_track, facts.lazy_pages) == (False, True)
    assert (facts.kernel, facts.machine) == (os.uname().release, os.uname().machine)
    assert facts.phaul == __version__
    assert await host_facts(Engine(("/no/criu",)), FACTS) == make_facts(
        FACTS, os.uname().nodename, facts.kernel, facts.machine
    )


@pytest.mark.anyio
async def test_without_a_criu_that_works(fake: Fake) -> None:
    with pytest.raises(CriuNotFound):
        await host_facts(Engine(("/no/criu",)))
    fake.play(version=(3, 17, 1))
    with pytest.raises(CriuTooOld):
        await host_facts(Engine(fake.command))


@given(name=anything, kernel=anything, machine=anything, version=st.tuples(number, number, number))
def test_a_host_of_any_name_can_be_said(
    name: str, kernel: str, machine: str, version: tuple[int, int, int]
) -> None:
    odd = Facts(Version(*version), mem_track=True, lazy_pages=True)
    welcome = Welcome(version=1, facts=make_facts(odd, name, kernel, machine), token="0" * 32)
    assert decode_answer(encode(welcome)) == welcome


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("host1.example.org", "host1.example.org"),
        ("-x", "x"),
        ("héllo wörld", "h-llo-w-rld"),
        ("", "unnamed"),
        ("...", "unnamed"),
        ("a" * 300, "a" * 253),
    ],
)
def test_names(name: str, said: str) -> None:
    assert make_facts(FACTS, name, "6.1", "x86_64").host == said
