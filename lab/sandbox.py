"""The native, fast environment: a shared read-only Debian root in namespaces of its own.

Runs on the host, as root.  The host's kernel runs the command, with the sandbox's own mount,
PID, network, IPC, UTS and cgroup namespaces; see warden.py for who watches over whom.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import host, images, warden
from .errors import DeadlineError, SandboxError
from .result import Result

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
_WARDEN = Path(warden.__file__).resolve()
_END_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or folder of the host that is seen in the sandbox."""

    source: Path
    target: str
    read_only: bool = False

    @classmethod
    def parse(cls, text: str) -> "Bind":
        """Read `SRC:DST` or `SRC:DST:ro`.

        Raises:
            SandboxError: it is neither.
        """
        match text.split(":"):
            case [source, target]:
                return cls(Path(source), target)
            case [source, target, "ro"]:
                return cls(Path(source), target, read_only=True)
        raise SandboxError(f"bind {text!r}: not SRC:DST or SRC:DST:ro")


class SandboxProcess(subprocess.Popen[bytes]):
    """The running command of a sandbox.

    Its streams and its status (128 + N for signal N) are the command's; signals sent to it
    are forwarded to the command's process group.  Its PID is the warden's, on the host.
    """

    def end(self) -> int:
        """Kill all that is in the sandbox; return the status when it is gone."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, warden.END_SIGNAL)
        try:
            return self.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()  # init then dies by its parent-death signal
            return self.wait(_END_TIMEOUT)

    def __exit__(self, *_exception: object) -> None:
        """End the sandbox and close the streams."""
        self.end()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@dataclass(frozen=True)
class Sandbox:
    """How commands see their machine.  Each `run` or `popen` is a new sandbox.

    The root is read-only; /run, /tmp, /var/tmp, /root and /dev are empty tmpfs.  The network
    has only `lo`.  `binds` are `Bind`s, or `SRC:DST[:ro]` texts.
    """

    binds: Sequence[Bind | str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/root"
    progress: Callable[[str], None] | None = None

    def popen(
        self,
        argv: Sequence[str],
        *,
        pass_fds: Iterable[int] = (),
        session: bool = True,
        **options: Any,  # noqa: ANN401
    ) -> SandboxProcess:
        """Start a command; returns when it is running.

        Args:
            argv: the program, looked up in the sandbox's PATH, and its arguments.
            pass_fds: descriptors the command keeps, under the same numbers.
            session: give the command a session of its own, without which CRIU dumps nothing;
                False keeps the caller's terminal and process group.
            options: `stdin`, `stdout`, `stderr`, `bufsize`, ... as for `subprocess.Popen`.
                Without `stdin` the command has /dev/null, opened inside the sandbox.

        Raises:
            SandboxError: the sandbox was not set up or the command not started.
        """
        host.require_root()
        root = images.sandbox_root(self.progress or (lambda _line: None))
        binds = [bind if isinstance(bind, Bind) else Bind.parse(bind) for bind in self.binds]
        if options.get("stdin") is None and session:
            options["stdin"] = subprocess.DEVNULL
        inside, outside = os.pipe()
        kept = tuple(pass_fds)
        config = {
            "argv": [str(word) for word in argv],
            "binds": [[str(bind.source.resolve()), bind.target, bind.read_only] for bind in binds],
            "cwd": self.cwd,
            "env": {**_ENVIRONMENT, **self.env},
            "errors": outside,
            "null_stdin": options.get("stdin") == subprocess.DEVNULL,
            "owner": os.getpid(),
            "pass_fds": kept,
            "root": str(root),
            "session": session,
        }
        settings = os.memfd_create("sandbox")  # not the command line, which `ps` shows
        try:
            os.pwrite(settings, json.dumps(config).encode(), 0)
            process = SandboxProcess(
                [sys.executable, "-I", "-S", str(_WARDEN), str(settings)],
                pass_fds=(*kept, outside, settings),
                **options,
            )
        except BaseException:
            os.close(inside)
            raise
        finally:
            os.close(outside)
            os.close(settings)
        with open(inside, "rb") as errors:  # noqa: PTH123 (a descriptor); ends when the command runs
            message = errors.read().decode(errors="replace")
        if message:
            with process:
                process.end()
            raise SandboxError(f"sandbox on {root}: {message}")
        return process

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 60.0,
        check: bool = False,
    ) -> Result:
        """Run a command to its end, and end what it left running.

        Raises:
            SandboxError: the sandbox was not set up or the command not started.
            DeadlineError: the timeout passed; all in the sandbox has been killed.
            CommandError: with `check`, the status is not 0.
        """
        source = subprocess.PIPE if stdin else subprocess.DEVNULL
        pipe = subprocess.PIPE
        with self.popen(argv, stdin=source, stdout=pipe, stderr=pipe) as process:
            try:
                stdout, stderr = process.communicate(stdin or None, timeout)
            except subprocess.TimeoutExpired:
                process.end()
                stdout, stderr = process.communicate(timeout=_END_TIMEOUT)
                output = (stderr or stdout).decode(errors="replace")[-2000:]
                raise DeadlineError(
                    f"sandbox: {' '.join(argv)!r} took over {timeout:.1f} s, killed: {output}"
                ) from None
        result = Result("sandbox", tuple(argv), process.returncode, stdout, stderr)
        return result.check() if check else result


def run_attached(sandbox: Sandbox, argv: Sequence[str]) -> int:
    """Run a command on this process's own streams; return its status.

    On a terminal the command shares our process group, so that ^C reaches it; otherwise it
    has a session of its own and our signals are forwarded.
    """
    terminal = os.isatty(0)
    process: SandboxProcess | None = None
    early: list[int] = []

    def forward(number: int, _frame: object) -> None:
        if terminal and number == signal.SIGINT:
            return  # the command got it too
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    # Before the start: a command may be heard, and interrupted, before `popen` has returned.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, forward)
    process = sandbox.popen(argv, session=not terminal, stdin=0)
    for caught in early:
        process.send_signal(caught)
    status = process.wait()
    return status if status >= 0 else 128 - status  # the warden itself was killed
