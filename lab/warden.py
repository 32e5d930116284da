"""The process that sets a sandbox up, watches over it and ends with its status.

Runs on the host, by its path: `python3 -I -S warden.py FD`, where FD has its settings.  It knows
no other module of the lab, since it must not import once the root has changed.  Three processes:

    warden   on the host's side; leaves with the command's status
      init   PID 1 of the sandbox; reaps
        command

If the owner ends, its pidfd wakes the warden, which kills init.  If the warden is killed, init
dies by its parent-death signal.  If init dies, the kernel kills all in its PID namespace,
and the mounts go with the namespace.  The warden and init each have a single thread, which
matters: a parent-death signal is sent when the parent's *thread* ends.
"""

# pathlib is slow to import, and the start of every sandbox would wait for it.
# ruff: noqa: PTH101, PTH102, PTH103, PTH110, PTH115, PTH116, PTH120, PTH123, PTH211

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable
from typing import Any, NoReturn

END_SIGNAL = signal.SIGRTMIN
"""Sent to the warden: kill all in the sandbox, wait until it is gone, leave."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1,
             signal.SIGUSR2, signal.SIGWINCH)  # fmt: skip
CGROUP_PREFIX = "lab-sandbox-"
SETUP_FAILED = 125

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
SYS_PIVOT_ROOT = 155  # x86-64; the C library has no wrapper
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

WRITABLE = ("run", "tmp", "var/tmp", "root", "dev")
_libc = ctypes.CDLL(None, use_errno=True)


def _check(value: int, what: str) -> None:
    if value < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def _unshare(flags: int) -> None:
    _check(_libc.unshare(ctypes.c_int(flags)), f"unshare {flags:#x}")


def _mount(source: str, target: str, kind: str | None, flags: int = 0, data: str = "") -> None:
    _check(
        _libc.mount(source.encode(), target.encode(), kind.encode() if kind else None,
                    ctypes.c_ulong(flags), data.encode()),
        f"mount {source} on {target}",
    )  # fmt: skip


def _die_with_parent() -> None:
    _check(_libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "prctl")


def start_time(pid: int) -> str:
    """Return the process's start time, which tells it from a later one with its PID."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[19]


def _remove_cgroup(parent: int, name: str) -> None:
    """Remove a cgroup and those below it, as far as nobody is in them."""
    with contextlib.suppress(OSError):
        handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=parent)
        try:
            for entry in os.scandir(handle):
                if entry.is_dir(follow_symlinks=False):
                    _remove_cgroup(handle, entry.name)
        finally:
            os.close(handle)
        os.rmdir(name, dir_fd=parent)


def _make_cgroup(top: int) -> str:
    """Make this sandbox's cgroup, and remove those whose warden was killed."""
    for name in os.listdir(top):
        if name.startswith(CGROUP_PREFIX):
            pid, _, started = name.removeprefix(CGROUP_PREFIX).partition("-")
            try:
                stale = start_time(int(pid)) != started
            except (OSError, ValueError):
                stale = True
            if stale:
                _remove_cgroup(top, name)
    name = f"{CGROUP_PREFIX}{os.getpid()}-{start_time(os.getpid())}"
    os.mkdir(name, dir_fd=top)
    return name


def _bind(source: str, target: str, read_only: bool) -> None:
    _mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        # A remount must repeat the flags the file system has; these are all the kernel locks.
        flags = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
        _mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | flags)


def _make_target(source: str, target: str) -> None:
    """Make the file or folder that a bind mount needs to sit on."""
    if stat.S_ISDIR(os.stat(source).st_mode):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))


def _fill_dev(dev: str) -> None:
    nodes = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8),
             "urandom": (1, 9), "tty": (5, 0)}  # fmt: skip
    os.mkdir(f"{dev}/net")
    nodes["net/tun"] = (10, 200)  # CRIU logs an error without it
    for name, number in nodes.items():
        os.mknod(f"{dev}/{name}", stat.S_IFCHR | 0o666, os.makedev(*number))
        os.chmod(f"{dev}/{name}", 0o666)
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0",
             "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}  # fmt: skip
    for name, goal in links.items():
        os.symlink(goal, f"{dev}/{name}")
    os.mkdir(f"{dev}/pts")
    os.mkdir(f"{dev}/shm")
    options = "newinstance,mode=620,gid=5,ptmxmode=666"
    _mount("devpts", f"{dev}/pts", "devpts", MS_NOSUID | MS_NOEXEC, options)
    _mount("tmpfs", f"{dev}/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")


