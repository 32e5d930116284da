"""Programs that CRIU starts in a restore: are they here?

Used in preflight, on the destination.  CRIU finds them by the PATH that it has from the agent.
"""

import shutil
from collections.abc import Sequence
from typing import Final

from phaul.destination.checks.context import CheckContext
from phaul.destination.checks.sheet import Sheet, count, printable
from phaul.protocol.preflight import Finding, ToolNeed

__all__ = ["look"]

_PACKAGES: Final = {
    "iptables-restore": "iptables",
    "ip6tables-restore": "iptables",
    "tar": "tar",
    "ip": "iproute2",
}
_SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"


def look(needs: Sequence[ToolNeed], context: CheckContext) -> list[Finding]:
    """The findings of `tools`."""
    sheet = Sheet("tools")
    for name, purpose in {need.name: need.purpose for need in needs}.items():
        if shutil.which(name, path=context.search):
            sheet.right += 1
            continue
        remedy = f"there: `apt-get install {_PACKAGES[name]}` (or as that system calls it)"
        if elsewhere := shutil.which(name, path=_SBIN):
            remedy = f"it is {elsewhere}: add its directory to PATH of root's logins there"
        sheet.no(f"{name} is not found there, which is needed {printable(purpose)}", remedy)
    if sheet.right:
        sheet.ok(f"{count(sheet.right, 'program')} {'is' if sheet.right == 1 else 'are'} there")
    return sheet.found
