"""Each error names the file, the key, and what would be right; who says what last is right."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.cli.configuration import (
    Configuration,
    Duration,
    Host,
    Rate,
    Settings,
    locate,
    merge,
    parse,
    read,
)
from phaul.errors import ConfigurationError
from phaul.plan import Compress, OnTimeout, Tcp, Wishes

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

WHOLE = """
[defaults]
max-downtime = "200ms"
timeout = "1h"
on-timeout = "cutover"
bandwidth = "100M"
max-rounds = 4
compress = "zstd"
tcp = "keep"
allow = ["cpu", "clock"]
keep-images = true

[hosts.web2]
target = "ssh://root@web2:2222"
agent = ["sudo", "-n", "phaul", "agent"]
ssh-config = "/root/ssh config"
criu = "/opt/criu/bin/criu"
bandwidth = "1Gbit"
allow = []

[hosts."db.example"]
target = "phaul://db.example:4321"
"""


def test_a_whole_one() -> None:
    found = parse(WHOLE, "x.toml")
    host = found.hosts["web2"]
    assert host.agent == ("sudo", "-n", "phaul", "agent")
    assert (host.ssh_config, host.criu) == ("/root/ssh config", "/opt/criu/bin/criu")
    assert found.wishes(Settings()) == Wishes(
        max_downtime_s=0.2,
        timeout_s=3600.0,
        on_timeout=OnTimeout.CUTOVER,
        bandwidth=100 * 1024.0**2,
        max_rounds=4,
        compress=Compress.ZSTD,
        tcp=Tcp.KEEP,
        keep_images=True,
        allow=frozenset({"cpu", "clock"}),
    )
    there = found.wishes(Settings(max_rounds=7, keep_images=False), host)
    assert (there.bandwidth, there.allow) == (125e6, frozenset())
    assert (there.max_rounds, there.keep_images, there.timeout_s) == (7, False, 3600.0)


def test_an_empty_one_says_nothing() -> None:
    assert parse("", "x.toml") == Configuration()
    assert Configuration().wishes(Settings()) == Wishes()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x =\ny = 1", "line 1"),
        ('[defaults]\nmax_downtime = "1s"', "[defaults]: unknown key 'max_downtime'"),
        ('[defaults]\nmax_downtime = "1s"', "did you mean 'max-downtime'?"),
        ('[defaults]\nmaxrounds = "1s"', "did you mean 'max-rounds'?"),
        ("[defaults]\nzzz = 1", "known are max-downtime, timeout"),
        ('[defaults]\ntarget = "web2"', "[defaults]: unknown key 'target'"),
        ("[default]", "unknown key 'default'\ndid you mean 'defaults'?"),
        ("[defaults]\nmax-downtime = 3", "[defaults] max-downtime: it is a text with a unit"),
        ('[defaults]\nbandwidth = "3"', "[defaults] bandwidth: 3 has no unit"),
        ('[defaults]\non-timeout = "x"', "on-timeout: Invalid enum value 'x'\none of: cancel,"),
        ("[defaults]\nmax-rounds = 0", "[defaults] max-rounds: Expected `int` >= 1"),
        ("[defaults]\nmax-rounds = true", "max-rounds: Expected `int`, got `bool`"),
        ('[defaults]\nkeep-images = "yes"', "keep-images: Expected `bool`"),
        ('[defaults]\nallow = "cpu"', "allow: Expected `array`"),
        ('[defaults]\nallow = ["cpx"]', "[defaults]: 'cpx' is no check"),
        ("defaults = 1", "defaults is no table"),
        ("hosts = 1", "hosts is no table"),
        ("hosts.web2 = 1", "hosts.web2 is no table"),
        ("[hosts.web2]\ntarget = 3", "[hosts.web2] target: Expected `str`"),
        ('[hosts.web2]\ntarget = ""', "[hosts.web2] target: "),
        ('[hosts.web2]\ntarget = "-oProxyCommand=x"', "[hosts.web2] target: "),
        ('[hosts.web2]\ncriu = "a\\nb"', "[hosts.web2] criu: "),
        ("[hosts.web2]\nagent = []", "[hosts.web2] agent: "),
        ('[hosts.web2]\nagent = ["sudo", ""]', "[hosts.web2] agent: "),
        ('[hosts.web2]\nagent = "sudo phaul agent"', "agent: Expected `array`"),
        ("[hosts.web2]\ntimeot = 1", "[hosts.web2]: unknown key 'timeot'\ndid you mean 'timeout'?"),
        ("[hosts.a.example]\n", "[hosts.a]: unknown key 'example'\nthe name of a host with dots"),
        ('[hosts."-x"]', "'-x' is no name of a host"),
        ("a = " + "[" * 5000, "x.toml: "),
    ],
)  # fmt: skip
def test_an_error_names_file_and_key(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, "/etc/x.toml")
    assert str(caught.value).startswith("/etc/x.toml: ")
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_refused(text: str) -> None:
    for whole in (text, f"[defaults]\n{text}", f"[hosts.x]\n{text}"):
        try:
            parse(whole, "x.toml")
        except ConfigurationError as error:
            assert error.what.startswith("x.toml: ")  # noqa: PT017 -- both ways are right


def optional(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | values


COMMON = {
    "max_downtime": optional(st.floats(0.001, 9).map(Duration)),
    "timeout": optional(st.floats(1, 9e3).map(Duration)),
    "on_timeout": optional(st.sampled_from(OnTimeout)),
    "bandwidth": optional(st.floats(1, 1e9).map(Rate)),
    "max_rounds": optional(st.integers(1, 99)),
    "compress": optional(st.sampled_from(Compress)),
    "tcp": optional(st.sampled_from(Tcp)),
    "allow": optional(st.sampled_from([(), ("cpu",), ("clock", "cpu")])),
    "keep_images": optional(st.booleans()),
}
SETTINGS = st.builds(Settings, **COMMON)
HOSTS = st.builds(Host, target=optional(st.just("a@b")), **COMMON)
WHOLES = st.builds(
    Configuration,
    defaults=SETTINGS,
    hosts=st.dictionaries(st.sampled_from("xyz"), HOSTS, max_size=3),
)


@given(SETTINGS, HOSTS, SETTINGS)
def test_who_is_right(given: Settings, host: Host, defaults: Settings) -> None:
    wishes = Configuration(defaults=defaults).wishes(given, host)
    names = {"max_downtime": "max_downtime_s", "timeout": "timeout_s"}
    for name in Settings.__struct_fields__:
        field = names.get(name, name)
        said = [getattr(layer, name) for layer in (given, host, defaults)]
        first = next((value for value in said if value is not None), getattr(Wishes(), field))
        assert getattr(wishes, field) == (frozenset(first) if name == "allow" else first)


@given(WHOLES, WHOLES, WHOLES)
def test_merging(a: Configuration, b: Configuration, c: Configuration) -> None:
    assert merge(a, Configuration()) == merge(Configuration(), a) == merge(a, a) == a
    assert merge(a, merge(b, c)) == merge(merge(a, b), c)
    assert set(merge(a, b).hosts) == set(a.hosts) | set(b.hosts)


def test_where_the_files_are() -> None:
    system = Path("/etc/phaul/config.toml")
    assert locate({"HOME": "/h"}) == ((system, Path("/h/.config/phaul/config.toml")), False)
    assert locate({"XDG_CONFIG_HOME": "/c", "HOME": "/h"})[0][1] == Path("/c/phaul/config.toml")
    assert locate({"XDG_CONFIG_HOME": "c", "HOME": "/h"}) == locate({"HOME": "/h"})
    assert locate({}) == ((system,), False)
    assert locate({"PHAUL_CONFIG": "x", "HOME": "/h"}) == ((Path("x"),), True)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_two_files(tmp_path: Path) -> None:
    weak = write(
        tmp_path / "weak", '[defaults]\nmax-rounds = 3\ntimeout = "1m"\n[hosts.a]\ncriu = "c"'
    )
    strong = write(tmp_path / "strong", '[defaults]\nmax-rounds = 5\n[hosts.a]\ntarget = "b"')
    found = read({}, [weak, strong])
    assert (found.defaults.max_rounds, found.defaults.timeout) == (5, 60.0)
    assert (found.hosts["a"].criu, found.hosts["a"].target) == ("c", "b")


def test_the_user_s_own(tmp_path: Path) -> None:
    (tmp_path / "phaul").mkdir()
    write(tmp_path / "phaul/config.toml", "[defaults]\nmax-rounds = 77")
    assert read({"XDG_CONFIG_HOME": str(tmp_path)}).defaults.max_rounds == 77


def test_the_variable_s(tmp_path: Path) -> None:
    path = write(tmp_path / "x.toml", "[defaults]\nmax-rounds = 3")
    assert read({"PHAUL_CONFIG": str(path)}) == parse(path.read_text(), "")
    assert read({"PHAUL_CONFIG": "/dev/null"}) == Configuration()
    for missing in (tmp_path / "no.toml", path / "below"):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            read({"PHAUL_CONFIG": str(missing)})
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        read({"PHAUL_CONFIG": str(tmp_path)})


def test_what_is_no_text(tmp_path: Path) -> None:
    path = write(tmp_path / "x.toml", "")
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=r"x\.toml is not UTF-8"):
        read({"PHAUL_CONFIG": str(path)})
    path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigurationError, match="has more than"):
        read({"PHAUL_CONFIG": str(path)})


@needs_root
@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_root_believes_no_file_that_others_may_write(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "x.toml", "")
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="written by others") as caught:
        read({"PHAUL_CONFIG": str(path)})
    assert caught.value.remedy == f"`chmod go-w {path}`"


@needs_root
def test_root_believes_no_file_of_another(tmp_path: Path) -> None:
    path = write(tmp_path / "x.toml", "")
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigurationError, match="belongs to user 65534"):
        read({"PHAUL_CONFIG": str(path)})


def test_another_user_believes_his_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.toml", "")
    path.chmod(0o666)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert read({"PHAUL_CONFIG": str(path)}) == Configuration()


def test_each_setting_is_a_wish() -> None:
    assert len(Settings.__struct_fields__) == len(Wishes.__dataclass_fields__)
    assert msgspec.structs.asdict(Settings())
