"""The destination's session: the rounds as they come in, then the restore, held until its release.

Nothing is imported here: the agent's start counts, and what it needs first is little.
"""
