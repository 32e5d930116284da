"""Memory that is still on the source, and comes over a link: first what somebody waits for.

Used in a post-copy, from the restore until the last page is in.

    destination                                        source
    PageStore --get--> RemotePages ==== ASK, DONE ===> Supply --GET--> CRIU, which has it in pipes,
                       a sparse file <== PAGES, LOST =         or the frozen tree, before the commit

The file has room for each page that was left on the source; the store gives from it, as from any
other.  A page is asked for when somebody waits for it (`urgent`), else in the sweep; the source
answers what is urgent first, in pieces small enough that it never waits for long.

A link that is lost loses nothing: CRIU can be asked for a page again.  Over the next one the
destination asks for what it lacks, and whoever waits for memory waits that much longer.
"""

from phaul.pages.remote.backing import Backing, CriuPages, TreeMemory
from phaul.pages.remote.fetcher import RemotePages
from phaul.pages.remote.places import Places
from phaul.pages.remote.supply import Supply

__all__ = ["Backing", "CriuPages", "Places", "RemotePages", "Supply", "TreeMemory"]
