"""The destination's session: a page server a round, then the restore, held until it is released.

Nothing is imported here: the agent's start counts, and what it needs first is little.
"""
