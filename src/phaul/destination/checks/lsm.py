"""Security profiles of the tree: are they known here?

Used in preflight, on the destination.  CRIU (4.2, `lsm.c`) works with one security module, AppArmor
where it is on, else SELinux; it refuses a task with a profile of another one, and changes into the
profile by its name, which must be loaded then.
"""

from collections.abc import Sequence
from typing import Final

from phaul.destination.checks.context import CheckContext
from phaul.destination.checks.sheet import Sheet, count, printable
from phaul.protocol.preflight import Finding, LsmNeed

__all__ = ["look"]

_APPARMOR: Final = "/sys/kernel/security/apparmor"
_SELINUX: Final = "/sys/fs/selinux/enforce"
_LIMIT: Final = 4 << 20
_NAMES: Final = {"apparmor": "AppArmor", "selinux": "SELinux"}


def look(needs: Sequence[LsmNeed], context: CheckContext) -> list[Finding]:
    """The findings of `lsm`."""
    sheet = Sheet("lsm")
    apparmor = context.path(_APPARMOR).is_dir()
    on = "apparmor" if apparmor else "selinux" if context.path(_SELINUX).exists() else ""
    loaded: frozenset[str] | None = None
    asked = dict.fromkeys((need.kind, need.profile) for need in needs)
    if any(kind == on == "apparmor" for kind, _ in asked):
        try:
            loaded = _loaded(context)
        except OSError as error:
            sheet.warn(
                f"the profiles that are loaded there cannot be read: {error.strerror}",
                "see `aa-status` there for those of the tree",
            )
    for kind, profile in asked:
        name, said = _NAMES[kind], printable(profile)
        if kind != on:
            other = f"{_NAMES[on]} is" if on else "no security module is"
            sheet.no(
                f"a task is confined by {name} ({said}), there {other} on",
                f"boot that host with {name}, or start the program unconfined",
            )
        elif loaded is not None and (missing := _missing(profile, loaded)):
            sheet.no(
                f"the AppArmor profile {printable(missing)} is not loaded there",
                "copy its file to /etc/apparmor.d there, and `apparmor_parser -r` it",
            )
        else:
            sheet.right += 1
    if sheet.right:
        sheet.ok(f"{count(sheet.right, 'security profile')} can be had there")
    return sheet.found


def _loaded(context: CheckContext) -> frozenset[str]:
    """The names of the profiles; each line is `name (mode)`.  Raises OSError."""
    with (context.path(_APPARMOR) / "profiles").open("rb") as file:
        lines = file.read(_LIMIT).decode(errors="replace").splitlines()
    return frozenset(_without_mode(line) for line in lines)


def _without_mode(profile: str) -> str:
    head, bracket, _ = profile.rpartition(" (")
    return head if bracket and profile.endswith(")") else profile


def _missing(profile: str, loaded: frozenset[str]) -> str:
    """The first part of a profile that is not loaded, "" if all are.

    A stack is written `one//&two`; a profile of a namespace begins with `:` and is in a list of the
    namespace's own, which only `unconfined` of is needed here.
    """
    for part in _without_mode(profile).split("//&"):
        if part not in loaded and part != "unconfined" and not part.startswith(":"):
            return part
    return ""
