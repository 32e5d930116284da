"""Keeps the kernel's scheduling hooks for perf events on, so that no dump or restore waits for it.

Used on both hosts, from before the first freeze to the end.  CRIU stops its parasite, and what it
restores, at a hardware breakpoint, which is a perf event.  The first one after a second without any
waits for an RCU grace period (account_event() in the kernel's kernel/events/core.c): 13 ms natively
in each dump, in which the process is down.  An event of our own, that counts nothing, spares that.
"""

import ctypes
import os
import platform
import struct
import threading
from typing import Final

__all__ = ["PerfHooks"]

_PERF_EVENT_OPEN: Final = {"x86_64": 298, "aarch64": 241}
_SOFTWARE: Final = 1
_DUMMY: Final = 9
"""PERF_TYPE_SOFTWARE and PERF_COUNT_SW_DUMMY, include/uapi/linux/perf_event.h."""
_SIZE: Final = 64
"""PERF_ATTR_SIZE_VER0: what every kernel knows of struct perf_event_attr."""
_DISABLED: Final = 1
_CLOEXEC: Final = 8
_JOIN_S: Final = 10.0


class PerfHooks:
    """Has them on between `on` and `off`; where that may not be, CRIU waits as it always does."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._thread: threading.Thread | None = None

    def on(self) -> None:
        """Switch them on, beside what comes next: this one waits for the kernel."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._open, name="phaul-perf", daemon=True)
            self._thread.start()

    def off(self) -> None:
        """Let go of them; what `on` has begun is waited for."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(_JOIN_S)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        number = _PERF_EVENT_OPEN.get(platform.machine())
        if number is None:
            return
        # type, size, config; three fields of no use here; the flags; two more.
        attributes = struct.pack("=IIQ3QQ2Q", _SOFTWARE, _SIZE, _DUMMY, 0, 0, 0, _DISABLED, 0, 0)
        syscall = ctypes.CDLL(None).syscall
        syscall.restype = ctypes.c_long
        # Of the main thread, which outlives this one; on no processor in particular, in no group.
        nowhere = ctypes.c_long(-1)
        event = syscall(number, attributes, os.getpid(), nowhere, nowhere, ctypes.c_ulong(_CLOEXEC))
        self._descriptor = int(event)
