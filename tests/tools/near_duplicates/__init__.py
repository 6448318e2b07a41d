"""Tests of tools/near_duplicates."""
