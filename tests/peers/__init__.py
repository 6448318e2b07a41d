"""Other implementations of what we compute, as goldens and as opponents."""
