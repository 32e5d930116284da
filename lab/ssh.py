"""SSH between the guests, on the link.  Runs on the host, acts in the guests."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .guest import Guest

# Ed25519 alone: making an RSA key takes many seconds in an emulated guest.  The cipher: there it is
# twice as fast as OpenSSH's own choice, ChaCha20 (6 to 3 MiB/s).
_START = r"""
set -eu
key=/etc/ssh/ssh_host_ed25519_key
pidfile=/run/lab-sshd.pid
if [ -e $pidfile ] && kill -0 "$(cat $pidfile)" 2>/dev/null; then exit 0; fi
[ -e $key ] || ssh-keygen -q -t ed25519 -N '' -f $key
mkdir -p /run/sshd
/usr/sbin/sshd -o ListenAddress=%s -o HostKey=$key -o PidFile=$pidfile \
    -o PermitRootLogin=prohibit-password -o PasswordAuthentication=no -o UseDNS=no \
    -o Ciphers=aes128-gcm@openssh.com
"""
_MAKE_KEY = r"""
set -eu
mkdir -p -m 700 /root/.ssh
[ -e /root/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
cat /root/.ssh/id_ed25519.pub
"""
_ADD_LINE = 'mkdir -p -m 700 /root/.ssh && grep -qxF "$2" "$1" 2>/dev/null || echo "$2" >>"$1"'


def start(guest: "Guest") -> None:
    """Make a host key and start sshd on the guest's address on the link."""
    guest.sh(_START % guest.address)


def authorize(client: "Guest", server: "Guest") -> None:
    """Let root of one guest log in to the other as root, by key, without a question."""
    start(server)
    key = client.sh(_MAKE_KEY).strip()
    host_key = " ".join(server.sh("cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2])
    names = f"{server.name},{server.address},peer"
    for guest, path, line in (
        (server, "/root/.ssh/authorized_keys", key),
        (client, "/root/.ssh/known_hosts", f"{names} {host_key}"),
    ):
        guest.run(["bash", "-c", _ADD_LINE, "add", path, line], check=True)
