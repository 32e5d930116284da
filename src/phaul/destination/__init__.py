"""The destination's session: the rounds, then the restore, held until it is released.

Nothing is imported here: the agent's start counts, and what it needs first is little.
"""
