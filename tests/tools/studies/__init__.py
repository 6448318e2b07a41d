"""Tests of tools/studies."""
