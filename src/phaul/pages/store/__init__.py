"""The page store: gives the pages of a chain of images to CRIU's daemon, which asks for them.

Used on the destination, from the restore until the last page is in.  `Index` knows where each page
lies, `Wire` what is asked and answered, `PageStore` answers.
"""

from phaul.pages.store.index import Index, Level, Missing, Piece, Where
from phaul.pages.store.server import PageStore, Remote, Served, socket_pair
from phaul.pages.store.wire import Wire

__all__ = [
    "Index",
    "Level",
    "Missing",
    "PageStore",
    "Piece",
    "Remote",
    "Served",
    "Where",
    "Wire",
    "socket_pair",
]
