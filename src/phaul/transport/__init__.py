"""How the two ends reach each other: a control channel, and a memory channel beside it.

Used from the connection to the end, on both hosts.  `base` is the interface; `local` and `ssh` are
its drivers, `caller` is the source's way to talk over one.
"""
