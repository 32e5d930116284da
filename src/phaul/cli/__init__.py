"""The command line: one file a verb, rendering apart from doing."""
