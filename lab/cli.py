"""The command line: one small function a verb.  Runs on the host.

The exit status is the command's for `sandbox` and `exec`, else 0; 125 is the lab's own failure.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO

from . import host, images
from .errors import DeadlineError, LabError
from .frames import CHUNK
from .guest import Guest
from .laboratory import Lab
from .sandbox import Sandbox, run_attached
from .stream import Stream

LAB_FAILED = 125
_FOREVER = 1e9
_Parser = argparse.ArgumentParser
_Verb = Callable[[argparse.Namespace], int]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _doctor(_options: argparse.Namespace) -> int:
    faults = host.doctor()
    print("\n".join(faults) or "nothing is missing")
    return 1 if faults else 0


def _build(options: argparse.Namespace) -> int:
    print(images.sandbox_root(_say))
    print(images.guest_disk("current", _say)[1])
    if options.compat:
        print(images.guest_disk("compat", _say)[1])
    return 0


def _clean(_options: argparse.Namespace) -> int:
    for path in images.clean():
        print(f"removed {path}")
    return 0


def _sandbox(options: argparse.Namespace) -> int:
    argv = options.command[1:] if options.command[:1] == ["--"] else options.command
    try:
        env = dict(pair.split("=", 1) for pair in options.env)
    except ValueError:
        raise LabError("--env wants NAME=VALUE") from None
    sandbox = Sandbox(binds=options.bind, env=env, cwd=options.cwd, progress=_say)
    return run_attached(sandbox, argv or ["bash"])


def _up(options: argparse.Namespace) -> int:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: stop.set())
    lab = Lab(
        memory_mib=options.memory, cpus=options.cpus, thp=options.thp, src_image=options.src_image,
        dst_image=options.dst_image, persistent=options.persistent, progress=_say,
    )  # fmt: skip
    with lab:
        assert lab.run_dir
        if options.rate or options.delay or options.loss:
            lab.link.shape(options.rate, options.delay, options.loss)
        for guest in lab.guests:
            print(f"{guest.name}  {guest.address}  clock {guest.clock()}  {guest.console}")
        print(f"lab {lab.run_dir.name} is up until this ends (^C); meanwhile, elsewhere:")
        print("  python3 -m lab exec src 'criu --version'", flush=True)
        while not stop.wait(1.0):
            pass
    return 0


def _attach(options: argparse.Namespace) -> Lab:
    return Lab.attach(options.lab)


def _guest(options: argparse.Namespace) -> Guest:
    lab = _attach(options)
    return lab.src if options.guest == "src" else lab.dst


def _status(options: argparse.Namespace) -> int:
    lab = _attach(options)
    assert lab.run_dir
    print(lab.run_dir)
    for guest in lab.guests:
        life = f"up  clock {guest.clock()}" if guest.running else "down"
        print(f"{guest.name}  {guest.address}  {life}")
    return 0


def _exec(options: argparse.Namespace) -> int:
    words: list[str] = options.command
    argv = ["bash", "-c", words[0]] if len(words) == 1 else words
    with_input = not sys.stdin.isatty()
    with _guest(options).spawn(argv, stdin=with_input) as command:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _frame: command.signal(number))
        if with_input:
            threading.Thread(
                target=_copy_in, args=(command.write, command.close_stdin), daemon=True
            ).start()
        copies = [
            threading.Thread(target=_copy_out, args=pair, daemon=True)
            for pair in ((command.stdout, sys.stdout.buffer), (command.stderr, sys.stderr.buffer))
        ]
        for copy in copies:
            copy.start()
        while command.running:
            try:
                command.wait(1.0)
            except DeadlineError:
                continue  # a signal is noticed between two waits
        for copy in copies:
            copy.join(10)
        return command.wait(0)


def _copy_in(write: Callable[[bytes], int], close: Callable[[], None]) -> None:
    try:
        while data := os.read(0, CHUNK):  # what there is, not a full buffer
            write(data)
        close()
    except LabError:
        pass  # the one who waits gets it too


def _copy_out(stream: Stream, target: BinaryIO) -> None:
    try:
        while line := stream.readline(_FOREVER):
            target.write(line)
            target.flush()
    except LabError:
        pass


def _put(options: argparse.Namespace) -> int:
    _guest(options).put(options.path, options.folder)
    return 0


def _get(options: argparse.Namespace) -> int:
    _guest(options).get(options.path, options.folder)
    return 0


def _shape(options: argparse.Namespace) -> int:
    link = _attach(options).link
    if options.rate or options.delay or options.loss:
        link.shape(options.rate, options.delay, options.loss)
    else:
        link.clear()
    return 0


def _cut(options: argparse.Namespace) -> int:
    _attach(options).link.cut()
    return 0


def _join(options: argparse.Namespace) -> int:
    _attach(options).link.join()
    return 0


def _power_cut(options: argparse.Namespace) -> int:
    _guest(options).power_cut()
    return 0


def _boot(options: argparse.Namespace) -> int:
    _guest(options).boot()
    return 0


def _add_shape(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--rate", type=float, metavar="MBIT", help="of each direction")
    verb.add_argument("--delay", type=float, default=0, metavar="MS", help="of each direction")
    verb.add_argument("--loss", type=float, default=0, metavar="PERCENT", help="of packets")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="python3 -m lab", description="A laboratory for live migration: see lab/README.md."
    )
    verbs = top.add_subparsers(required=True, metavar="VERB")

    def add(name: str, run: _Verb, text: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=text, description=text)
        verb.set_defaults(run=run)
        return verb

    def reach(name: str, run: _Verb, text: str, guest: bool = True) -> _Parser:
        verb = add(name, run, text)
        verb.add_argument("--lab", metavar="NAME", help="which lab, when several are up")
        if guest:
            verb.add_argument("guest", choices=["src", "dst"])
        return verb

    add("doctor", _doctor, "say what this host lacks")
    verb = add("build", _build, "build what is not built yet")
    verb.add_argument("--compat", action="store_true", help="the compat guest's disk too")
    add("clean", _clean, "remove what other recipes than the present ones built")

    verb = add("sandbox", _sandbox, "run a command in a new sandbox")
    verb.add_argument("--bind", action="append", default=[], metavar="SRC:DST[:ro]")
    verb.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    verb.add_argument("--cwd", default="/root", metavar="DIR")
    verb.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD...")

    verb = add("up", _up, "boot both guests and keep them up until ^C")
    verb.add_argument("--memory", type=int, default=2048, metavar="MIB", help="of each guest")
    verb.add_argument("--cpus", type=int, default=1, help="of each guest; more are not stable")
    verb.add_argument("--thp", choices=["never", "madvise", "always"], default="never")
    verb.add_argument("--persistent", action="store_true", help="disks outlive a power cut")
    verb.add_argument("--src-image", choices=["current", "compat"], default="current")
    verb.add_argument("--dst-image", choices=["current", "compat"], default="current")
    _add_shape(verb)

    reach("status", _status, "say which lab is up, and what its guests do", guest=False)
    verb = reach("exec", _exec, "run a command: one word is a shell line, several an argv")
    verb.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD...")
    for name, run, text in (
        ("put", _put, "copy files and folders into a folder of the guest"),
        ("get", _get, "copy files and folders of the guest into a folder"),
    ):
        verb = reach(name, run, text)
        verb.add_argument("path", nargs="+")
        verb.add_argument("folder")
    reach("power-cut", _power_cut, "kill the guest as if its power failed")
    reach("boot", _boot, "boot the guest again")
    verb = reach("shape", _shape, "shape the link; with no option, clear it", guest=False)
    _add_shape(verb)
    reach("cut", _cut, "pull the link's cable", guest=False)
    reach("join", _join, "plug the link's cable in again", guest=False)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    top = parser()
    options = top.parse_args(argv)
    if getattr(options, "command", None) == [] and options.run is _exec:
        top.error("exec: no command")
    try:
        status: int = options.run(options)
    except LabError as error:
        _say(f"lab: {error}")
        return LAB_FAILED
    return status
