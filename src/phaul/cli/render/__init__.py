"""What a person, or a program, sees: text, JSON and the live line, apart from all doing."""
