"""Tests of tools/launch."""
