"""What programs may have, what is to be found of each, and what the real CRIU says to it.

`code` runs with `libc`, `got` (raises what a call of it refused) and `here`, a directory.
"""

from dataclasses import dataclass

from phaul.plan import Tcp, Wishes
from phaul.protocol.preflight import Level

__all__ = ["CASES", "TCP", "Case"]


@dataclass(frozen=True)
class Case:
    """What a program has, what is to be found of it, and why CRIU refuses it ("": it does not)."""

    code: str
    check: str
    level: Level
    said: str
    refuses: str
    wishes: Wishes = Wishes()  # noqa: RUF009 -- it is frozen


TCP = """
listener = socket.create_server(("127.0.0.1", 0))
near = socket.create_connection(listener.getsockname())
far, _ = listener.accept()
"""
GHOST = """
file = open(here + "/ghost", "w+b")
file.write(os.urandom(3 << 20))
file.flush()
os.unlink(here + "/ghost")
"""
CASES = {
    "tcp": Case(
        TCP, "tcp", Level.NO, "2 established TCP connections: 127.0.0.1:", "Connected TCP socket"
    ),
    "tcp kept": Case(TCP, "tcp", Level.OK, "taken along", "", Wishes(tcp=Tcp.KEEP)),
    "tcp closed": Case(TCP, "tcp", Level.OK, "closed", "", Wishes(tcp=Tcp.CLOSE)),
    "listener": Case(
        "s = socket.create_server(('0.0.0.0', 0))", "tcp", Level.OK, "no established", ""
    ),
    "udp": Case(
        "s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0))",
        "sockets", Level.OK, "1 socket", "",
    ),
    "unix pair": Case("a, b = socket.socketpair()", "unix", Level.OK, "2 unix sockets", ""),
    "unix, closed by the other": Case(
        "a, b = socket.socketpair(); b.close()", "unix", Level.OK, "1 unix socket", ""
    ),
    "unix, not accepted yet": Case(
        "l = socket.socket(socket.AF_UNIX); l.bind(here + '/s'); l.listen()\n"
        "c = socket.socket(socket.AF_UNIX); c.connect(here + '/s')",
        "unix", Level.OK, "2 unix sockets", "",
    ),
    "netlink": Case(
        "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); s.bind((0, 1))",
        "sockets", Level.OK, "1 socket", "",
    ),
    "netlink, a high group": Case(
        "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); s.bind((0, 0))\n"
        "s.setsockopt(270, 1, 33)",
        "sockets", Level.NO, "group 33", "netlink: ",
    ),
    "packet": Case(
        "s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "sockets", Level.OK, "1 socket", "",
    ),
    "vsock": Case(
        "s = socket.socket(socket.AF_VSOCK)",
        "sockets", Level.NO, "AF_VSOCK", "Unknown socket collected (family 40)"
    ),
    "mptcp": Case(
        "s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)",
        "sockets", Level.NO, "MPTCP", "Unsupported proto 262",
    ),
    "io_uring": Case(
        "ring = got(libc.syscall(425, 8, ctypes.create_string_buffer(120)))",
        "descriptors", Level.NO, "io_uring", "send_fds failed",
    ),
    "userfaultfd": Case(
        "fd = got(libc.syscall(323, 0))",
        "descriptors", Level.NO, "userfaultfd", "anon_inode:[userfaultfd]"
    ),
    "perf event": Case(
        "event = bytearray(128); event[0] = 1; event[4] = 128\n"
        "fd = got(libc.syscall(298, (ctypes.c_char * 128).from_buffer(event), 0, -1, -1, 0))",
        "descriptors", Level.NO, "perf event", "anon_inode:[perf_event]",
    ),
    "pidfd of its own": Case(
        "fd = os.pidfd_open(os.getpid())", "descriptors", Level.OK, "1 other", ""
    ),
    "pidfd of another": Case(
        "fd = os.pidfd_open(os.getppid())",
        "descriptors", Level.NO, "outside of the tree", "is not a part of process tree"
    ),
    "harmless ones": Case(
        "import select\nfds = [os.eventfd(0), select.epoll(), os.memfd_create('x'), os.pipe()]",
        "descriptors", Level.OK, "3 other descriptors", "",
    ),
    "a packet pipe": Case(
        "fds = os.pipe2(os.O_DIRECT)", "descriptors", Level.NO, "packet mode", "packetized mode"
    ),
    "inotify": Case(
        "fd = got(libc.inotify_init())\ngot(libc.inotify_add_watch(fd, here.encode(), 2))",
        "inotify", Level.OK, "1 watch", "",
    ),
    "inotify of what was removed": Case(
        "kept = open(here + '/w', 'w'); fd = got(libc.inotify_init())\n"
        "got(libc.inotify_add_watch(fd, (here + '/w').encode(), 2))\nos.unlink(here + '/w')",
        "inotify", Level.NO, "not to be found", "Can't find suitable path",
    ),
    "fanotify": Case(
        "fd = got(libc.fanotify_init(0, 0))\n"
        "got(libc.fanotify_mark(fd, 1, ctypes.c_uint64(2), -100, here.encode()))",
        "inotify", Level.OK, "1 watch", "",
    ),
    "unlinked": Case(GHOST, "unlinked", Level.NO, "3.0 MiB", "Can't dump ghost file"),
    "unlinked, allowed": Case(
        GHOST, "unlinked", Level.NO, "3.0 MiB", "", Wishes(allow=frozenset({"unlinked"}))
    ),
    "unlinked, small": Case(
        "f = open(here + '/x', 'w'); os.unlink(here + '/x')",
        "unlinked", Level.OK, "1 unlinked", "",
    ),
    "renamed over": Case(
        "f = open(here + '/x', 'w'); os.rename(here + '/x', here + '/y'); os.link(here + '/y', "
        "here + '/z'); g = open(here + '/y'); os.unlink(here + '/y')",
        # CRIU makes the link that the restore needs, here; another machine does not have it.
        "unlinked", Level.NO, "has another one", "",
    ),
    "flock": Case(
        "f = open(here + '/l', 'w'); fcntl.flock(f, fcntl.LOCK_EX)",
        "locks", Level.OK, "1 file lock", "",
    ),
    "posix lock": Case(
        "f = open(here + '/l', 'w'); fcntl.lockf(f, fcntl.LOCK_EX)",
        "locks", Level.OK, "1 file lock", "",
    ),
    "a terminal of its own": Case("fds = os.openpty()", "terminal", Level.OK, "own session", ""),
    "a master alone": Case(
        "m, s = os.openpty(); os.close(s)", "terminal", Level.OK, "own session", ""
    ),
    "devices": Case(
        "fds = [os.open('/dev/' + n, os.O_RDONLY) for n in ('null', 'zero', 'full', 'urandom')]",
        "devices", Level.OK, "/dev/full, /dev/null, /dev/urandom, /dev/zero", "",
    ),
    "locked memory": Case(
        "m = mmap.mmap(-1, 1 << 20)\n"
        "got(libc.mlock(ctypes.byref(ctypes.c_char.from_buffer(m)), ctypes.c_size_t(1 << 20)))",
        "locked", Level.WARNING, "1.0 MiB of locked memory", "",
    ),
    "system v memory": Case(
        "libc.shmat.restype = ctypes.c_void_p\n"
        "n = got(libc.shmget(0, 4096, 0o1600)); p = libc.shmat(n, None, 0)\n"
        "got(libc.shmctl(n, 0, None))",
        "namespaces", Level.NO, "System V", "SysVIPC",
    ),
    "a nested namespace": Case(
        "import signal\nif os.fork() == 0:\n    os.unshare(os.CLONE_NEWUTS); signal.pause()\n"
        "time.sleep(0.2)",
        "namespaces", Level.NO, "another uts namespace", "nested uts namespace",
    ),
    "a removed working directory": Case(
        "os.mkdir(here + '/gone'); os.chdir(here + '/gone'); os.rmdir(here + '/gone')",
        "directories", Level.WARNING, "was removed", "",
    ),
}  # fmt: skip
