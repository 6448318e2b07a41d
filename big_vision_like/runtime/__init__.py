"""The process around a run: start, signals, locks, clock, writers."""
