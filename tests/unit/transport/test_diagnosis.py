"""What OpenSSH 9 and 10 write, word for word, becomes the error that it means."""

import pytest

from phaul import errors as e
from phaul.transport.diagnosis import diagnose, last_line

CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
It is also possible that a host key has just been changed.
The fingerprint for the ED25519 key sent by the remote host is
SHA256:9wVnXYYyGTmCwYNnCcaTlSKKPqvNQBDCAuIzJnBDDyU.
Please contact your system administrator.
Add correct host key in /home/u/.ssh/known_hosts to get rid of this message.
Offending ED25519 key in /home/u/.ssh/known_hosts:7
Host key for host2 has changed and you have requested strict checking.
Host key verification failed.
"""
TEXTS = [
    ("ssh: Could not resolve hostname host2: Name or service not known", e.HostUnknown),
    ("ssh: Could not resolve hostname host2: Temporary failure in name resolution", e.HostUnknown),
    ("ssh: Could not resolve hostname host2: No address associated with hostname", e.HostUnknown),
    ("ssh: connect to host host2 port 22: Connection refused", e.ConnectionRefused),
    ("ssh: connect to host host2 port 22: No route to host", e.HostUnreachable),
    ("ssh: connect to host host2 port 22: Network is unreachable", e.HostUnreachable),
    ("ssh: connect to host host2 port 22: Connection timed out", e.ConnectTimeout),
    ("Connection timed out during banner exchange\n"
     "Connection to 10.0.0.7 port 22 timed out", e.ConnectTimeout),
    ("Timeout, server host2 not responding.", e.ConnectTimeout),
    (CHANGED, e.HostKeyChanged),
    ("@       WARNING: REVOKED HOST KEY DETECTED!               @\n"
     "The ED25519 host key for host2 is marked as revoked.\n"
     "Host key verification failed.", e.HostKeyChanged),
    ("No ED25519 host key is known for host2 and you have requested strict checking.\n"
     "Host key verification failed.", e.HostKeyUnknown),
    ("Host key verification failed.", e.HostKeyUnknown),
    ("root@host2: Permission denied (publickey,password).", e.AuthenticationFailed),
    ("Permission denied, please try again.\nroot@host2: Permission denied (publickey).",
     e.AuthenticationFailed),
    ("Received disconnect from 10.0.0.7 port 22:2: Too many authentication failures\n"
     "Disconnected from 10.0.0.7 port 22", e.AuthenticationFailed),
    ("ssh: connect to host jump port 22: Connection refused\n"
     "Connection closed by UNKNOWN port 65535", e.ConnectionRefused),
    ("channel 0: open failed: connect failed: Connection refused\nstdio forwarding failed\n"
     "Connection closed by UNKNOWN port 65535", e.ConnectionRefused),
    ("kex_exchange_identification: Connection closed by remote host", e.ConnectFailed),
    ("Unable to negotiate with 10.0.0.7 port 22: no matching host key type found. "
     "Their offer: ssh-rsa", e.ConnectFailed),
    ("command-line: line 0: Bad configuration option: bogus", e.ConnectFailed),
    ("Bad owner or permissions on /home/u/.ssh/config", e.ConnectFailed),
    ("mux_client_request_session: session request failed: Session open refused by peer",
     e.ConnectFailed),
    ("", e.ConnectFailed),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind"), TEXTS)
def test_texts(text: str, kind: type[e.ConnectFailed]) -> None:
    error = diagnose("host2", None, "root", 255, text.splitlines())
    assert type(error) is kind
    assert error.exit_code == 4
    assert error.host == "root@host2"
    assert error.remedy
    assert error.what.startswith("ssh")


def test_the_remedies_can_be_copied() -> None:
    changed = diagnose("host2", 2222, "root", 255, CHANGED.splitlines())
    assert "ssh-keygen -R '[host2]:2222'" in changed.remedy
    denied = diagnose("host2", 2222, "root", 255, ["root@host2: Permission denied (publickey)."])
    assert "ssh -p 2222 root@host2" in denied.remedy


@pytest.mark.parametrize(
    ("status", "text", "kind", "says"),
    [
        (127, "sh: line 1: phaul: command not found", e.AgentMissing, "no phaul over there"),
        (126, "sh: 1: phaul: Permission denied", e.AgentMissing, "cannot be executed"),
        (1, "sudo: a password is required", e.AgentFailed, "a password is required"),
        (0, "", e.AgentFailed, "status 0"),
        (None, "", e.ConnectTimeout, "did not end"),
        (-9, "", e.ConnectFailed, "signal 9"),
    ],
)
def test_other_ends(status: int | None, text: str, kind: type[e.ConnectFailed], says: str) -> None:
    error = diagnose("host2", None, "", status, text.splitlines())
    assert type(error) is kind
    assert says in error.what


def test_the_last_line_that_says_something() -> None:
    lines = [
        "kex_exchange_identification: read: Connection reset by peer",
        "** WARNING: connection is not using a post-quantum key exchange algorithm.",
        '** This session may be vulnerable to "store now, decrypt later" attacks.',
        "Connection to host2 closed.",
        "",
    ]
    assert last_line(lines).startswith("kex_exchange")
    assert last_line([]) == ""


def test_what_the_other_host_says_cannot_play_with_the_terminal() -> None:
    error = diagnose("host2", None, "", 1, ["\x1b]0;x\x07evil" + "y" * 1000])
    assert error.what.replace("\n", "").isprintable()
    assert len(error.what) < 500
