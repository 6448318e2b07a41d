"""Faults done to real runs, again and again: `python -m tests.faults`."""
