"""People as examples: boxes of them from a file, and who is chosen."""
