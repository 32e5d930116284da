"""How the world of `model` may go wrong, and the rules that are broken on purpose to see it."""

from enum import Enum

__all__ = ["Flaw", "LeftOver", "Lost", "TwoCopies", "TwoHistories", "Violation"]


class Violation(AssertionError):
    """The world is not as it must be."""


class TwoCopies(Violation):
    """Tasks run on both hosts."""


class TwoHistories(Violation):
    """The copy ran, and so did a task of the source since the dump it was made of."""


class Lost(Violation):
    """It is held and runs nowhere, and the journals do not lead back to all of it."""


class LeftOver(Violation):
    """All is over, and something is still held, kept or unfinished."""


class Flaw(Enum):
    """A rule that is broken on purpose, to see that the check finds it."""

    COMMIT_BEFORE_KILL = "Commit is sent before the tree is killed"
    LOCK_LETS_GO = "the second lock is written down and holds nothing"
    HOLD_NOT_SEEN = "LOCKED is written although CRIU may have let go before the lock was whole"
    LOCKED_UNSYNCED = "Restore is sent before LOCKED is on the disk"
    DECIDED_UNSYNCED = "without second lock, the kill does not wait for the disk"
    BACK_UNSYNCED = "the tree is let go before BACK is on the disk"
    READY_UNSYNCED = "Ready is said before it is on the disk"
    IMAGES_UNSYNCED = "Ready is said before the images are on the disk"
    RELEASING_AFTER = "the copy is let go before RELEASING is written"
    LEASE_DROPS_IMAGES = "the lease ends the copy, and its images too"
    BYE_BEFORE_THERE = "the destination forgets before THERE is on the source's disk"
    COMMIT_AFTER_DISCARD = "rolled back, it sends Commit once more"
    RESUME_WITHOUT_ROOT = "resolve resumes a tree whose root was killed"
