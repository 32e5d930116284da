"""A page server of phaul's own: what CRIU sends while it dumps, received into files."""

from phaul.pages.receiving.file import PagesFile
from phaul.pages.receiving.receiver import Place, Shelf, receive
from phaul.pages.receiving.wire import Commands, Kind, Map

__all__ = ["Commands", "Kind", "Map", "PagesFile", "Place", "Shelf", "receive"]
