"""Tests on the small real data sets; skipped where those are absent."""
