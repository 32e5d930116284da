"""`make demo`: two machines on this one, and a process moved between them before your eyes.

Boots the lab's two guests, starts a process with 200 MiB of memory of which it keeps changing a
part, moves it from the first to the second by `phaul migrate` over ssh, and then asks the process
itself whether it is whole.  Runs on the host; ends the guests, whatever happens.
"""

import json
import sys
import time
from typing import Any

from lab import Guest, Lab, LabError
from tools.guests import PROJECT, install_all, stage

PID = 4242
SIZE_MB = 200
RATE_PAGES = 400
WORKING_SET_PAGES = 1500
TARGET = "root@dst"
WISHES = ("--max-downtime", "5s", "--on-timeout", "cutover")
"""The machines are emulated, some ten times slower than real ones."""
REPORT = "/root/report.json"
VICTIMS = f"{PROJECT}/victims"
PHAUL = "/usr/local/bin/phaul"
HARNESS = f"{VICTIMS}/harness.py"


def say(text: str) -> None:
    """Say what comes next, with the time since the start."""
    print(f"\n[{time.monotonic() - BEGUN:5.1f} s] {text}", flush=True)


BEGUN = time.monotonic()


def start_victim(guest: Guest) -> None:
    """Start the victim as process PID of the guest."""
    # `exec`: the victim itself is the first child, the one in the background, to get a new PID.
    victim = f"{VICTIMS}/dirtier --size-mb {SIZE_MB} --rate {RATE_PAGES} --report {REPORT}"
    guest.sh(
        f"echo {PID - 1} >/proc/sys/kernel/ns_last_pid; "
        f"exec {victim} --working-set-pages {WORKING_SET_PAGES} --heartbeat-us 5000",
        timeout=120,
    )


def check_victim(guest: Guest, pid: int) -> dict[str, Any]:
    """Have the victim check itself; its report."""
    result = guest.run(["python3", HARNESS, "check", str(pid), REPORT], timeout=120)
    if not result.stdout:
        raise SystemExit(f"the victim does not answer on {guest.name}: {result.stderr.decode()}")
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def victim_pid(guest: Guest) -> int:
    """The victim's PID on this guest, 0 if it is not there."""
    found = guest.run(["pidof", "dirtier"]).stdout.split()
    return int(found[0]) if found else 0


def main() -> int:
    """Show it; 0 if the process is whole."""
    print(f"Two machines, and a process of {SIZE_MB} MiB that changes {RATE_PAGES} pages a second.")
    folder = stage()
    say("booting the two machines (emulated, some ten times slower than real ones)")
    with Lab(memory_mib=1536, thp="never") as lab:
        install_all(lab.guests, folder)
        lab.authorize()
        say(f"starting the process on {lab.src.name}")
        start_victim(lab.src)
        pid = victim_pid(lab.src)
        before = check_victim(lab.src, pid)
        print(f"PID {pid} on {lab.src.name}: {before['counter']} beats, memory right")
        say(f"moving it to {lab.dst.name}")
        phaul(lab.src, "migrate", pid, TARGET, *WISHES)
        whole = ask(lab, pid, before["counter"])
    say("done; the machines are gone")
    return 0 if whole else 1


def phaul(guest: Guest, *words: object) -> None:
    """Run `phaul` on a guest before the user's eyes; ends the demo unless its status is 0."""
    line = " ".join(str(word) for word in words)
    print(f"{guest.name}# phaul {line}", flush=True)
    # By its path, as the guests' agent has a short PATH; one stream, so that the order is kept.
    with guest.spawn(["bash", "-c", f"exec {PHAUL} {line} 2>&1"]) as command:
        for said in command.stdout.lines(timeout=120):
            print(said, flush=True)
        if status := command.wait(60):
            raise SystemExit(f"phaul {words[0]} ended with status {status}")


def ask(lab: Lab, pid: int, beats: int) -> bool:
    """Ask the process, where it is now, whether it is whole and alone."""
    say("asking the process")
    left, came = victim_pid(lab.src), victim_pid(lab.dst)
    after = check_victim(lab.dst, came)
    time.sleep(0.5)
    later = check_victim(lab.dst, came)
    print(f"on {lab.src.name}: {f'PID {left}' if left else 'gone'}; on {lab.dst.name}: PID {came}")
    print(f"it has counted on from {beats} to {later['counter']}, each beat by one")
    print(f"its largest gap was {after['max_gap_ms']:.0f} ms by its own clock")
    print(f"{after['pages']} pages checked, {after['bad_pages']} wrong")
    whole = after["ok"] and later["ok"] and later["counter"] > after["counter"] > beats
    if whole and not left and came == pid:
        return True
    print(f"NOT WHOLE: {after['problems'] + later['problems']}")
    return False


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"the lab: {error}")
