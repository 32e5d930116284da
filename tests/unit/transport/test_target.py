"""Only what is a host passes, and nothing else can reach ssh's arguments or a shell."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.errors import UsageError
from phaul.transport.ssh import SshOptions, ssh_command
from phaul.transport.target import Target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("host", Target("host")),
        ("root@host", Target("host", "root")),
        ("root@host-2.example.org", Target("host-2.example.org", "root")),
        ("root@10.0.0.7", Target("10.0.0.7", "root")),
        ("user@domain.org@host", Target("host", "user@domain.org")),
        ("ssh://host", Target("host")),
        ("ssh://root@host:2222", Target("host", "root", 2222)),
        ("ssh://root@host/", Target("host", "root")),
        ("ssh://root@[fe80::1%eth0]:22", Target("fe80::1%eth0", "root", 22)),
        ("[::1]", Target("::1")),
        ("root@[2001:db8::1]", Target("2001:db8::1", "root")),
        ("root@2001:db8::1", Target("2001:db8::1", "root")),
    ],
)
def test_targets(text: str, target: Target) -> None:
    assert Target.parse(text) == target
    assert Target.parse(str(target)) == target


BAD = [
    "",
    "@host",
    "root@",
    "host:22",
    "root@host:/path",
    "-oProxyCommand=touch /tmp/x",
    "root@-oProxyCommand=x",
    "-l@host",
    "--",
    "host;reboot",
    "host`id`",
    "host$(id)",
    "host|x",
    "host x",
    "host\n-oX",
    "host\n",
    "host\0",
    "'host'",
    "us er@host",
    "us;er@host",
    "$(id)@host",
    "%h",
    "ho%st",
    "höst",
    "[::1",
    "[host]",
    "[::1]x",
    "[::1]:22",
    "[::1%;id]",
    "[::1%-o]x",
    "ssh://",
    "ssh://host:",
    "ssh://host:0",
    "ssh://host:65536",
    "ssh://host:22x",
    "ssh://host:\u0662\u0662",
    "ssh://-x@host",
    "ssh://host/path",
    "phaul://host:1",
    "h" * 300,
]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Target.parse(text)
    assert caught.value.exit_code == 2
    assert caught.value.remedy
    assert str(caught.value).isascii()


@given(st.text(st.sampled_from("ab1.-@:[]%/ ;$`'\"\n\0-o=ssh"), max_size=30))
def test_nothing_can_be_an_option(text: str) -> None:
    try:
        target = Target.parse(text)
    except UsageError:
        return
    for value in (target.host, target.user):
        assert not value.startswith("-")
        assert not set(value) & set(" ;$`'\"\n\0/=[]")
    argv = ssh_command(target, SshOptions(), MUX)
    assert argv[argv.index("--") :] == ["--", target.host, "phaul agent"]


MUX = Path("/tmp/x/mux")


@pytest.mark.parametrize(
    "remote",
    [
        (),
        ("",),
        ("-x",),
        ("phaul agent",),
        ("phaul", "agent;id"),
        ("$(id)",),
        ("phaul\n",),
        ("a", "'"),
        ("a", "*"),
        ("~/phaul",),
    ],
)
def test_a_remote_command_that_a_shell_would_read(remote: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        SshOptions(remote=remote)


def test_the_command() -> None:
    options = SshOptions(remote=("sudo", "-n", "/opt/x/phaul", "agent"), batch=True)
    argv = ssh_command(Target("host", "root", 2222), options, MUX, memory="ab" * 16)
    assert argv[:2] == ["ssh", "-T"]
    assert argv[-7:] == [
        "-p",
        "2222",
        "-l",
        "root",
        "--",
        "host",
        "sudo -n /opt/x/phaul agent --memory " + "ab" * 16,
    ]
    assert "ControlMaster=no" in argv
    assert "BatchMode=yes" in argv
