"""Judges the other descriptors of a tree: watches, anonymous inodes, pipes, terminals.

Used in preflight, on the source.  Pure.  By CRIU's `files.c`, `fsnotify.c`, `pipes.c`, `pidfd.c`,
`tty.c` and `pstree.c` (4.1 to 4.2).

Terminals: with `shell_job` CRIU gives the restored tree the session of whoever restores, and its
terminal, which must be the standard input.  The agent has none, so a tree that has a terminal of
others open is refused.  One that merely is in a session of others is moved into the agent's, and
loses nothing by it but its controlling terminal.
"""

from collections.abc import Iterable
from typing import Final

from phaul.facts import Special, Survey, Watch
from phaul.plan.judges.words import Verdict, count, held, shown
from phaul.protocol.preflight import Finding

__all__ = ["judge_descriptors"]

_TAKEN: Final = frozenset(
    {"eventfd", "eventpoll", "inotify", "fanotify", "signalfd", "timerfd", "pidfd"}
)
_NAMES: Final = {
    "io_uring": "io_uring",
    "userfaultfd": "userfaultfd",
    "perf_event": "a perf event",
    "bpf-prog": "a BPF program",
    "bpf_link": "a BPF link",
    "bpf-link": "a BPF link",
    "btf": "BPF type information",
    "kvm-vm": "a KVM machine",
    "landlock-ruleset": "a Landlock ruleset",
    "seccomp notify": "seccomp notifications",
}
_REMEDIES: Final = {
    "io_uring": "have the process use epoll: many programs have a switch for that, or do so by "
    "themselves with the sysctl kernel.io_uring_disabled=2 at their start",
    "kvm-vm": "move the virtual machine by its own means",
}


def judge_descriptors(survey: Survey) -> Iterable[Finding]:
    """Findings of terminal, inotify and descriptors."""
    yield from _terminal(survey)
    yield from _inotify(survey)
    yield from _descriptors(survey)


def _terminal(survey: Survey) -> Iterable[Finding]:
    verdict = Verdict("terminal")
    detached = "`setsid PROGRAM </dev/null >LOG 2>&1 &`"
    outside = survey.outside_terminals
    for terminal in outside:
        verdict.no(
            f"{shown(terminal.path)} ({held(terminal)}) is a terminal whose other side is outside "
            "of the tree",
            f"start it detached, {detached}, or move the tree of the terminal (tmux, screen) too",
        )
    for terminal in survey.terminals:
        if terminal.role == "other":
            verdict.no(
                f"{shown(terminal.path)} ({held(terminal)}) is a serial line that CRIU cannot dump",
                "have the process close it",
            )
        elif terminal.role in {"console", "virtual", "serial"} and terminal not in outside:
            verdict.warn(
                f"{shown(terminal.path)} ({held(terminal)}) will be the destination's own",
            )
    if survey.joins_session:
        root = survey.root_process
        verdict.warn(
            f"PID {root.pid} is in session {root.session or 'of others'}, whose leader is not in "
            "the tree: over there it joins the session of phaul's agent (shell_job)",
            f"to keep a session of its own, start it by {detached}",
        )
    return verdict.close("its own session, no terminal from outside")


def _inotify(survey: Survey) -> Iterable[Finding]:
    verdict = Verdict("inotify")
    for watch in survey.watches:
        if watch.of == "filesystem":
            verdict.warn(
                f"a {watch.by} mark of a whole file system ({held(watch)}) is lost: CRIU passes "
                "over it",
                "mark the mount, or a directory",
            )
        elif not watch.path:
            verdict.no(
                f"what {held(watch)} watches by {watch.by} is not to be found by any path",
                _watch_remedy(watch),
            )
    if not survey.watches:
        return verdict.close("no watches")
    return verdict.close(f"{count(len(survey.watches), 'watch', 'watches')}, each found again")


def _watch_remedy(watch: Watch) -> str:
    if watch.of == "mount":
        return "have the process remove the mark of a mount that is gone"
    return (
        "have the process drop the watch of what was removed, or of what lies on an overlay, whose "
        "file handles cannot be opened"
    )


def _descriptors(survey: Survey) -> Iterable[Finding]:
    verdict = Verdict("descriptors")
    for special in survey.specials:
        _special(verdict, special)
    for pipe in survey.pipes:
        what = f"the fifo {shown(pipe.path)}" if pipe.path else "a pipe"
        if pipe.packets:
            verdict.no(
                f"{what} ({held(pipe)}) is in packet mode (O_DIRECT), which CRIU cannot dump",
                "have the process close it",
            )
        elif pipe.path and pipe.reads != pipe.writes:
            verdict.warn(
                f"{what} ({held(pipe)}) has its other end outside of the tree: whoever opens it "
                "there is the other end then",
            )
        elif pipe.writes and not pipe.reads:
            verdict.no(
                f"{what} that PID {pipe.pid} writes (fd {pipe.fd}) is read outside of the tree: "
                "over there SIGPIPE would end the writer",
                "send its output to a file, or move the tree that has the reader too",
            )
        elif pipe.reads and not pipe.writes:
            verdict.warn(
                f"{what} that PID {pipe.pid} reads (fd {pipe.fd}) is written outside of the tree: "
                "over there it is at its end",
                "start it with `</dev/null` if that is its standard input",
            )
    number = len(survey.specials) + len(survey.pipes)
    return verdict.close(
        f"{count(number, 'other descriptor')} of kinds that can be dumped"
        if number
        else "no other descriptors"
    )


def _special(verdict: Verdict, special: Special) -> None:
    kind = special.kind
    close = "have the process close it"
    if kind == "pidfd" and special.thread:
        verdict.no(f"a pidfd of a thread ({held(special)}) cannot be dumped", close)
    elif kind == "pidfd" and not special.inside:
        verdict.no(
            f"a pidfd ({held(special)}) is of process {special.target}, outside of the tree", close
        )
    elif kind == "bpf-map":
        verdict.warn(
            f"a BPF map ({held(special)}) is taken only if it is a hash or an array", close
        )
    elif special.target and kind != "pidfd":
        if not special.inside:
            verdict.no(
                f"a {shown(kind)} namespace ({held(special)}) is none of the tree's own", close
            )
    elif kind not in _TAKEN:
        name = _NAMES.get(kind, f"a descriptor of the kind {shown(kind)}")
        verdict.no(f"{name} ({held(special)}) has no image", _REMEDIES.get(kind, close))
