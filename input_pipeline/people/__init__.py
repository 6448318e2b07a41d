"""People as examples: which there are, and boxes of them from a file."""
