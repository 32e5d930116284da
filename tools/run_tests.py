"""Runs the test suites, and says each one's count: `python -m tools.run_tests unit engine ...`.

    unit     linters and unit tests, here
    engine   the real CRIU, natively: in the sandbox, under its Python
    hosts    the command, between two hosts with ssh: namespaces in the sandbox
    faults   a sample of the faults; `make faults` does a thousand
    lab      the lab itself
    vm       two guests
    faults-vm  each fault at each moment of a migration between two guests; not in `make test`

The guests leave a processor free most of the time: all else runs beside them, and is shown when it
has ended.  Nothing is left behind when this is killed: pytest and the sandbox end with it.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import Sandbox
from tests.victims.build import build
from tools.stage import ROOT, site_packages

PYTEST = ("-m", "pytest", "-p", "no:cacheprovider", "-q")
PR_SET_PDEATHSIG = 1
SANDBOX_PYTHON = "3.14"
FAULTS = "tests/vm/faults"
REPORTS = ROOT / "build" / "reports"
"""Here, and not in /tmp: nothing is left when we are killed."""
LONGEST = "vm"
"""The rest runs beside it, one after another: they share the pipes' limit and the cgroups."""
PART = "--part"
NICE = 10
TO_END_S = 120


@dataclass
class Count:
    """What one suite came to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def add(self, report: Path) -> None:
        """Add a JUnit file; one that is not there is a suite that did not get to its end."""
        if not report.exists():
            self.failed += 1
            return
        for suite in ET.parse(report).getroot().iter("testsuite"):
            self.seconds += float(suite.get("time", 0))
            tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
            failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            self.failed += failed
            self.skipped += skipped
            self.passed += tests - failed - skipped


def end_with_parent() -> None:
    """Have the kernel end this process when its parent does."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _become_pytest() -> None:
    end_with_parent()
    # Ignored in what a shell started in the background; but this is how pytest is told to clean up.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def on_host(report: Path, paths: list[str], *options: str) -> int:
    """Run pytest here."""
    argv = [sys.executable, *PYTEST, f"--junitxml={report}", *options, *paths]
    with subprocess.Popen(argv, cwd=ROOT, preexec_fn=_become_pytest) as process:
        try:
            return process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)  # pytest then ends what its fixtures started
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


def unit(report: Path) -> int:
    """Linters and unit tests, on two processors at a time."""
    return on_host(report, ["tests/unit"], "--numprocesses=2", "--dist=worksteal")


def unit_on_one(report: Path) -> int:
    """The same beside the guests, which need the other processor."""
    return on_host(report, ["tests/unit"])


def needed_inside() -> Path:
    """Have the victims and the requirements for where CRIU works; the folder of these."""
    build(ROOT / "build" / "victims")
    return site_packages(SANDBOX_PYTHON, "requirements-test.txt")


def prepared_sandbox(*binds: str) -> Sandbox:
    """The sandbox with the project, its requirements and the victims, all compiled."""
    site = needed_inside()
    # Compiled here, as all that the sandbox sees is read-only: what is up to date is left as it is.
    cache = ROOT / "build" / f"pycache-{SANDBOX_PYTHON}"
    cache.mkdir(parents=True, exist_ok=True)
    seen = [f"{ROOT}:/phaul:ro", f"{site}:/site:ro"]
    env = {"PYTHONPATH": "/phaul/src:/phaul:/site", "PYTHONPYCACHEPREFIX": "/pycache"}
    # Python's own library too: with a prefix, what is compiled beside it is not looked at.
    library = f"/usr/lib/python{SANDBOX_PYTHON}"
    compiled = ["/phaul/src", "/phaul/tests", "/phaul/examples", "/site", library]
    Sandbox(binds=[*seen, f"{cache}:/pycache"], env=env).run(
        ["python3", "-m", "compileall", "-q", "-j2", *compiled], timeout=300, check=True
    )
    return Sandbox(
        binds=[*seen, f"{cache}:/pycache:ro", *binds],
        env={**env, "PYTHONDONTWRITEBYTECODE": "1", "PHAUL_VICTIMS": "/phaul/build/victims"},
        cwd="/phaul",
    )


