"""PID 1 of the second host: sets it up, starts its sshd, and reaps until it is killed.

    unshare --pid --fork ... python3 -I -S init.py ROOT_FSTAB

Runs as root in fresh PID, mount, network, UTS, IPC and cgroup namespaces.  It says "mounted", waits
for a line on its input while machine.py gives it a network card and files, then says "ready".
"""

import os
import signal
import subprocess
import sys

HOSTNAME = "host2"
ADDRESS = "10.88.0.2"


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, timeout=30)


def main() -> None:
    # In a fresh network namespace each host sees its own cards; in a fresh PID namespace its own
    # processes.  The rest are places of its own, as two machines have them.
    run("mount", "--all", "--fstab", sys.argv[1])
    run("hostname", HOSTNAME)
    print("mounted", flush=True)
    sys.stdin.readline()
    run("ip", "link", "set", "lo", "up")
    run("ip", "addr", "add", f"{ADDRESS}/24", "dev", "veth2")
    run("ip", "link", "set", "veth2", "up")
    run("ip", "route", "add", "default", "via", "10.88.0.1")
    if os.path.exists("/run/sshd_config"):  # noqa: PTH110 -- pathlib would only slow it down
        run("/usr/sbin/sshd", "-f", "/run/sshd_config")
    print("ready", flush=True)
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            signal.pause()


if __name__ == "__main__":
    main()
