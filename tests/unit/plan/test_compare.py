from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.criu.rpc import Version
from phaul.plan.catalogue import CHECKS
from phaul.plan.compare import ClockOffset, compare, compare_clocks
from phaul.protocol.messages import CriuVersion, HostFacts
from phaul.protocol.preflight import Finding, Level, Where

HOST = HostFacts(
    host="host",
    phaul="0.1.0",
    criu=CriuVersion(major=4, minor=2, sublevel=1),
    kernel="6.12.1-amd64",
    machine="x86_64",
    mem_track=True,
    lazy_pages=True,
    restore_rate=1,
)


def host(**changes: Any) -> HostFacts:  # noqa: ANN401
    return msgspec.structs.replace(HOST, **changes)


def criu(major: int, minor: int, sublevel: int = 0) -> CriuVersion:
    return CriuVersion(major=major, minor=minor, sublevel=sublevel)


def found(check: str, source: HostFacts, destination: HostFacts) -> Finding:
    (finding,) = [one for one in compare(source, destination) if one.check == check]
    assert bool(finding.remedy) is (finding.level is not Level.OK)
    return finding


def test_two_of_a_kind() -> None:
    findings = compare(HOST, HOST)
    assert {finding.level for finding in findings} == {Level.OK}
    checks = [finding.check for finding in findings]
    assert sorted(checks) == sorted(set(checks) & set(CHECKS))
    assert checks == ["criu", "page-server", "features", "kernel"]


def test_an_older_criu_there() -> None:
    finding = found("criu", HOST, host(criu=criu(4, 2)))
    assert finding.level is Level.WARNING
    assert "CRIU 4.2 is older there than 4.2.1" in finding.what
    assert found("criu", host(criu=criu(4, 2)), HOST).level is Level.OK


@pytest.mark.parametrize(("here", "there"), [((4, 1, 1), (4, 2, 1)), ((4, 2), (4, 1))])
def test_page_servers_that_do_not_understand_each_other(
    here: tuple[int, ...], there: tuple[int, ...]
) -> None:
    finding = found("page-server", host(criu=criu(*here)), host(criu=criu(*there)))
    assert finding.level is Level.NO
    assert CHECKS[finding.check].exit_code == 5
    assert found("page-server", host(criu=criu(4, 1)), host(criu=criu(4, 1, 1))).level is Level.OK


versions = st.tuples(st.integers(3, 6), st.integers(0, 5), st.integers(0, 3))


@given(here=versions, there=versions)
def test_page_servers_by_the_rule_of_the_driver(
    here: tuple[int, int, int], there: tuple[int, int, int]
) -> None:
    same = Version(*here).wide_page_server == Version(*there).wide_page_server
    finding = found("page-server", host(criu=criu(*here)), host(criu=criu(*there)))
    assert (finding.level is Level.OK) is same


def test_features() -> None:
    finding = found("features", host(mem_track=False), HOST)
    assert (finding.level, finding.where) == (Level.WARNING, Where.SOURCE)
    assert "no pre-copy" in finding.what
    finding = found("features", HOST, host(lazy_pages=False))
    assert (finding.level, finding.where) == (Level.WARNING, Where.DESTINATION)
    both = compare(host(mem_track=False), host(lazy_pages=False))
    assert len([one for one in both if one.check == "features"]) == 2
    assert found("features", host(lazy_pages=False), host(mem_track=False)).level is Level.OK


@pytest.mark.parametrize(
    ("here", "there", "level"),
    [
        ("6.12.1", "6.12.99-x", Level.OK),
        ("6.9", "6.12", Level.OK),
        ("6.12.9", "6.12.1", Level.OK),
        ("6.12", "6.9", Level.WARNING),
        ("6.1.0-44-amd64", "5.10.0", Level.WARNING),
        ("odd", "6.12", Level.WARNING),
        ("6.12", "6.", Level.WARNING),
        ("6.12", "99999.1", Level.WARNING),
    ],
)
def test_kernels(here: str, there: str, level: Level) -> None:
    finding = found("kernel", host(kernel=here), host(kernel=there))
    assert finding.level is level
    assert here in finding.what
    assert there in finding.what


def test_another_machine() -> None:
    finding = found("cpu", HOST, host(machine="aarch64"))
    assert finding.level is Level.NO
    assert finding.what == "the CPU is aarch64 there, x86_64 on the source"


@pytest.mark.parametrize(
    ("offset", "level", "said"),
    [
        (0.0499, Level.OK, "49.9 ms +- 1.0 ms"),
        (-0.0499, Level.OK, "differ by 49.9 ms"),
        (0.05, Level.WARNING, "ahead by 50.0 ms"),
        (-3600.0, Level.WARNING, "behind by 3600.0 s"),
    ],
)
def test_clocks(offset: float, level: Level, said: str) -> None:
    finding = compare_clocks(ClockOffset(offset, 0.001))
    assert (finding.check, finding.level) == ("clock", level)
    assert said in finding.what
    assert ("NTP" in finding.remedy) is (level is Level.WARNING)


@given(
    asked=st.integers(0, 1 << 61),
    there=st.integers(0, 1 << 40),
    back=st.integers(0, 1 << 40),
    ahead=st.integers(-(1 << 40), 1 << 40),
)
def test_the_true_offset_lies_within_the_uncertainty(
    asked: int, there: int, back: int, ahead: int
) -> None:
    told = asked + there + ahead
    offset = ClockOffset.measured(asked, told, asked + there + back)
    # Numbers of nanoseconds since the epoch have 61 bits, a float 53.
    assert abs(offset.seconds - ahead / 1e9) <= offset.uncertainty + 1e-6