def in_sandbox(report: Path, paths: list[str], *options: str) -> int:
    """Run pytest in the sandbox, under its Python and its root."""
    sandbox = prepared_sandbox(f"{report.parent}:/report")
    argv = ["python3", *PYTEST, f"--junitxml=/report/{report.name}", *options, *paths]
    with sandbox.popen(argv) as process:
        return process.wait()


def engine(report: Path) -> int:
    """The engine tests and the victims' own."""
    return in_sandbox(report, ["tests/victims", "tests/engine"])


def hosts(report: Path) -> int:
    """The command, between two hosts."""
    return in_sandbox(report, ["tests/hosts"])


def faults(report: Path) -> int:
    """A sample of what `python -m tests.faults` does; it makes its own sandboxes."""
    return on_host(report, ["tests/faults"])


def lab(report: Path) -> int:
    """The lab's own tests.  Apart from `vm`: each has guests of its own until its end."""
    return on_host(report, ["tests/lab"])


def vm(report: Path) -> int:
    """Two guests, and processes moved between them."""
    return on_host(report, ["tests/vm"], f"--ignore={FAULTS}")


def faults_vm(report: Path) -> int:
    """Power, link and processes of a migration between two guests, cut at each of its moments."""
    return on_host(report, [FAULTS], "-rA", "--tb=short")


Suite = Callable[[Path], int]
SUITES: dict[str, Suite] = {
    "unit": unit,
    "engine": engine,
    "hosts": hosts,
    "faults": faults,
    "lab": lab,
    "vm": vm,
    "faults-vm": faults_vm,
}
BESIDE = {**SUITES, "unit": unit_on_one}


def report_of(name: str) -> Path:
    """A suite's JUnit file."""
    return REPORTS / f"{name}.xml"


def run(names: list[str], suites: Mapping[str, Suite] = SUITES) -> int:
    """Run suites, one after another; the status is 0 if all passed."""
    status = 0
    for name in names:
        print(f"== {name}", flush=True)
        status = suites[name](report_of(name)) or status
    return status


@contextmanager
def beside(names: list[str]) -> Iterator[Callable[[], int]]:
    """Have suites run in a process of their own; call what is given to wait, and see its output."""
    if not names:
        yield lambda: 0
        return
    needed_inside()  # once, as both sides need it
    said = REPORTS / "beside.log"
    with said.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tools.run_tests", PART, *names],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            preexec_fn=end_with_parent,
        )

    def wait() -> int:
        try:
            return process.wait()
        finally:
            print(said.read_text(errors="replace"), end="", flush=True)

    try:
        yield wait
    finally:
        process.terminate()
        try:
            process.wait(TO_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main(names: list[str]) -> int:
    """Run the suites named, and say what they came to; the status is 0 if all passed."""
    end_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if names[:1] == [PART]:
        os.nice(NICE)  # the guests are what is waited for
        return run(names[1:], BESIDE)
    REPORTS.mkdir(parents=True, exist_ok=True)
    for name in names:
        report_of(name).unlink(missing_ok=True)
    others = [name for name in names if name != LONGEST] if LONGEST in names else []
    begun = time.monotonic()
    with beside(others) as wait:
        status = run([name for name in names if name not in others])
        status = wait() or status
    counts = {name: Count() for name in names}
    print()
    for name, count in counts.items():
        count.add(report_of(name))
        print(
            f"{name:<7} {count.passed} passed, {count.failed} failed, {count.skipped} skipped "
            f"in {count.seconds:.0f} s"
        )
    passed, failed = (sum(getattr(c, k) for c in counts.values()) for k in ("passed", "failed"))
    print(f"{passed} passed, {failed} failed in {time.monotonic() - begun:.0f} s")
    return status or (1 if failed or not passed else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