def _build_root(config: dict[str, Any]) -> None:
    """Assemble the sandbox's root and make it the root of this mount namespace."""
    image, root = config["root"], config["root"] + "/mnt"
    # A tmpfs with the image's folders bound into it: binds may then have mount points anywhere
    # at the top although the image, which is shared, is never written.
    _mount("tmpfs", root, "tmpfs", 0, "mode=755")
    for entry in os.scandir(image):
        target = f"{root}/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
            continue
        os.mkdir(target)
        if entry.name in ("usr", "etc", "var"):
            _bind(entry.path, target, read_only=True)
    for name in WRITABLE:
        mode = "1777" if name.endswith("tmp") else "755"
        _mount("tmpfs", f"{root}/{name}", "tmpfs", 0, f"mode={mode}")
    _fill_dev(f"{root}/dev")
    _mount("sysfs", f"{root}/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for source, target, read_only in config["binds"]:
        place = root + "/" + target.lstrip("/")
        try:
            _make_target(source, place)
        except OSError as error:
            raise OSError(
                error.errno,
                f"bind {source} on {target}: {error.strerror}: the target must exist in "
                f"the image, or lie at the top or under /{', /'.join(WRITABLE)}",
            ) from None
        _bind(source, place, read_only)
    os.chdir(root)
    _check(_libc.syscall(ctypes.c_long(SYS_PIVOT_ROOT), b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount the old root")
    os.chdir("/")


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        (flags,) = struct.unpack_from("h", request, 16)
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def _silence(null: int, *numbers: int) -> None:
    """Give up our copies of the command's streams, so that only the command holds them."""
    for number in numbers:
        os.dup2(null, number)


def _run_command(config: dict[str, Any], errors: int, null: int) -> NoReturn:
    """Become the command."""
    try:
        for number in (*FORWARDED, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if config["session"]:
            os.setsid()
        if config["null_stdin"]:
            os.dup2(null, 0)
        os.chdir(config["cwd"])
        os.environ.clear()
        os.environ.update(config["env"])
        os.execvpe(config["argv"][0], config["argv"], config["env"])
    except BaseException as error:
        os.write(errors, f"{config['argv'][0]}: {error}".encode())
    os._exit(127)


def _init(config: dict[str, Any], talk: socket.socket, cgroups: int, name: str, errors: int) -> int:
    """Be PID 1: finish the set-up, start the command, reap until it ends."""
    _die_with_parent()
    talk.send(b"i")  # the warden answers only if it still lived after the line above
    if talk.recv(1) != b"w":
        return SETUP_FAILED
    talk.close()
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    join = os.open(f"{name}/cgroup.procs", os.O_WRONLY, dir_fd=cgroups)
    os.write(join, b"0")
    os.close(join)
    os.close(cgroups)
    _unshare(CLONE_NEWCGROUP)
    _mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _mount("none", "/", None, MS_REMOUNT | MS_RDONLY, "mode=755")
    _raise_loopback()
    socket.sethostname("sandbox")
    null = os.open("/dev/null", os.O_RDWR)
    command = 0

    def forward(number: int, _frame: object) -> None:
        if command:
            with contextlib.suppress(OSError):
                # A command with a session of its own is the leader of its group.
                (os.killpg if config["session"] else os.kill)(command, number)

    for number in FORWARDED:
        # On a terminal the command is in our process group and gets ^C from the terminal itself.
        typed = not config["session"] and number in (signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH)
        signal.signal(number, signal.SIG_IGN if typed else forward)
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    command = os.fork()
    if command == 0:
        _run_command(config, errors, null)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    os.close(errors)
    _silence(null, 0, 1, 2)
    for number in config["pass_fds"]:
        os.close(number)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == command:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _watch(init: int, owner: int) -> int:
    """Wait for init; kill it when the owner ends.  Returns the exit status."""
    init_handle = os.pidfd_open(init)
    poll = select.poll()
    poll.register(init_handle, select.POLLIN)
    poll.register(owner, select.POLLIN)

    def end(_number: int, _frame: object) -> None:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(init_handle, signal.SIGKILL)

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(init_handle, number)

    signal.signal(END_SIGNAL, end)
    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*FORWARDED, END_SIGNAL))
    while True:
        ready = [handle for handle, _ in poll.poll()]
        if init_handle in ready:
            _, status = os.waitpid(init, 0)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        end(0, None)
        poll.unregister(owner)


def _guarded(errors: int, body: Callable[[], int]) -> int:
    try:
        return body()
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(errors, f"setting up: {error}".encode())
        return SETUP_FAILED


def _warden(config: dict[str, Any]) -> int:
    errors: int = config["errors"]
    os.set_inheritable(errors, False)
    owner = os.pidfd_open(config["owner"])
    if os.getppid() != config["owner"]:
        return SETUP_FAILED  # it ended before we looked
    signal.pthread_sigmask(signal.SIG_BLOCK, (*FORWARDED, END_SIGNAL))
    null = os.open("/dev/null", os.O_RDWR)
    _unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    # The host's own cgroup2 mount may be anywhere: a private one, unmounted at once, whose
    # top folder stays reachable by its descriptor.
    place = config["root"] + "/mnt"
    _mount("cgroup2", place, "cgroup2")
    cgroups = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    _check(_libc.umount2(place.encode(), MNT_DETACH), "umount cgroup2")
    name = _make_cgroup(cgroups)
    try:
        _build_root(config)
        ours, theirs = socket.socketpair()
        init = os.fork()
        if init == 0:
            ours.close()
            os._exit(_guarded(errors, lambda: _init(config, theirs, cgroups, name, errors)))
        theirs.close()
        with ours:
            if ours.recv(1) == b"i":
                ours.send(b"w")
        os.close(errors)
        _silence(null, 0, 1, 2)
        for number in config["pass_fds"]:
            os.close(number)
        return _watch(init, owner)
    finally:
        _remove_cgroup(cgroups, name)


if __name__ == "__main__":
    with open(int(sys.argv[1]), "rb") as file:
        settings = json.loads(file.read())
    os._exit(_guarded(settings["errors"], lambda: _warden(settings)))
