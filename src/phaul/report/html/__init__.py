"""A report as one HTML page that needs nothing else: no scripts, no fonts, no requests.  Pure."""

from phaul.report.html.page import page

__all__ = ["page"]
