import pytest

from phaul.destination.checks import memory
from phaul.protocol.preflight import Finding, Level, MemoryNeed
from tests.unit.destination.checks.conftest import FakeHost, only

GIB = 1 << 30
PAGE = 2 << 20
HUGE = "/sys/kernel/mm/hugepages/hugepages-2048kB"


def look(host: FakeHost, *needs: MemoryNeed, images: int = 0) -> list[Finding]:
    return memory.look(needs, images, host.context())


@pytest.fixture(autouse=True)
def _ten_gibibytes(host: FakeHost) -> None:
    kib = 10 * GIB // 1024
    host.put_proc("meminfo", f"MemTotal: {2 * kib} kB\nMemAvailable: {kib} kB\nSwapFree: 0 kB\n")


def limit(host: FakeHost, cgroup: str, most: str, used: int, inactive: int = 0) -> None:
    folder = f"/sys/fs/cgroup{cgroup}"
    host.put(f"{folder}/memory.max", f"{most}\n")
    host.put(f"{folder}/memory.current", f"{used}\n")
    host.put(f"{folder}/memory.stat", f"anon 5\ninactive_file {inactive}\n")


def huge_pages(host: FakeHost, **numbers: int) -> None:
    names = ("free", "resv", "nr_overcommit", "surplus")
    for name in names:
        host.put(f"{HUGE}/{name}_hugepages", f"{numbers.get(name, 0)}\n")


def test_enough(host: FakeHost) -> None:
    found = only(look(host, MemoryNeed(resident=9 * GIB)), Level.OK, "memory")
    assert found.what == "9.0 GiB of memory are needed, 10.0 GiB are available"


def test_too_little(host: FakeHost) -> None:
    found = only(look(host, MemoryNeed(resident=11 * GIB)), Level.NO, "memory")
    assert found.what == "11.0 GiB of memory are needed, 10.0 GiB are available"


def test_tight(host: FakeHost) -> None:
    found = only(look(host, MemoryNeed(resident=10 * GIB - GIB // 2)), Level.WARNING, "memory")
    assert "only 512.0 MiB are left" in found.what


def test_what_would_be_swapped_out(host: FakeHost) -> None:
    host.put_proc("meminfo", "MemAvailable: 1048576 kB\nSwapFree: 1048576 kB\n")
    need = MemoryNeed(resident=3 * GIB // 2)
    assert "swapped out" in only(look(host, need), Level.WARNING, "memory").what
    only(look(host, MemoryNeed(resident=3 * GIB)), Level.NO, "memory")


def test_images_in_memory_count(host: FakeHost) -> None:
    found = only(look(host, MemoryNeed(resident=6 * GIB), images=6 * GIB), Level.NO, "memory")
    assert "12.0 GiB of memory are needed (6.0 GiB for images, as" in found.what


def test_a_host_that_does_not_say(host: FakeHost) -> None:
    host.put_proc("meminfo", "nothing\n")
    only(look(host, MemoryNeed(resident=1)), Level.WARNING, "memory")


@pytest.mark.parametrize("cgroup", ["/agent.slice/agent.service", "/agent.slice"])
def test_the_limits_of_the_agents_cgroups(host: FakeHost, cgroup: str) -> None:
    host.mount("cgroup2", "/sys/fs/cgroup")
    limit(host, "/agent.slice/agent.service", "max", GIB)
    limit(host, cgroup, str(2 * GIB), GIB + GIB // 2, inactive=GIB // 2)
    only(look(host, MemoryNeed(resident=GIB)), Level.OK, "memory")
    found = only(look(host, MemoryNeed(resident=GIB + 1)), Level.NO, "memory")
    assert f"the agent's cgroup {cgroup} leaves 1.0 GiB" in found.what


def test_a_cgroup_that_climbs_is_left_alone(host: FakeHost) -> None:
    host.put_proc("self/cgroup", "0::/../../other\n")
    host.mount("cgroup2", "/sys/fs/cgroup")
    only(look(host, MemoryNeed(resident=GIB)), Level.OK, "memory")


def test_huge_pages(host: FakeHost) -> None:
    need = MemoryNeed(resident=9 * GIB, huge=5 * PAGE, huge_page=PAGE)
    huge_pages(host, free=5)
    only(look(host, need), Level.OK, "memory")
    huge_pages(host, free=5, resv=1)
    found = only(look(host, need), Level.NO, "memory")
    assert found.what == "5 huge pages of 2.0 MiB needed, 4 free there"
    assert "hugepages-2048kB/nr_hugepages" in found.remedy
    huge_pages(host, free=4, nr_overcommit=3, surplus=2)
    only(look(host, need), Level.OK, "memory")


def test_huge_pages_of_a_size_that_it_lacks(host: FakeHost) -> None:
    need = MemoryNeed(resident=GIB, huge=GIB, huge_page=GIB)
    assert "no huge pages of 1.0 GiB" in only(look(host, need), Level.NO, "memory").what


def test_huge_pages_are_not_counted_twice(host: FakeHost) -> None:
    huge_pages(host, free=10_000)
    only(look(host, MemoryNeed(resident=12 * GIB, huge=4 * GIB)), Level.OK, "memory")
