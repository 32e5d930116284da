"""The smaller checks: cgroups, security profiles, namespaces, programs."""

import pytest

from phaul.destination.checks import cgroup, lsm, namespaces, tools
from phaul.protocol.preflight import CgroupNeed, Finding, Level, LsmNeed, NamespaceNeed, ToolNeed
from tests.unit.destination.checks.conftest import FakeHost, only


def look_cgroups(host: FakeHost, *needs: tuple[str, str]) -> list[Finding]:
    made = [CgroupNeed(controllers=controllers, path=path) for controllers, path in needs]
    return cgroup.look(made, host.context())


def test_cgroups(host: FakeHost) -> None:
    host.mount("cgroup2", "/sys/fs/cgroup")
    host.mount("cgroup", "/sys/fs/cgroup/mem", "rw,memory,hugetlb")
    host.put("/sys/fs/cgroup/a.slice/x")
    host.put("/sys/fs/cgroup/mem/b/x")
    found = look_cgroups(host, ("", "/a.slice"), ("memory", "/b"), ("hugetlb,memory", "/b"))
    assert only(found, Level.OK, "cgroup").what == "3 cgroups are there"


def test_a_cgroup_that_criu_makes(host: FakeHost) -> None:
    host.mount("cgroup2", "/sys/fs/cgroup")
    found = only(look_cgroups(host, ("", "/a.slice")), Level.WARNING, "cgroup")
    assert "CRIU will make it" in found.what


def test_a_hierarchy_that_is_not_there(host: FakeHost) -> None:
    host.mount("cgroup2", "/sys/fs/cgroup")
    found = only(look_cgroups(host, ("name=systemd", "/a")), Level.NO, "cgroup")
    assert "name=systemd of version 1 is not mounted there" in found.what
    host.put_proc("self/mountinfo", "")
    assert "version 2" in only(look_cgroups(host, ("", "/a")), Level.NO, "cgroup").what


def look_lsm(host: FakeHost, kind: str, profile: str) -> list[Finding]:
    return lsm.look([LsmNeed(kind=kind, profile=profile, pid=7)], host.context())  # type: ignore[arg-type]


PROFILES = "/sys/kernel/security/apparmor/profiles"


@pytest.mark.parametrize("profile", ["app (enforce)", "app", "app//&with space", ":ns://app"])
def test_a_profile_that_is_loaded(host: FakeHost, profile: str) -> None:
    host.put(PROFILES, "app (enforce)\nwith space (complain)\n")
    only(look_lsm(host, "apparmor", profile), Level.OK, "lsm")


@pytest.mark.parametrize("profile", ["other (enforce)", "app//&other (enforce)", "app (x)//&other"])
def test_a_profile_that_is_not(host: FakeHost, profile: str) -> None:
    host.put(PROFILES, "app (enforce)\n")
    found = only(look_lsm(host, "apparmor", profile), Level.NO, "lsm")
    assert "is not loaded there" in found.what
    assert "apparmor_parser" in found.remedy


def test_another_security_module(host: FakeHost) -> None:
    what = only(look_lsm(host, "apparmor", "app"), Level.NO, "lsm").what
    assert what == "a task is confined by AppArmor (app), there no security module is on"
    host.put(PROFILES)
    what = only(look_lsm(host, "selinux", "a:b:c:s0"), Level.NO, "lsm").what
    assert what == "a task is confined by SELinux (a:b:c:s0), there AppArmor is on"


def test_selinux(host: FakeHost) -> None:
    host.put("/sys/fs/selinux/enforce", "1")
    only(look_lsm(host, "selinux", "a:b:c:s0"), Level.OK, "lsm")


def test_profiles_that_cannot_be_read(host: FakeHost) -> None:
    host.put("/sys/kernel/security/apparmor/features/x")
    found = look_lsm(host, "apparmor", "app")
    assert [finding.level for finding in found] == [Level.WARNING, Level.OK]


def look_namespaces(host: FakeHost, *kinds: str) -> list[Finding]:
    return namespaces.look([NamespaceNeed(kinds=kinds)], host.context())  # type: ignore[arg-type]


def test_namespaces(host: FakeHost) -> None:
    for kind in ("pid", "mnt", "user"):
        host.put_proc(f"self/ns/{kind}", "")
        host.put_proc(f"sys/user/max_{kind}_namespaces", "100\n")
    found = only(look_namespaces(host, "pid", "mnt"), Level.OK, "namespaces")
    assert found.what == "2 namespaces can be made: pid, mnt"
    assert "CONFIG_TIME_NS" in only(look_namespaces(host, "time"), Level.NO, "namespaces").remedy
    host.put_proc("sys/user/max_pid_namespaces", "0\n")
    found = only(look_namespaces(host, "pid"), Level.NO, "namespaces")
    assert "user.max_pid_namespaces" in found.remedy
    host.put_proc("self/status", "CapEff:\t0000000000000000\n")
    assert "CAP_SYS_ADMIN" in only(look_namespaces(host, "mnt"), Level.NO, "namespaces").what
    only(look_namespaces(host, "user"), Level.OK, "namespaces")


def test_tools(host: FakeHost) -> None:
    def look(name: str) -> list[Finding]:
        need = ToolNeed(name=name, purpose="to unpack a tmpfs")  # type: ignore[arg-type]
        return tools.look([need], host.context())

    host.put("bin/tar").chmod(0o755)
    host.put("bin/ip").chmod(0o644)
    assert only(look("tar"), Level.OK, "tools").what == "1 program is there"
    found = only(look("ip"), Level.NO, "tools")
    assert found.what == "ip is not found there, which is needed to unpack a tmpfs"
    assert "iproute2" in found.remedy or "/ip: add its directory to PATH" in found.remedy
