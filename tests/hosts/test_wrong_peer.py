"""Preflight: the other host cannot be reached or spoken to, or there is no such process to move."""

import os
from pathlib import Path

import pytest

from tests.hosts.command import Command
from tests.hosts.machine import Hosts
from tests.hosts.refusal import INCOMPATIBLE, REFUSED, UNREACHED, Refusal
from tests.hosts.subject import StartSubject

KNOWN_HOSTS = Path("/root/.ssh/known_hosts")
FOREIGN_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIPTgZfvIqrhNKLzbPpnNVgbCoLyUMYZDwl9hTsMBPRYJ"
OTHER_VERSION = """#!/bin/sh
PYTHONPATH=/phaul/src:/site PYTHONPYCACHEPREFIX=/pycache exec python3 -S -P -c '
import sys
import phaul.protocol
phaul.protocol.OLDEST = phaul.protocol.NEWEST = 99
from phaul.__main__ import main
sys.exit(main())
' "$@"
"""


# -- ssh


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("root@no-such-host", "no-such-host"),
        ("ssh://root@host2:2222", "2222"),
        ("root@10.88.0.77", "10.88.0.77"),
    ],
    ids=["no-address", "nobody-listens", "no-way"],
)
def test_host_is_not_reached(
    victim: StartSubject, refused: Refusal, target: str, text: str
) -> None:
    refused.ends(victim("holder"), text, target=target, status=UNREACHED)


@pytest.mark.parametrize("known", ["", f"host2,10.88.0.2 ssh-ed25519 {FOREIGN_KEY}\n"])
def test_host_key_is_not_the_known_one(victim: StartSubject, refused: Refusal, known: str) -> None:
    right = KNOWN_HOSTS.read_text()
    KNOWN_HOSTS.write_text(known)
    try:
        refused.ends(victim("holder"), "ssh", "host2", "key", status=UNREACHED)
    finally:
        KNOWN_HOSTS.write_text(right)


def test_not_let_in(hosts: Hosts, victim: StartSubject, refused: Refusal) -> None:
    keys = hosts.destination.path("/root/.ssh/authorized_keys")
    right = keys.read_text()
    keys.write_text("")
    try:
        refused.ends(victim("holder"), "Permission denied", "host2", status=UNREACHED)
    finally:
        keys.write_text(right)


# -- phaul over there


def test_no_phaul_there(hosts: Hosts, victim: StartSubject, refused: Refusal) -> None:
    program = hosts.destination.path("/usr/local/bin/phaul")
    kept = program.read_text()
    program.unlink()
    try:
        refused.ends(victim("holder"), "no phaul", "install phaul", status=UNREACHED)
    finally:
        hosts.destination.write("/usr/local/bin/phaul", kept, 0o755)


def test_another_protocol_there(hosts: Hosts, victim: StartSubject, refused: Refusal) -> None:
    program = hosts.destination.path("/usr/local/bin/phaul")
    kept = program.read_text()
    hosts.destination.write("/usr/local/bin/phaul", OTHER_VERSION, 0o755)
    try:
        refused.ends(victim("holder"), "99", "same phaul", status=INCOMPATIBLE)
    finally:
        hosts.destination.write("/usr/local/bin/phaul", kept, 0o755)


@pytest.mark.parametrize("script", ["echo noise; exec phaul agent", "exit 9"])
def test_something_else_there(
    hosts: Hosts, victim: StartSubject, refused: Refusal, script: str
) -> None:
    program = hosts.destination.path("/usr/local/bin/phaul")
    kept = program.read_text()
    hosts.destination.write("/usr/local/bin/phaul", f"#!/bin/sh\n{script}\n", 0o755)
    try:
        refused.ends(victim("holder"), "host2", status=UNREACHED)
    finally:
        hosts.destination.write("/usr/local/bin/phaul", kept, 0o755)


# -- the subject


def refuses_pid(hosts: Hosts, phaul: Command, pid: object, *texts: str, status: int) -> None:
    """Nothing is there to be moved: the message says why."""
    for host in hosts.both:
        host.remember()
    outcome = phaul("migrate", pid, "root@host2")
    assert outcome.status == status, outcome
    outcome.says(*texts)
    for host in hosts.both:
        assert host.leftovers() == [], outcome


def test_no_such_process(hosts: Hosts, phaul: Command) -> None:
    refuses_pid(hosts, phaul, 3_999_999, "3999999", status=REFUSED)


def test_not_a_pid(hosts: Hosts, phaul: Command) -> None:
    refuses_pid(hosts, phaul, "nonsense", "nonsense", status=2)


def test_what_phaul_itself_runs_in(hosts: Hosts, phaul: Command) -> None:
    refuses_pid(hosts, phaul, os.getpid(), str(os.getpid()), status=REFUSED)


def test_not_root(hosts: Hosts, victim: StartSubject, phaul: Command) -> None:
    subject = victim("holder")
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    outcome = phaul("migrate", subject.pid, "root@host2", prefix=nobody)
    assert outcome.status == REFUSED, outcome
    outcome.says("root")
    subject.only_on(hosts.source, hosts.destination)


def test_an_override_that_is_no_check(hosts: Hosts, victim: StartSubject, phaul: Command) -> None:
    subject = victim("holder")
    outcome = phaul("migrate", subject.pid, "root@host2", "--allow", "everything")
    assert outcome.status == 2, outcome
    outcome.says("everything", "page-server")
    subject.only_on(hosts.source, hosts.destination)
