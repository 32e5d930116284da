"""Runnable examples of embedding phaul."""
