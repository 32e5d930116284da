"""khugepaged, the kernel's thread that puts small pages together to huge ones, is made to wait.

Used on the source in a pre-copy whose huge pages are split, and by whoever comes after a phaul that
died.  It is the whole machine's: meanwhile no process gets huge pages by it.  What is faulted in
anew still may, here and elsewhere: that is why it is its pace that is changed, and not
`transparent_hugepage/enabled`.  That would also not reach memory with MADV_HUGEPAGE.

Several phauls may want it to wait at a time.  Each writes down the pace that it has found before it
changes it, and gives that back only if it still waits; who finds it waiting changes nothing.  One
whose wait was ended by another's end makes it wait anew, at its next round.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from phaul.errors import SubjectError
from phaul.subjects.proc import HOST

__all__ = ["WAITS_MS", "Khugepaged", "Pace"]

Pace = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
"""Milliseconds from one look to the next; 10,000 is usual."""

WAITS_MS: Final = 86_400_001
"""A day, and a millisecond that nobody else would choose."""


@dataclass(frozen=True)
class Khugepaged:
    """khugepaged of this host; another /sys is for tests."""

    sys: Path = Path("/sys")

    @property
    def file(self) -> Path:
        """Where its pace is."""
        folder = self.sys / "kernel/mm/transparent_hugepage/khugepaged"
        return folder / "scan_sleep_millisecs"

    def available(self) -> None:
        """Raise SubjectError if it could not be made to wait now; nothing is changed."""
        self.pace()
        try:
            self.file.open("r+b").close()
        except OSError as error:
            raise self._refused(error) from error

    def pace(self) -> int:
        """Its pace in milliseconds; raises SubjectError if that cannot be read."""
        try:
            return int(self.file.read_text())
        except (OSError, ValueError) as error:
            raise SubjectError(
                f"khugepaged does not say its pace: {error}", host=HOST, remedy=_REMEDY
            ) from error

    def wait(self) -> None:
        """Have it wait; raises SubjectError.

        A look that it is taking just now is seen to its end, and one may follow.
        """
        self._set(WAITS_MS)

    def resume(self, pace: int) -> None:
        """Have it go on at the pace that it had, if it still waits; raises SubjectError."""
        if self.file.exists() and self.pace() == WAITS_MS:
            self._set(pace)

    def _set(self, pace: int) -> None:
        try:
            with self.file.open("r+b", buffering=0) as file:
                file.write(b"%d" % pace)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> SubjectError:
        return SubjectError(
            f"khugepaged cannot be made to wait: {self.file}: {error.strerror}",
            host=HOST,
            remedy=_REMEDY,
        )


_REMEDY: Final = "run phaul as root, where /sys can be written, or leave out --split-huge-pages"
