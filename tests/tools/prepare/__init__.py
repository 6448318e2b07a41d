"""Tests of tools/prepare."""
