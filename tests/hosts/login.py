"""How root of host1 logs in to host2: an sshd there, keys on both sides, no question."""

import time
from pathlib import Path

from tests.hosts.machine import WAIT, Host

__all__ = ["let_in", "wait_for_sshd"]

_SSHD = """
Port 22
ListenAddress 10.88.0.2
HostKey /run/ssh_host_ed25519_key
PidFile /run/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
# A test that is refused must not have the next one refused too.
PerSourcePenalties no
MaxStartups 100
"""
_SSH = """
Host host2
    HostName 10.88.0.2
    User root
    IdentityFile ~/.ssh/id_ed25519
    IdentitiesOnly yes
    UserKnownHostsFile ~/.ssh/known_hosts
"""
# -S -P: nothing is looked for beside what is named here.  What it imports was compiled beforehand.


def let_in(here: Host, there: Host) -> None:
    """Let root of the one log in to the other."""
    ssh = Path("/root/.ssh")
    ssh.mkdir(mode=0o700, exist_ok=True)
    for key in (ssh / "id_ed25519", Path("/run/host2-key")):
        for old in (key, key.with_name(f"{key.name}.pub")):
            old.unlink(missing_ok=True)
        here.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    public = " ".join(Path("/run/host2-key.pub").read_text().split()[:2])
    here.write("/root/.ssh/known_hosts", f"host2,{there.address} {public}\n")
    here.write("/root/.ssh/config", _SSH, 0o600)
    there.write("/run/ssh_host_ed25519_key", Path("/run/host2-key").read_bytes(), 0o600)
    there.path("/run/sshd").mkdir(mode=0o755)
    there.write("/run/sshd_config", _SSHD)
    there.path("/root/.ssh").mkdir(mode=0o700)
    there.write("/root/.ssh/authorized_keys", (ssh / "id_ed25519.pub").read_text(), 0o600)


def wait_for_sshd(here: Host) -> None:
    """It listens only after it has gone into the background."""
    until = time.monotonic() + WAIT
    while (done := here.run(["ssh", "root@host2", "true"])).returncode:
        assert time.monotonic() < until, f"no ssh to host2: {done.stderr}"
        time.sleep(0.05)
