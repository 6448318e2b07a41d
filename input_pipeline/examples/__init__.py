"""One example: its annotations, outlines, mask files and errors."""
